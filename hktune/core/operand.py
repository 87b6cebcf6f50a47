"""The tensors that an operation reads and writes: their names, formats, and shapes as they are stored.

Proofs, benchmarks and devices all read these records. Whoever binds a kernel's arguments does so by these names.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol, TypeVar

from hktune.core.dtype import BF16, E4M3, E8M0, F16, F32, FLOAT8, I8, I32, Dtype
from hktune.core.errors import InputError
from hktune.core.operation import ACTIVATIONS, COUNTED, GATES, SCALE_BLOCK, Operation

_ANY_COUNT = "count"
_AXES = {"a": {"n": ("m", "k"), "t": ("k", "m")}, "b": {"n": ("k", "n"), "t": ("n", "k")}}
_ADDED_AXES = {"bias": ("n",), "residual": ("m", "n")}
"""What steps of an epilogue add."""
_VECTORS = frozenset(name for name, axes in _ADDED_AXES.items() if len(axes) == 1)
"""Those of them that each product has one of."""
_FACTORS = ("alpha", "beta", "scale_c")
"""Single numbers, in float32: what A @ B, a residual, and all of C before it is rounded to float8 are multiplied by."""
_READ_BY = {"bias": ("bias",), "residual": ("residual",), "alpha": ("alpha",), "beta_residual": ("residual", "beta")}
"""The operands of steps."""
_TWICE = "2"
"""What begins the name of an axis that is twice as long as a size."""
_SCALE_AXES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tensor": (("1",), ("1",)),
    "rows": (("m",), ("n",)),
    "blocks": (("m", f"k/{SCALE_BLOCK}"), (f"n/{SCALE_BLOCK}", f"k/{SCALE_BLOCK}")),
}
"""What A and B are scaled by."""

POINTERS = ("a", "b", "c", *_ADDED_AXES, "scale_a", "scale_b", *_FACTORS, "offsets", "workspace")
"""What may fill a pointer of a launch: the operands, and what a kernel keeps its counters and partial sums in."""
_MATRICES = ("a", "b", "c", "scale_a", "scale_b", *(name for name, axes in _ADDED_AXES.items() if len(axes) == 2))
_STACKS = ("a", "b", "c", "residual")
_INCREMENTS = ("incscale_a",)
NUMBERS = (
    *("m", "n", "k", "groups"),
    *(f"ld{name}" for name in _MATRICES),
    *(f"stride_{name}" for name in _STACKS),
    *_INCREMENTS,
)
"""What may fill a number: the sizes, how many products there are, the row strides of matrices, in stacks of these the
strides from one matrix to the next, and increments."""


@dataclass(frozen=True)
class Operand:
    """One tensor of an operation. `axes` are names of sizes (m, n, k) in the order of storage: the last is contiguous.
    `k/32` is the number of blocks of 32 that k has, the last of which may be smaller; `2n` is twice n; `8` is eight.
    The first of three axes counts matrices, whose rows follow one another.

    A matrix has a row stride, a number of elements, which launches call `lda` for `a` and so on. From one matrix of a
    stack to the next it is `stride_a`; 0 where all products have the same one. Rows of `turns` kinds take turns. The
    biases of groups follow one another, so they have no stride.
    """

    name: str
    dtype: Dtype
    axes: tuple[str, ...]
    turns: int = 1

    @property
    def row_stride(self) -> str:
        """The name of the row stride; "" for a vector, or vectors that follow one another: they have none."""
        return f"ld{self.name}" if len(self.axes) > 1 and self.name not in _VECTORS else ""

    @property
    def matrix_stride(self) -> str:
        """The name of the stride from one matrix to the next; "" where there is but one."""
        return f"stride_{self.name}" if len(self.axes) > 2 else ""

    @property
    def is_stack(self) -> bool:
        """Whether its rows are those of several matrices, which follow one another or take turns."""
        return bool(self.matrix_stride) or self.turns > 1

    @property
    def increment(self) -> str:
        """The name of the number of elements from one of a row to the next, of a matrix that a call may have column by
        column; "" for others. It is 1 as the matrix is stored, whose row stride a launch takes too."""
        name = f"inc{self.name}"
        return name if self.row_stride and name in _INCREMENTS else ""

    @property
    def strides(self) -> tuple[str, ...]:
        """The names of its strides and increments."""
        return tuple(filter(None, (self.row_stride, self.matrix_stride, self.increment)))

    def row_padding(self, padding: int) -> int:
        """Elements between its rows where those of C are `padding` apart. A residual's are twice as many, so that a
        kernel is wrong which takes one stride for the other."""
        return (2 * padding if self.name == "residual" else padding) if self.row_stride else 0

    def extents(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Elements along each axis, from a value for each of m, n and k. Raises InputError where the last block of a
        format with blocks would not be full, and for an operation that does not say how many products it has."""
        found = tuple(_extent(axis, sizes) for axis in self.axes)
        whole = self.dtype.block or 1
        if found[-1] % whole:
            raise InputError(f"{self.axes[-1]}={found[-1]}: must be a multiple of {whole}, as {self.dtype} is stored")
        return found

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """What is stored along each axis: `extents`, where elements of the last one that share bytes are counted
        together."""
        *rows, columns = self.extents(sizes)
        return (*rows, columns // self.dtype.packed * self.dtype.units)


def inputs_of(operation: Operation) -> list[Operand]:
    """The operands that hold something when a launch begins. Raises InputError as `operands_of` does."""
    return [each for each in operands_of(operation).values() if each.name != "c" or operation.accumulates]


def rows_of(operation: Operation, tensors: Mapping[str, _Tensor], first: int, end: int) -> dict[str, _Tensor]:
    """`tensors` by name as the rows `first` to `end` of C read them: views."""
    operands = operands_of(operation)
    return {
        name: tensor[tuple(slice(first, end) if axis == "m" else slice(None) for axis in operands[name].axes)]
        for name, tensor in tensors.items()
    }


def _extent(axis: str, sizes: Mapping[str, int]) -> int:
    if axis == _ANY_COUNT:
        raise InputError("an operation of any number of products: say how many, such as grouped8.bf16.nt")
    size, _, block = axis.partition("/")
    if size.isdecimal():
        return int(size)
    whole = sizes[size] if size in sizes else 2 * sizes[size.removeprefix(_TWICE)]
    return -(-whole // int(block or 1))


@lru_cache(maxsize=4096)
def operands_of(operation: Operation) -> Mapping[str, Operand]:
    """The tensors of `operation` by name: a, b, their scales, where groups end, what its epilogue reads, and c, which
    is written (and read too, where the operation accumulates). The same for equal operations. Raises InputError for an
    operation whose operands are not written down here."""
    reason = _unknown(operation)
    if reason:
        raise InputError(f"operation {operation}: its operands are not known: {reason}")
    count = (str(operation.count or _ANY_COUNT),) if operation.kind in COUNTED else ()
    of_a = () if operation.is_grouped else count
    of_b, of_c = () if operation.divides_k else count, () if operation.divides_rows else count
    gated, before_gates = {"b", "scale_b"}, set(itertools.takewhile(operation.gates_step.__ne__, operation.epilogue))
    operands = [
        Operand("a", operation.a_dtype, (*of_a, *_AXES["a"][operation.layout[0]])),
        Operand("b", operation.b_dtype, (*of_b, *_AXES["b"][operation.layout[1]])),
        *_scales(operation, of_a, of_b),
        *((Operand("offsets", I32, count),) if operation.is_grouped else ()),
        *(
            _read(name, operation, of_b if name in _VECTORS else of_c)
            for step in operation.epilogue
            for name in _READ_BY.get(step, ())
        ),
        *((_read("scale_c", operation),) if operation.scales_c else ()),
        Operand("c", operation.c_dtype, (*of_c, "m", "n")),
    ]
    if operation.is_gated:
        in_turn = GATES[operation.gates_step] == "interleaved"
        operands = [_of_gates_and_up(each, in_turn) if each.name in gated | before_gates else each for each in operands]
    return MappingProxyType({operand.name: operand for operand in operands})


def _read(name: str, operation: Operation, count: tuple[str, ...] = ()) -> Operand:
    """What the end of an operation reads under this name; `count` is of how many products it is."""
    if name in _FACTORS:
        return Operand(name, F32, ("1",))
    return Operand(name, operation.added_dtype, (*count, *_ADDED_AXES[name]))


def _of_gates_and_up(operand: Operand, in_turn: bool) -> Operand:
    """An operand of gates and of what they gate: its axis along the columns of C is twice as long."""
    axes = tuple(f"{_TWICE}{axis}" if axis.partition("/")[0] == "n" else axis for axis in operand.axes)
    return replace(operand, axes=axes, turns=2 if in_turn and axes[-2:-1] == (f"{_TWICE}n",) else 1)


def _unknown(operation: Operation) -> str:
    """Why the operands of `operation` are not known; "" if they are."""
    a, b, c = operation.a_dtype, operation.b_dtype, operation.c_dtype
    scaled = {a, b} <= _SCALED
    if operation.scales and not scaled:
        return f"known are scales of {_names(_SCALED)}"
    if operation.kind in COUNTED and (reason := _unknown_of_several(operation)):
        return reason
    if operation.accumulates and operation.scales_c:
        return f"C of float8 has a scale: known are those that accumulate in {_names({BF16, F16, F32})}"
    if operation.is_grouped and operation.layout == "tt":
        return "rows are grouped as they are stored, of A and, where they are along K, of B: known are nt, nn and tn"
    if operation.accumulation and not {a, b} <= FLOAT8:
        return f"known are sums that are {operation.accumulation} of {_names(FLOAT8)}"
    if I32 in (a, b) or a.is_integer != b.is_integer or a.block != b.block:
        return "known are factors that are floats, both i8, or both of a format with blocks"
    if a.block and operation.layout != "nt":
        return f"blocks of {a} lie along K: known is the layout nt"
    whole_sums = operation.accumulator == I32 and not operation.scales and not operation.epilogue
    if c not in _OUTPUTS and not (c == I32 and whole_sums):
        return f"known are outputs of {_names(_OUTPUTS)}, and i32 of i8 without scales and steps"
    return ""


def _unknown_of_several(operation: Operation) -> str:
    """The same of what several products have besides their factors."""
    of_rows, is_batched = not operation.divides_k, operation.kind == "batched"
    steps = {*ACTIVATIONS, *GATES, *(() if is_batched else ("bias",))} if of_rows else {"accumulate"}
    added = is_batched and operation.epilogue == ("residual",)
    if not added and not {*operation.epilogue} <= steps:
        others = "activations and gates" if is_batched else "a bias, activations and gates"
        alone = ", or a residual alone" if is_batched else ""
        known = f"{others}{alone}" if of_rows else "accumulate alone"
        return f"of {operation.kind} products known are as steps {known}"
    scales = ("", "rows") if of_rows else ("",)
    if operation.a_dtype.block or operation.scales_c or operation.scales not in scales:
        of_rows_too = ", or with some of rows" if of_rows else ""
        return f"of {operation.kind} products known are those without scales{of_rows_too}"
    return ""


_SCALED = {*FLOAT8, I8}
_OUTPUTS = {BF16, F16, F32, E4M3}


def _names(dtypes: Collection[Dtype]) -> str:
    return ", ".join(sorted(map(str, dtypes)))


def _scales(operation: Operation, of_a: tuple[str, ...], of_b: tuple[str, ...]) -> tuple[Operand, ...]:
    """`of_a` and `of_b` count the matrices of A and of B."""
    block = operation.a_dtype.block
    if block:
        return Operand("scale_a", E8M0, ("m", f"k/{block}")), Operand("scale_b", E8M0, ("n", f"k/{block}"))
    if operation.scales:
        own_a, own_b = _SCALE_AXES[operation.scales]
        return Operand("scale_a", F32, (*of_a, *own_a)), Operand("scale_b", F32, (*of_b, *own_b))
    return ()


class Sliceable(Protocol):
    """An array of any library."""

    def __getitem__(self: _Tensor, index: tuple[slice, ...], /) -> _Tensor: ...


_Tensor = TypeVar("_Tensor", bound=Sliceable)


class Transposable(Protocol):
    """A matrix of any array library, or a stack of them."""

    def swapaxes(self: _Matrix, axis0: int, axis1: int, /) -> _Matrix: ...


_Matrix = TypeVar("_Matrix", bound=Transposable)


def factors_of(operation: Operation, tensors: Mapping[str, _Matrix]) -> tuple[_Matrix, _Matrix]:
    """A [m,k] and B [k,n] as the product reads them, or stacks of these: views of the tensors `a` and `b` as they are
    stored."""
    a, b = tensors["a"], tensors["b"]
    layout = operation.layout
    return a if layout[0] == "n" else a.swapaxes(-1, -2), b if layout[1] == "n" else b.swapaxes(-1, -2)
