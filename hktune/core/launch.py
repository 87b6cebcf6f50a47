"""How a kernel is launched: its arguments, its grid, and which tile each workgroup takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from hktune.core.operation import BF16_NT, Operation

_Bound = TypeVar("_Bound")

WORKSPACE_COUNTER_BYTES = 65536


_EARLIER_NAMES = {"bt": "b"}
"""What templates, tables and cubins may call an operand that was renamed: B had this name while it was always stored
transposed."""


def operand_name(name: str) -> str:
    """What an operand of a file is called here."""
    return _EARLIER_NAMES.get(name, name)


@dataclass(frozen=True)
class Argument:
    """One kernel argument, in order. `kind` is pointer, u32, i32, u64 or f32; `name` says what fills it: an operand
    (`hktune.core.operand`) or `workspace` (pointers); m, n, k, lda, ldb, ldc (sizes and row strides in elements).

    A number is passed `scale` times: a stride in bytes, say. An argument with a `constant` is passed that, whatever its
    name; of a pointer that is 0, the null pointer. Where `offset_bytes` is given, the argument is at that place of the
    kernel's argument struct; all of a launch have one, or none has.
    """

    name: str
    kind: str
    scale: int = 1
    constant: int | float | None = None
    offset_bytes: int | None = None

    @property
    def is_bound(self) -> bool:
        """Whether each launch says what it is passed."""
        return self.constant is None


STEP_SWITCHES = {"bias_given": "bias", "accumulate": "accumulate"}
"""Numbers that are 1 where the operation has a step, and 0 where it has not. Each launch knows them by itself."""


def arguments_of(arguments: tuple[Argument, ...], operation: Operation) -> tuple[Argument, ...]:
    """`arguments` as a launch for `operation` has them: what depends on the operation alone is constant there."""
    if STEP_SWITCHES.keys().isdisjoint(argument.name for argument in arguments):
        return arguments
    return tuple(
        replace(each, constant=int(STEP_SWITCHES[each.name] in operation.epilogue))
        if each.name in STEP_SWITCHES
        else each
        for each in arguments
    )


@dataclass(frozen=True)
class Launch:
    """How one code object is launched for one problem of `operation`. Grid in workgroups, block in work-items.

    A launch of 0 workspace bytes has none: an argument of that name is null. Else its first WORKSPACE_COUNTER_BYTES are
    zero when the launch begins and when it ends, and the rest is scratch: launches that follow one another may share a
    workspace, two that run at once may not. Where `adds_to_c`, every element of C must be 0 when the launch begins.
    Where `contiguous`, the rows of every matrix must follow one another without padding.
    `storage` names operands that the kernel takes in another storage than row by row (`hktune.core.storage`).
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_lds_bytes: int
    arguments: tuple[Argument, ...]
    workspace_bytes: int = 0
    operation: Operation = BF16_NT
    adds_to_c: bool = False
    contiguous: bool = False
    storage: tuple[tuple[str, str], ...] = ()

    def stored(self, name: str) -> str:
        """The storage of the operand `name`; "" is row by row."""
        return dict(self.storage).get(name, "")

    def takes(self, name: str) -> bool:
        return any(argument.name == name for argument in self.bound_arguments)

    @property
    def bound_arguments(self) -> tuple[Argument, ...]:
        """The arguments without those that are constant."""
        return tuple(argument for argument in self.arguments if argument.is_bound)

    def bound(self, given: Mapping[str, _Bound]) -> dict[str, _Bound | None]:
        """What this launch takes of `given`, by name. A pointer that is not given is null: the operation has no such
        operand, or the launch no workspace."""
        bound = self.bound_arguments
        names = [argument.name for argument in bound if argument.kind == "pointer" or argument.name in given]
        return {name: given.get(name) for name in names}


@dataclass(frozen=True)
class Tile:
    """What one workgroup computes (m x n of C) and how deep one step of its main loop is (k), in elements. Where gates
    are applied, 2 n columns of B make n of C."""

    m: int
    n: int
    k: int


@dataclass(frozen=True)
class WorkgroupOrder:
    """Which tile of C a workgroup computes; the default is row by row.

    `xcd_chunk`: so many neighbouring tiles go to one accelerator die (XCD) in a row. `group_rows`: tiles are numbered
    down the columns of so many rows at a time. `group_columns`, in its place: along the rows of so many columns at a
    time; 0 is all. `hktune.emulator.clock.memory_traffic.tiles_of` has the formula.
    """

    xcd_chunk: int = 1
    group_rows: int = 1
    group_columns: int = 0
