"""The proof of one loaded kernel on one problem: every element against float64, nothing written beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.bf16 import bf16_values
from hktune.device.device import Buffer, Device, Kernel
from hktune.errors import DeviceError, KernelFault
from hktune.model import Failure, Launch, Problem, Status
from hktune.verify.operands import POISON, Operands, random_operands

_GUARD_ELEMENTS = 4096


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
            parts.append(f"{self.outside} elements written past the end of C")
        return "; ".join(parts)


def verify(device: Device, kernel: Kernel, launch: Launch, problem: Problem, seed: int) -> Proof | Failure:
    """Run `kernel` once on random operands over a poisoned output and judge every element.

    Returns Failure(WRONG) with counts and the first bad element, or the fault that the device reported.
    """
    operands = random_operands(problem, seed)
    try:
        output, guard = _run(device, kernel, launch, problem, operands)
    except KernelFault as fault:
        return Failure(Status(fault.status), fault.detail)
    except DeviceError as error:
        return Failure(Status.CRASHED, str(error))
    mismatch = compare(output, operands, outside=int(np.count_nonzero(guard != POISON)))
    if mismatch is not None:
        return Failure(Status.WRONG, str(mismatch))
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


def _run(
    device: Device, kernel: Kernel, launch: Launch, problem: Problem, operands: Operands
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Launch once; C [m,n] and the guard behind it, as bf16 bits."""
    size = problem.m * problem.n
    poisoned = np.full(size + _GUARD_ELEMENTS, POISON, dtype=np.uint16)
    arrays = {"a": operands.a, "bt": operands.bt, "c": poisoned}
    if operands.bias is not None:
        arrays["bias"] = operands.bias
    buffers: dict[str, Buffer] = {}
    for name, array in arrays.items():
        buffers[name] = device.allocate(array.nbytes)
        device.write(buffers[name], array)
    sizes = {"m": problem.m, "n": problem.n, "k": problem.k, "lda": problem.k, "ldb": problem.k, "ldc": problem.n}
    wanted = {argument.name for argument in launch.arguments}
    binding = {name: value for name, value in (buffers | sizes).items() if name in wanted}
    device.launch(kernel, launch, binding)
    result = np.empty_like(poisoned)
    device.read(buffers["c"], result)
    return result[:size].reshape(problem.m, problem.n), result[size:]
