"""The tensors that an operation reads and writes: their names, formats, and shapes as they are stored.

Proofs, benchmarks and devices all read these records. Whoever binds a kernel's arguments does so by these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol, TypeVar

from hktune.core.dtype import Dtype
from hktune.core.errors import InputError
from hktune.core.operation import Operation

_AXES = {"a": {"n": ("m", "k"), "t": ("k", "m")}, "b": {"n": ("k", "n"), "t": ("n", "k")}}
_STEP_AXES = {"bias": ("n",)}
"""What a step of an epilogue reads, under the step's own name."""

POINTERS = ("a", "b", "c", *_STEP_AXES, "workspace")
"""What may fill a pointer of a launch: the operands, and what a kernel keeps its counters and partial sums in."""
_MATRICES = ("a", "b", "c", *(name for name, axes in _STEP_AXES.items() if len(axes) == 2))
NUMBERS = ("m", "n", "k", *(f"ld{name}" for name in _MATRICES))
"""What may fill a number: the sizes, and the row strides of matrices."""


@dataclass(frozen=True)
class Operand:
    """One tensor of an operation. `axes` are names of sizes (m, n, k) in the order of storage: the last is contiguous.

    A matrix has a row stride, a number of elements, which launches call `lda` for `a` and so on.
    """

    name: str
    dtype: Dtype
    axes: tuple[str, ...]

    @property
    def row_stride(self) -> str:
        """The name of the row stride; "" for a vector, which has none."""
        return f"ld{self.name}" if len(self.axes) == 2 else ""

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Elements along each axis, from a value for each of m, n and k."""
        return tuple(sizes[axis] for axis in self.axes)


@lru_cache(maxsize=4096)
def operands_of(operation: Operation) -> Mapping[str, Operand]:
    """The tensors of `operation` by name: a, b, what its epilogue reads, and c, which is written. The same for equal
    operations. Raises InputError for a kind or for scales whose operands are not written down here."""
    if operation.kind != "gemm" or operation.scales:
        known = "the kind gemm without scales"
        raise InputError(f"operation {operation}: its operands are not known: known are those of {known}")
    operands = [
        Operand("a", operation.a_dtype, _AXES["a"][operation.layout[0]]),
        Operand("b", operation.b_dtype, _AXES["b"][operation.layout[1]]),
        *(Operand(step, operation.c_dtype, _STEP_AXES[step]) for step in operation.epilogue if step in _STEP_AXES),
        Operand("c", operation.c_dtype, ("m", "n")),
    ]
    return MappingProxyType({operand.name: operand for operand in operands})


class Transposable(Protocol):
    """A matrix of any array library."""

    @property
    def T(self: _Matrix) -> _Matrix: ...  # noqa: N802 - as numpy and torch call it


_Matrix = TypeVar("_Matrix", bound=Transposable)


def factors_of(operation: Operation, tensors: Mapping[str, _Matrix]) -> tuple[_Matrix, _Matrix]:
    """A [m,k] and B [k,n] as the product reads them: views of the tensors `a` and `b` as they are stored."""
    a, b = tensors["a"], tensors["b"]
    return a if operation.layout[0] == "n" else a.T, b if operation.layout[1] == "n" else b.T
