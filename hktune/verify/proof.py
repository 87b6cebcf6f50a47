"""The proof of one loaded kernel on one problem: every element against float64, nothing written around C."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hktune.core.dtype import F32, Dtype
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch
from hktune.core.operand import operands_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, Rounding
from hktune.core.storage import STORAGES
from hktune.core.sums import FLOAT32_SUMS, Sums
from hktune.device.device import Buffer, Device, Kernel
from hktune.verify.arrays import HOST, Array, Arrays, HostMemory, Memory
from hktune.verify.reference import Operands, compare, random_operands

GUARD_ELEMENTS = 4096


@dataclass(frozen=True)
class Proof:
    """A kernel was right on `problem`: its error relative to float64 in the Frobenius norm, where C is finite and not
    beyond the largest number of its format."""

    problem: Problem
    relative_error: float


def verify(
    device: Device,
    kernel: Kernel,
    launch: Launch,
    problem: Problem,
    seed: int,
    padding: int = 0,
    exact_sums: bool = False,
    rounding: Rounding = "half_even",
    sums: Sums = FLOAT32_SUMS,
) -> Proof | Failure:
    """Run `kernel` on random operands over a poisoned output and judge every element, on the host. Where the operation
    accumulates, the output holds random numbers instead.

    The rows of every matrix are `padding` elements apart; in inputs these are NaN, in C they must stay as they were.
    A launch with a workspace runs twice on the same one, and must give the same bits. `sums` says how exact those of
    the kernel are.
    Returns Failure(WRONG) with counts and the first bad element, or the fault that the device reported.
    Raises InputError for an operation without a reference.
    """
    operands = replace(random_operands(problem, seed, exact_sums, sums), rounding=rounding)
    try:
        return proved(device, kernel, launch, operands, padding, HOST, HostMemory(device))
    except KernelFault as fault:
        return Failure(Status(fault.status), fault.detail)
    except DeviceError as error:
        return Failure(Status.CRASHED, str(error))


def proved(
    device: Device,
    kernel: Kernel,
    launch: Launch,
    operands: Operands,
    padding: int,
    arrays: Arrays,
    memory: Memory,
) -> Proof | Failure:
    """`verify` on these operands, which are of `arrays`; `memory` is `device`'s. Raises DeviceError, KernelFault."""
    placed = _Placed(operands, launch, padding, arrays, memory)
    first: Array | None = None
    for _ in range(2 if launch.workspace_bytes else 1):
        placed.poison_c()
        device.launch(kernel, launch, placed.binding)
        output, outside = placed.output()
        mismatch = compare(output, operands, outside, arrays)
        if mismatch is not None:
            return Failure(Status.WRONG, str(mismatch))
        changed = 0 if first is None else int((output != first).sum())
        if changed:
            return Failure(Status.WRONG, f"{changed} elements differ when the same workspace is used again")
        first = output + 0  # a copy
    return Proof(operands.problem, _relative_error(first, operands, arrays))


def _relative_error(output: Array, operands: Operands, arrays: Arrays) -> float:
    exact, dtype = operands.answer.exact, operands.problem.operation.c_dtype
    error = arrays.decoded(output, dtype) - exact
    largest = float(dtype.values(dtype.bits(np.array([math.inf])))[0])  # infinity, where there is one
    finite = (abs(error) < math.inf) & (abs(exact) <= largest)
    size = arrays.norm(exact[finite])
    return arrays.norm(error[finite]) / size if size else 0.0


class _Placed:
    """One problem in device memory; `binding` has what the launch takes of it. The arrays live as long as this does."""

    def __init__(self, operands: Operands, launch: Launch, padding: int, arrays: Arrays, memory: Memory) -> None:
        problem = operands.problem
        self._memory, self._arrays, self._adds_to_c = memory, arrays, launch.adds_to_c
        self._m, self._n, self._row = problem.rows, problem.n, problem.n + padding
        self._dtype = problem.operation.c_dtype
        self._c = arrays.filled(self._m * self._row + GUARD_ELEMENTS, self._dtype.poison_bits, self._dtype)
        self._poison = arrays.filled(1, self._dtype.poison_bits, self._dtype)
        tensors, numbers = {"c": self._c}, problem.numbers(padding)
        self._before = operands.stored.get("c")
        for name, operand in operands_of(problem.operation).items():
            if name == "c":
                continue
            if name in operands.stored and launch.stored(name):
                tensors[name] = _rearranged(operands.stored[name], launch.stored(name), operand.dtype, arrays)
                numbers[operand.row_stride] = tensors[name].shape[1] * operand.dtype.packed // operand.dtype.units
            elif name in operands.stored:
                between = operand.row_padding(padding) // operand.dtype.packed * operand.dtype.units
                tensors[name] = padded(operands.stored[name], between, operand.dtype, arrays)
        if launch.workspace_bytes:
            tensors["workspace"] = _workspace(launch.workspace_bytes, arrays)
        self._tensors = tensors
        buffers = {name: memory.place(tensor) for name, tensor in tensors.items()}
        self._c_buffer = buffers["c"]
        given: dict[str, Buffer | int] = {**buffers, **numbers}
        self.binding = launch.bound(given)

    def poison_c(self) -> None:
        """C and the guard behind it hold what no kernel writes; where the kernel adds to C, C itself holds zeros, or
        what the operation accumulates on."""
        self._c[:] = self._poison
        if self._before is not None:
            self._rows()[:] = self._before.reshape(self._m, self._n)
        elif self._adds_to_c:
            self._rows()[:] = 0
        self._memory.send(self._c_buffer, self._c)

    def output(self) -> tuple[Array, int]:
        """C [rows,n] as bits after a launch, and how many elements were written around it."""
        self._memory.fetch(self._c_buffer, self._c)
        rows, poison = self._rows(), self._poison
        return rows, int((self._c != poison).sum()) - int((rows != poison).sum())

    def _rows(self) -> Array:
        return self._c[: self._m * self._row].reshape(self._m, self._row)[:, : self._n]


def _workspace(size_bytes: int, arrays: Arrays) -> Array:
    """Zero counters, then NaN, as words of float32."""
    words = arrays.filled(-(-size_bytes // F32.bytes), F32.poison_bits, F32)
    words[: WORKSPACE_COUNTER_BYTES // F32.bytes] = 0
    return words


def _rearranged(stored: Array, word: str, dtype: Dtype, arrays: Arrays) -> Array:
    """A matrix in a storage of `hktune.core.storage`, with NaNs where it is padded."""
    storage, (rows, columns) = STORAGES[word], stored.shape
    whole_rows, whole_columns = storage.padded_shape(rows, columns, dtype)
    whole = arrays.filled(whole_rows * whole_columns, dtype.poison_bits, dtype).reshape(whole_rows, whole_columns)
    whole[:rows, :columns] = stored
    return storage.arranged(whole, dtype)


def padded(stored: Array, padding: int, dtype: Dtype, arrays: Arrays) -> Array:
    """The rows of a matrix, or of several, one after another, `padding` NaNs between them and none behind the last; a
    vector is one row."""
    *rows, columns = stored.shape
    count = math.prod(rows)
    wide = arrays.filled(count * (columns + padding), dtype.poison_bits, dtype)
    wide.reshape(count, columns + padding)[:, :columns] = stored.reshape(count, columns)
    return wide[: len(wide) - padding]
