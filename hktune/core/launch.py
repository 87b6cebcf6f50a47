"""How a kernel is launched: its arguments, its grid, and which tile each workgroup takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    (`hktune.core.operand`) or `workspace` (pointers); m, n, k, lda, ldb, ldc (sizes and row strides in elements)."""

    name: str
    kind: str


@dataclass(frozen=True)
class Launch:
    """How one code object is launched for one problem of `operation`. Grid in workgroups, block in work-items.

    A launch of 0 workspace bytes has none: an argument of that name is null. Else its first WORKSPACE_COUNTER_BYTES are
    zero when the launch begins and when it ends, and the rest is scratch: launches that follow one another may share a
    workspace, two that run at once may not.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    dynamic_lds_bytes: int
    arguments: tuple[Argument, ...]
    workspace_bytes: int = 0
    operation: Operation = BF16_NT

    def takes(self, name: str) -> bool:
        return any(argument.name == name for argument in self.arguments)

    def bound(self, given: Mapping[str, _Bound]) -> dict[str, _Bound | None]:
        """What this launch takes of `given`, by name. A pointer that is not given is null: the operation has no such
        operand, or the launch no workspace."""
        names = [argument.name for argument in self.arguments if argument.kind == "pointer" or argument.name in given]
        return {name: given.get(name) for name in names}


@dataclass(frozen=True)
class Tile:
    """What one workgroup computes (m x n of C) and how deep one step of its main loop is (k), in elements."""

    m: int
    n: int
    k: int


@dataclass(frozen=True)
class WorkgroupOrder:
    """Which tile of C a workgroup computes; the default is row by row.

    `xcd_chunk`: so many neighbouring tiles go to one accelerator die (XCD) in a row. `group_rows`: tiles are numbered
    down the columns of so many rows at a time. `hktune.emulator.clock.memory_traffic.tiles_of` has the formula.
    """

    xcd_chunk: int = 1
    group_rows: int = 1
