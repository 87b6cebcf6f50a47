"""The proof of `verify`, worked out where the kernel ran: for GPUs, whose torch makes a proof cost milliseconds.

Only the random numbers are others: torch draws them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hktune.core.dtype import E4M3, Dtype
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import Launch
from hktune.core.outcome import Failure, Status
from hktune.core.problem import ProofProblem
from hktune.device.device import Buffer, Device, Kernel
from hktune.verify.proof import Proof, proved
from hktune.verify.reference import drawn_operands

if TYPE_CHECKING:
    import torch


def verify_on_device(
    device: Device, kernel: Kernel, launch: Launch, proof: ProofProblem, seed: int, torch_device: str = "cuda"
) -> Proof | Failure:
    """`verify`, with everything but the launch done by torch on `torch_device`, which is where `device` can borrow.

    A KernelFault passes through: no torch can be used after it. Raises InputError as `verify` does.
    """
    import torch

    arrays, memory = TorchArrays(torch_device), TorchMemory(device, torch_device)
    random = torch.Generator(torch_device).manual_seed(seed)
    operands = drawn_operands(
        proof.problem,
        lambda shape: torch.randn(shape, device=torch_device, generator=random),
        arrays,
        proof.exact_sums,
        proof.sums,
    )
    try:
        operands = replace(operands, rounding=proof.rounding)
        return proved(device, kernel, launch, operands, proof.padding, arrays, memory)
    except KernelFault:
        raise
    except DeviceError as error:
        return Failure(Status.CRASHED, str(error))


class TorchArrays:
    """Arrays of torch on one of its devices; bits are signed integers, which torch has more to do with."""

    def __init__(self, torch_device: str) -> None:
        self._on = torch_device

    def encoded(self, values: torch.Tensor, dtype: Dtype) -> torch.Tensor:
        import torch

        if dtype.packed > 1:
            return self._by_numpy(dtype.bits(values.float().cpu().numpy()))
        if dtype.is_integer:
            return values.round().clamp(-dtype.integer_max - 1, dtype.integer_max).to(_torch_dtype(dtype))
        torch_dtype, single = _torch_dtype(dtype), values.float()
        if dtype is E4M3:  # of what is too large, releases of torch make a NaN or the largest number
            single = single.clamp(torch.finfo(torch_dtype).min, torch.finfo(torch_dtype).max)
        return bits_of(single.to(torch_dtype))

    def decoded(self, bits: torch.Tensor, dtype: Dtype) -> torch.Tensor:
        if dtype.packed > 1:
            return self._by_numpy(dtype.values(bits.cpu().numpy().view(dtype.bits_type))).double()
        return bits.view(_torch_dtype(dtype)).double()

    def _by_numpy(self, array: Any) -> torch.Tensor:
        """Formats of several elements in a byte, which torch converts neither to nor from."""
        import torch

        bits = array.view("i1") if array.dtype == "u1" else array
        return torch.from_numpy(bits).to(self._on)

    def filled(self, size: int, bits: int, dtype: Dtype) -> torch.Tensor:
        import torch

        signed = bits - (bits >> (8 * dtype.bytes - 1) << (8 * dtype.bytes))
        return torch.full((size,), signed, dtype=_bits_dtype(dtype), device=self._on)

    def norm(self, values: torch.Tensor) -> float:
        return float(values.norm())

    def exp(self, values: torch.Tensor) -> torch.Tensor:
        return values.exp()

    def erfc(self, values: torch.Tensor) -> torch.Tensor:
        return values.erfc()


class TorchMemory:
    """Tensors of torch are the device's own memory: nothing is copied."""

    def __init__(self, device: Device, torch_device: str) -> None:
        self._device, self._on = device, torch_device

    def place(self, bits: torch.Tensor) -> Buffer:
        return self._device.borrow(bits)

    def send(self, buffer: Buffer, bits: torch.Tensor) -> None:
        """What torch queued is done before the device's own stream launches."""
        import torch

        del buffer, bits
        if self._on != "cpu":
            torch.cuda.synchronize()

    def fetch(self, buffer: Buffer, bits: torch.Tensor) -> None:
        del buffer, bits
        self._device.synchronize()


def bits_of(values: torch.Tensor) -> torch.Tensor:
    """The bits of floating-point numbers, as TorchArrays has them."""
    import torch

    bits: torch.dtype = getattr(torch, f"int{8 * values.element_size()}")
    return values.view(bits)


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, dtype.torch_name)
    return found


def _bits_dtype(dtype: Dtype) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, f"int{8 * dtype.bytes}")
    return found
