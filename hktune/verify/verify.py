"""The proof of one loaded kernel on one problem: every element against float64, nothing written beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.core.bf16 import bf16_values
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.device.device import Buffer, Device, Kernel
from hktune.verify.operands import POISON, Operands, random_operands

GUARD_ELEMENTS = 4096


@dataclass(frozen=True)
class Proof:
    """A kernel was right on `problem`: its error relative to float64 in the Frobenius norm."""

    problem: Problem
    relative_error: float


@dataclass(frozen=True)
class Mismatch:
    """How an output differs from what it must be; counts are elements of C, `first` is (row, column)."""

    elements: int
    wrong: int
    unwritten: int
    outside: int
    first: tuple[int, int] | None
    got: float
    expected: float

    def __str__(self) -> str:
        parts = []
        if self.first is not None:
            row, column = self.first
            parts.append(f"{self.wrong} of {self.elements} elements wrong")
            if self.unwritten:
                parts.append(f"{self.unwritten} of them never written")
            parts.append(f"first at [{row},{column}]: got {self.got:.6g}, expected {self.expected:.6g}")
        if self.outside:
            parts.append(f"{self.outside} elements written outside C")
        return "; ".join(parts)


def verify(
    device: Device, kernel: Kernel, launch: Launch, problem: Problem, seed: int, padding: int = 0
) -> Proof | Failure:
    """Run `kernel` on random operands over a poisoned output and judge every element.

    The rows of every matrix lie `padding` elements apart; in A and Bt these are NaN, in C they must stay as they were.
    A launch with a workspace runs twice on the same one, and must give the same bits.
    Returns Failure(WRONG) with counts and the first bad element, or the fault that the device reported.
    """
    operands = random_operands(problem, seed)
    try:
        runs = _Run(device, kernel, launch, problem, padding, operands).outputs()
    except KernelFault as fault:
        return Failure(Status(fault.status), fault.detail)
    except DeviceError as error:
        return Failure(Status.CRASHED, str(error))
    output, outside = runs[0]
    mismatch = compare(output, operands, outside)
    if mismatch is not None:
        return Failure(Status.WRONG, str(mismatch))
    for again, outside in runs[1:]:
        changed = int(np.count_nonzero(again != output)) + outside
        if changed:
            return Failure(Status.WRONG, f"{changed} elements differ when the same workspace is used again")
    difference = bf16_values(output).astype(np.float64) - operands.expected
    return Proof(problem, float(np.linalg.norm(difference) / np.linalg.norm(operands.expected)))


def compare(output: npt.NDArray[np.uint16], operands: Operands, outside: int = 0) -> Mismatch | None:
    """The difference between bf16 bits `output` [m,n] and what they must be; None when every element is right."""
    values = bf16_values(output).astype(np.float64)
    with np.errstate(invalid="ignore"):
        right = np.abs(values - operands.expected) <= operands.tolerance
    wrong = right.size - int(np.count_nonzero(right))
    if not wrong and not outside:
        return None
    row, column = np.unravel_index(int(np.argmin(right)), right.shape)
    return Mismatch(
        elements=right.size,
        wrong=wrong,
        unwritten=int(np.count_nonzero(output == POISON)),
        outside=outside,
        first=(int(row), int(column)) if wrong else None,
        got=float(values[row, column]),
        expected=float(operands.expected[row, column]),
    )


class _Run:
    """One problem in device memory, ready to be launched on."""

    def __init__(
        self, device: Device, kernel: Kernel, launch: Launch, problem: Problem, padding: int, operands: Operands
    ) -> None:
        self._device, self._kernel, self._launch = device, kernel, launch
        self._problem, self._padding = problem, padding
        m, n, k = problem.m, problem.n, problem.k
        sizes = {"m": m, "n": n, "k": k, "lda": k + padding, "ldb": k + padding, "ldc": n + padding}
        self._c = device.allocate(self._poisoned().nbytes)
        pointers = {
            "a": self._placed(padded(operands.a, padding)),
            "bt": self._placed(padded(operands.bt, padding)),
            "c": self._c,
            "bias": None if operands.bias is None else self._placed(operands.bias),
            "workspace": self._workspace(),
        }
        self._binding = {name: value for name, value in (pointers | sizes).items() if launch.takes(name)}

    def outputs(self) -> list[tuple[npt.NDArray[np.uint16], int]]:
        """C [m,n] as bf16 bits, and how many elements were written outside it, of each launch."""
        return [self._output() for _ in range(2 if self._launch.workspace_bytes else 1)]

    def _output(self) -> tuple[npt.NDArray[np.uint16], int]:
        m, n = self._problem.m, self._problem.n
        result = self._poisoned()
        self._device.write(self._c, result)
        self._device.launch(self._kernel, self._launch, self._binding)
        self._device.read(self._c, result)
        rows = result[: m * (n + self._padding)].reshape(m, n + self._padding)
        written = int(np.count_nonzero(result != POISON)) - int(np.count_nonzero(rows[:, :n] != POISON))
        return rows[:, :n], written

    def _poisoned(self) -> npt.NDArray[np.uint16]:
        """What C holds before a launch: its rows, and a guard behind them."""
        size = self._problem.m * (self._problem.n + self._padding) + GUARD_ELEMENTS
        return np.full(size, POISON, dtype=np.uint16)

    def _workspace(self) -> Buffer | None:
        """Zero counters, then NaN."""
        if not self._launch.workspace_bytes:
            return None
        content = np.full(-(-self._launch.workspace_bytes // 2), POISON, np.uint16)
        content[: WORKSPACE_COUNTER_BYTES // 2] = 0
        return self._placed(content)

    def _placed(self, data: npt.NDArray[np.uint16]) -> Buffer:
        buffer = self._device.allocate(data.nbytes)
        self._device.write(buffer, data)
        return buffer


def padded(rows: npt.NDArray[np.uint16], padding: int) -> npt.NDArray[np.uint16]:
    """The rows of a matrix [r,c] one after another, `padding` NaNs between them and none behind the last."""
    wide = np.pad(rows, ((0, 0), (0, padding)), constant_values=POISON)
    return wide.reshape(-1)[: wide.size - padding]
