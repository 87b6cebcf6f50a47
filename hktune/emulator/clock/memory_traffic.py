"""What a grid of workgroups asks of L2, fabric and memory: which panels of A and B are wanted, by whom, at once.

A panel is the rows of A (or of B) that one row (or column) of tiles needs, over the k that one workgroup walks.
Workgroup i runs on accelerator die (XCD) i mod 8 (HipKittens; AMD's Gluon tutorials) and computes the tile that its
order says. Workgroups that run at once walk k together, so an XCD's L2 fetches each panel once for all of its
workgroups, and the memory-side cache (MALL) once for all XCDs. Assumed: they stay in step closely enough, and L2 keeps
nothing from one round to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.core.launch import WorkgroupOrder

Indices = npt.NDArray[np.int64]
Order = Callable[[Indices, int, int], tuple[Indices, Indices]]
"""Tile rows and columns of workgroup ids, given the grid's tiles_m and tiles_n."""


@dataclass(frozen=True)
class Round:
    """`count` rounds of workgroups that run at once, alike; panels are means over those rounds.

    `xcd_panels_*` are summed over the XCDs, each of which fetches its own; `panels_*` are distinct in the whole round.
    """

    count: int
    workgroups: int
    xcd_panels_a: float
    xcd_panels_b: float
    panels_a: float
    panels_b: float


def row_major(ids: Indices, tiles_m: int, tiles_n: int) -> tuple[Indices, Indices]:
    """Columns fastest; ids beyond the grid's tiles (a split of k) start over."""
    tile = ids % (tiles_m * tiles_n)
    return tile // tiles_n, tile % tiles_n


def tiles_of(
    ids: Indices, tiles_m: int, tiles_n: int, xcds: int, xcd_chunk: int, group_rows: int, group_columns: int = 0
) -> tuple[Indices, Indices]:
    """The order of `WorkgroupOrder`: neighbouring tiles on one XCD, down the columns of a few rows at a time, or along
    the rows of a few columns.

    Each step is one to one for every grid. Ids beyond the grid's tiles (a split of k) start over. The first is
    HipKittens' chunked remap of workgroups over dies, the second the grouping of Triton's matrix multiplication.
    """
    tile = ids % (tiles_m * tiles_n)
    run = xcds * xcd_chunk
    chunked = tile // run * run + tile % xcds * xcd_chunk + tile % run // xcds
    tile = np.where(tile < tiles_m * tiles_n // run * run, chunked, tile)
    if group_columns:
        columns, rows = _grouped(tile, tiles_n, tiles_m, group_columns)
        return rows, columns
    return _grouped(tile, tiles_m, tiles_n, group_rows)


def _grouped(tile: Indices, lines: int, length: int, group: int) -> tuple[Indices, Indices]:
    """Line and place in it of tiles that are numbered across `group` lines at a time, each `length` long."""
    first, within = tile // (group * length) * group, tile % (group * length)
    across = np.minimum(group, lines - first)
    return first + within % across, within // across


@lru_cache(maxsize=256)
def tile_order(order: WorkgroupOrder, arch: Arch) -> Order:
    """`order` on `arch`, the same object each time, so that what depends on it can be remembered."""
    if order == WorkgroupOrder():
        return row_major
    return partial(
        tiles_of,
        xcds=arch.xcds,
        xcd_chunk=order.xcd_chunk,
        group_rows=order.group_rows,
        group_columns=order.group_columns,
    )


@lru_cache(maxsize=4096)
def rounds_of(
    workgroups: int, tiles_m: int, tiles_n: int, at_once: int, arch: Arch, order: Order = row_major
) -> tuple[Round, ...]:
    """Full rounds of `at_once` workgroups, then what is left as a round of its own."""
    full, rest = divmod(workgroups, at_once)
    rounds = []
    if full:
        rounds.append(_round(0, full, at_once, tiles_m, tiles_n, arch, order))
    if rest:
        rounds.append(_round(full * at_once, 1, rest, tiles_m, tiles_n, arch, order))
    return tuple(rounds)


def _round(start: int, count: int, workgroups: int, tiles_m: int, tiles_n: int, arch: Arch, order: Order) -> Round:
    ids = np.arange(start, start + count * workgroups, dtype=np.int64)
    rows, columns = order(ids, tiles_m, tiles_n)
    share = ids // (tiles_m * tiles_n)  # of a split k: another part of the same panels
    shares = int(share[-1]) + 1
    rows, columns = rows + share * tiles_m, columns + share * tiles_n
    number, xcd = (ids - start) // workgroups, ids % arch.xcds
    die = number * arch.xcds + xcd
    dies = count * arch.xcds
    return Round(
        count,
        workgroups,
        _distinct(die, dies, rows, tiles_m * shares) / count,
        _distinct(die, dies, columns, tiles_n * shares) / count,
        _distinct(number, count, rows, tiles_m * shares) / count,
        _distinct(number, count, columns, tiles_n * shares) / count,
    )


def _distinct(groups: Indices, group_count: int, panels: Indices, panel_count: int) -> int:
    """Distinct panels in each group, summed over the groups."""
    seen = np.zeros(group_count * panel_count, dtype=bool)
    seen[groups * panel_count + panels] = True
    return int(np.count_nonzero(seen))
