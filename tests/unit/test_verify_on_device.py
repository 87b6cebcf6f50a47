"""The judge that works where the kernel ran: on right and subtly wrong kernels, and beside the one on the host."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from naive_gemm import OBJECT, launch_of, trial

from hktune.core.dtype import BF16
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Argument, Launch
from hktune.core.operation import legacy_operation
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.device.emulated import EmulatedDevice
from hktune.verify import Proof, verify
from hktune.verify.on_device import verify_on_device

PROBLEM = Problem(m=64, n=48, k=96)
NAMES = ("a", "b", "c", "bias", "workspace")
SIZES = tuple(Argument(name, "u32") for name in ("lda", "ldb", "ldc"))
Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint16]
Kernel = Callable[[Floats, Bits], None]
"""Puts a product [m,n] into the rows of C, of which it sees `Bits` from the first to the last element of the buffer."""


class TorchHostDevice:
    """Runs a Python function in place of a kernel, on torch tensors of the CPU."""

    def __init__(self, kernel: Kernel, fault: Exception | None = None) -> None:
        self._kernel, self._fault = kernel, fault

    def borrow(self, tensor: torch.Tensor) -> Any:
        return SimpleNamespace(data=tensor.view(torch.int16).numpy().view(np.uint16))

    def launch(self, kernel: Any, launch: Launch, binding: Any, stream: int | None = None) -> None:
        if self._fault:
            raise self._fault
        a, bt = (rows(binding[name].data, binding[stride]) for name, stride in (("a", "lda"), ("b", "ldb")))
        product = a[:, : PROBLEM.k] @ bt[:, : PROBLEM.k].T
        if binding["bias"] is not None:
            product = product + BF16.values(binding["bias"].data)
        self._kernel(product, binding["c"].data)

    def synchronize(self) -> None: ...


def rows(bits: Bits, stride: int) -> Floats:
    """The rows of a matrix whose last one has no padding behind it."""
    missing = -bits.size % stride
    return BF16.values(np.pad(bits, (0, missing))).reshape(-1, stride)


def judge(kernel: Kernel, padding: int = 0, workspace_bytes: int = 0, epilogue: str = "none") -> Proof | Failure:
    arguments = (*(Argument(name, "pointer") for name in NAMES), *SIZES)
    launch = Launch((1, 1, 1), (64, 1, 1), 0, arguments, workspace_bytes)
    problem = Problem(PROBLEM.m, PROBLEM.n, PROBLEM.k, legacy_operation("bf16", epilogue))
    device: Any = TorchHostDevice(kernel)
    return verify_on_device(device, SimpleNamespace(symbol="k"), launch, ProofProblem(problem, padding), 7, "cpu")


def storing(padding: int = 0, spoil: Callable[[Bits], None] = lambda bits: None) -> Kernel:
    """A right kernel, whose output `spoil` then changes in place (bits [m,n])."""

    def kernel(product: Floats, c: Bits) -> None:
        bits = BF16.bits(product)
        spoil(bits)
        stride = PROBLEM.n + padding
        c[: PROBLEM.m * stride].reshape(PROBLEM.m, stride)[:, : PROBLEM.n] = bits

    return kernel


@pytest.mark.parametrize("padding", [0, 24])
@pytest.mark.parametrize("epilogue", ["none", "bias"])
def test_a_right_kernel_is_proved(padding: int, epilogue: str) -> None:
    proof = judge(storing(padding), padding, epilogue=epilogue)
    assert isinstance(proof, Proof), proof
    assert 1e-3 < proof.relative_error < 2.0**-8


def off_by_two(bits: Bits) -> None:
    bits[5, 9] += 2


def half_unwritten(bits: Bits) -> None:
    bits[32:] = 0x7FD5


def test_a_wrong_element_is_named() -> None:
    failure = judge(storing(spoil=off_by_two))
    assert isinstance(failure, Failure)
    assert failure.detail.startswith("1 of 3072 elements wrong; first at [5,9]: got")


def test_unwritten_elements_are_counted() -> None:
    failure = judge(storing(spoil=half_unwritten))
    assert isinstance(failure, Failure)
    assert "1536 of 3072 elements wrong; 1536 of them never written" in failure.detail


@pytest.mark.parametrize(("padding", "where"), [(0, 64 * 48), (24, 50)])
def test_writes_beside_c_are_wrong(padding: int, where: int) -> None:
    def beside(product: Floats, c: Bits) -> None:
        storing(padding)(product, c)
        c[where] = 0

    failure = judge(beside, padding)
    assert isinstance(failure, Failure)
    assert failure.detail == "1 elements written outside C"


def test_truncation_instead_of_rounding_is_wrong() -> None:
    def truncating(product: Floats, c: Bits) -> None:
        c[: product.size] = (product.view(np.uint32) >> 16).astype(np.uint16).ravel()

    assert isinstance(judge(truncating), Failure)


def test_a_workspace_that_is_left_dirty_shows() -> None:
    calls: list[int] = []

    def once_right(product: Floats, c: Bits) -> None:
        storing()(product, c)
        if calls:  # what lies closest to the middle of two bf16 numbers becomes the other: as right, but not the same
            beyond = np.abs(product.ravel()) - np.abs(BF16.values(c[: product.size]))
            where = int(np.argmax(np.abs(beyond / product.ravel())))
            c[where] = int(c[where]) + (1 if beyond[where] > 0 else -1)
        calls.append(1)

    failure = judge(once_right, workspace_bytes=WORKSPACE_COUNTER_BYTES + 64)
    assert isinstance(failure, Failure)
    assert failure.detail == "1 elements differ when the same workspace is used again"


def test_a_refusal_is_a_failure_and_a_fault_passes_through() -> None:
    launch = Launch((1, 1, 1), (64, 1, 1), 0, (Argument("a", "pointer"),))

    def on(error: Exception) -> Proof | Failure:
        device: Any = TorchHostDevice(storing(), error)
        return verify_on_device(device, SimpleNamespace(symbol="k"), launch, ProofProblem(PROBLEM), 7, "cpu")

    assert on(DeviceError("no")) == Failure(Status.CRASHED, "no")
    with pytest.raises(KernelFault):
        on(KernelFault("crashed", "illegal address"))


def test_both_judges_agree_on_a_code_object() -> None:
    problem = Problem(33, 70, 64)
    symbol, rule = launch_of(trial(problem))
    launch = rule.at(problem.m)
    assert launch is not None
    device = EmulatedDevice("gfx950")
    kernel = device.load(OBJECT, symbol)
    here = verify_on_device(device, kernel, launch, ProofProblem(problem), 3, "cpu")
    there = verify(device, kernel, launch, problem, seed=3)
    assert isinstance(here, Proof)
    assert isinstance(there, Proof)
    assert here.relative_error == pytest.approx(there.relative_error, rel=0.2)
