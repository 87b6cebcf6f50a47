"""The proof of `verify`, judged where the kernel ran: for GPUs, whose torch makes a proof cost milliseconds.

Operands, poison, guard, tolerance and verdict mean the same; the random numbers and the float64 product are torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.device.device import Device, Kernel
from hktune.verify.operands import BF16_UNIT_ROUNDOFF, FLOAT32_UNIT_ROUNDOFF, POISON
from hktune.verify.verify import GUARD_ELEMENTS, Mismatch, Proof

if TYPE_CHECKING:
    import torch


def verify_on_device(
    device: Device, kernel: Kernel, launch: Launch, proof: ProofProblem, seed: int, torch_device: str = "cuda"
) -> Proof | Failure:
    """`verify`, with everything but the launch done by torch on `torch_device`, which is where `device` can borrow.

    A KernelFault passes through: no torch can be used after it.
    """
    try:
        return _Proving(device, proof, seed, torch_device).judged(kernel, launch)
    except KernelFault:
        raise
    except DeviceError as error:
        return Failure(Status.CRASHED, str(error))


class _Proving:
    """One problem on the device: padded operands, and what C must be."""

    def __init__(self, device: Device, proof: ProofProblem, seed: int, torch_device: str) -> None:
        import torch

        self._device, self._proof, self._on = device, proof, torch_device
        problem = proof.problem
        generator = torch.Generator(torch_device).manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=torch_device, generator=generator).bfloat16()

        self._a, self._bt = normal(problem.m, problem.k), normal(problem.n, problem.k)
        self._bias = normal(problem.n) if problem.operation.has_bias else None
        self._expected, self._tolerance = self._answer()

    def judged(self, kernel: Kernel, launch: Launch) -> Proof | Failure:
        pointers, sizes = self._pointers(launch), self._sizes(self._proof.problem)
        binding = {name: value for name, value in (pointers | sizes).items() if launch.takes(name)}
        first: torch.Tensor | None = None
        for _ in range(2 if launch.workspace_bytes else 1):
            self._c.fill_(int(POISON))
            self._synchronize()
            self._device.launch(kernel, launch, binding)
            self._device.synchronize()
            mismatch = self._mismatch()
            if mismatch is not None:
                return Failure(Status.WRONG, str(mismatch))
            if first is not None and not first.equal(self._c):
                changed = int((first != self._c).sum())
                return Failure(Status.WRONG, f"{changed} elements differ when the same workspace is used again")
            first = self._c.clone()
        difference = self._values().double() - self._expected
        return Proof(self._proof.problem, float(difference.norm() / self._expected.norm()))

    def _answer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """C in float64, and by how much a right kernel may miss it; see `operands.Operands`."""
        a, bt = self._a.double(), self._bt.double()
        expected, magnitude = a @ bt.T, a.abs() @ bt.abs().T
        if self._bias is not None:
            expected += self._bias.double()
            magnitude += self._bias.double().abs()
        accumulated = (self._proof.problem.k + 1) * FLOAT32_UNIT_ROUNDOFF * magnitude
        return expected, BF16_UNIT_ROUNDOFF * expected.abs() + (1 + BF16_UNIT_ROUNDOFF) * accumulated

    def _pointers(self, launch: Launch) -> dict[str, Any]:
        """What the launch's pointers are bound to; the tensors live as long as this object."""
        import torch

        m, row = self._proof.problem.m, self._proof.problem.n + self._proof.padding
        self._c = torch.empty(m * row + GUARD_ELEMENTS, dtype=torch.int16, device=self._on)
        self._held = [self._padded(self._a), self._padded(self._bt), self._c]
        names = ["a", "bt", "c"]
        if self._bias is not None:
            self._held.append(self._bias)
            names.append("bias")
        if launch.workspace_bytes:
            workspace = torch.full((-(-launch.workspace_bytes // 2),), int(POISON), dtype=torch.int16, device=self._on)
            workspace[: WORKSPACE_COUNTER_BYTES // 2] = 0
            self._held.append(workspace)
            names.append("workspace")
        bound = dict(zip(names, map(self._device.borrow, self._held), strict=True))
        return {"bias": None, "workspace": None, **bound}

    def _sizes(self, problem: Problem) -> dict[str, int]:
        padding = self._proof.padding
        rows = {"lda": problem.k + padding, "ldb": problem.k + padding, "ldc": problem.n + padding}
        return {"m": problem.m, "n": problem.n, "k": problem.k, **rows}

    def _padded(self, rows: torch.Tensor) -> torch.Tensor:
        import torch

        padding = self._proof.padding
        wide = torch.nn.functional.pad(rows, (0, padding), value=float("nan")).reshape(-1)
        return wide[: wide.numel() - padding]

    def _rows(self) -> torch.Tensor:
        """C's bits with its padding columns, without the guard."""
        problem = self._proof.problem
        row = problem.n + self._proof.padding
        return self._c[: problem.m * row].view(problem.m, row)

    def _values(self) -> torch.Tensor:
        import torch

        return self._rows()[:, : self._proof.problem.n].view(torch.bfloat16)

    def _mismatch(self) -> Mismatch | None:
        poison, values = int(POISON), self._values()
        right = (values.double() - self._expected).abs() <= self._tolerance  # False for NaN
        inside = self._rows()[:, : self._proof.problem.n] != poison
        outside = int((self._c != poison).sum()) - int(inside.sum())
        if bool(right.all()) and not outside:
            return None
        wrong = right.numel() - int(right.sum())
        row, column = divmod(int(right.int().argmin()), right.shape[1])
        return Mismatch(
            elements=right.numel(),
            wrong=wrong,
            unwritten=int((~inside).sum()),
            outside=outside,
            first=(row, column) if wrong else None,
            got=float(values[row, column]),
            expected=float(self._expected[row, column]),
        )

    def _synchronize(self) -> None:
        """What torch queued is done before the device's own stream launches."""
        import torch

        if self._on != "cpu":
            torch.cuda.synchronize()
