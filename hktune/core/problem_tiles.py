"""The tiles of C that a problem has with tiles of one size: of each of its products, and of a launch's workgroups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hktune.core.group_sizes import routed_ends, row_ranges
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem

_SEED = 0
"""Of the division of rows among groups that times are modelled for."""


@dataclass(frozen=True)
class ProblemTiles:
    """`rows`: how many rows of tiles each product has, of those that have any; all have as many `columns`. `room`: how
    many tiles a launch must have workgroups for, as only the device knows where groups end."""

    rows: tuple[int, ...]
    columns: int
    room: int

    @property
    def products(self) -> int:
        """How many have rows."""
        return len(self.rows)

    @property
    def all_rows(self) -> int:
        """Rows of tiles of all products."""
        return sum(self.rows)

    @property
    def count(self) -> int:
        return self.all_rows * self.columns

    def workgroups(self, launch: Launch) -> int:
        """Those of `launch` that have a tile, or a part of one's K."""
        return self.count * math.prod(launch.grid) // self.room

    def shares(self, launch: Launch) -> float:
        """How many workgroups share a tile's K."""
        return math.prod(launch.grid) / self.room


@lru_cache(maxsize=4096)
def tiles_of(problem: Problem, tile: Tile) -> ProblemTiles:
    """Those of `problem`. Where it is grouped, its rows are divided by chance, all groups alike: always in one way."""
    columns, most = -(-problem.n // tile.n), -(-problem.m // tile.m)
    if not problem.operation.is_grouped:
        return ProblemTiles((most,) * problem.groups, columns, most * problem.groups * columns)
    sizes = (end - first for first, end in row_ranges(_ends(problem.m, problem.groups)))
    rows = tuple(-(-size // tile.m) for size in sizes if size)
    return ProblemTiles(rows, columns, (problem.m // tile.m + min(problem.m, problem.groups)) * columns)


@lru_cache(maxsize=256)
def _ends(rows: int, groups: int) -> tuple[int, ...]:
    return tuple(routed_ends(rows, groups, _SEED))
