"""The tiles of C that a problem has with tiles of one size: of each of its products, and of a launch's workgroups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hktune.core.group_sizes import Tokens, group_ends, row_ranges
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem

_SEED = 0
"""Of the division among groups that times are modelled for."""


@dataclass(frozen=True)
class ProblemTiles:
    """`rows`: how many rows of tiles each product has, of those that have any; all have as many `columns`. `steps`: how
    many steps of K the tiles of each have. `room`: how many tiles a launch must have workgroups for, as only the device
    knows where groups end."""

    rows: tuple[int, ...]
    columns: int
    steps: tuple[int, ...]
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

    @property
    def mean_steps(self) -> float:
        """Steps of K of a tile. Those that have none have one, of zeros."""
        return sum(max(steps, 1) * rows for steps, rows in zip(self.steps, self.rows, strict=True)) / self.all_rows

    def workgroups(self, launch: Launch) -> int:
        """Those of `launch` that have a tile, or a part of one's K."""
        return self.count * math.prod(launch.grid) // self.room

    def shares(self, launch: Launch) -> float:
        """How many workgroups share a tile's K."""
        return math.prod(launch.grid) / self.room


@lru_cache(maxsize=4096)
def tiles_of(problem: Problem, tile: Tile, tokens: Tokens = ()) -> ProblemTiles:
    """Those of `problem`. Groups are as large as `tokens` has them, or divided by chance, all alike: always in one
    way."""
    operation, groups = problem.operation, problem.groups
    columns, most, steps = -(-problem.n // tile.n), -(-problem.m // tile.m), -(-problem.k // tile.k)
    if not operation.is_grouped:
        return ProblemTiles((most,) * groups, columns, (steps,) * groups, most * groups * columns)
    sizes = [end - first for first, end in row_ranges(_ends(problem.divided, groups, tokens))]
    if operation.divides_k:
        of_groups = tuple(-(-size // tile.k) for size in sizes)
        return ProblemTiles((most,) * groups, columns, of_groups, most * groups * columns)
    rows = tuple(-(-size // tile.m) for size in sizes if size)
    room = (problem.m // tile.m + min(problem.m, groups)) * columns
    return ProblemTiles(rows, columns, (steps,) * len(rows), room)


@lru_cache(maxsize=256)
def _ends(size: int, groups: int, tokens: Tokens) -> tuple[int, ...]:
    return tuple(group_ends(size, groups, _SEED, tokens))
