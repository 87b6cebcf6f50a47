"""What a grid of workgroups asks of L2, fabric and memory: which panels of A and B are wanted, by whom, at once.

A panel is the rows of A (or of B) that one row (or column) of tiles needs, over the k that one workgroup walks.
Workgroup i runs on accelerator die (XCD) i mod 8 (HipKittens; AMD's Gluon tutorials) and computes the tile that its
order says. Workgroups that run at once walk k together, so an XCD's L2 fetches each panel once for all of its
workgroups, and the memory-side cache (MALL) once for all XCDs. Assumed: they stay in step closely enough, and L2 keeps
nothing from one round to the next. The MALL does: what was used least recently makes room for what is new.

In row-major order the columns of an XCD are not neighbours. After the first round workgroups that share one are then
out of step. How much L2 loses by that was measured (`scattered_shared`), not why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.core.launch import WorkgroupOrder
from hktune.core.problem_tiles import ProblemTiles

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Order = Callable[[Indices, int, int], tuple[Indices, Indices]]
"""Tile rows and columns of workgroup ids, given the grid's tiles_m and tiles_n."""


@dataclass(frozen=True)
class Round:
    """`count` rounds of workgroups that run at once, alike; panels are means over those rounds.

    `xcd_panels_*` are summed over the XCDs, each of which fetches its own. `fresh_panels_*` are those that the MALL has
    to fetch: no XCD has asked for them yet, or too much was used since.
    """

    count: int
    workgroups: int
    xcd_panels_a: float
    xcd_panels_b: float
    fresh_panels_a: float
    fresh_panels_b: float


@dataclass(frozen=True)
class Kept:
    """What the MALL can keep of a launch: its capacity, and what takes room in it, in bytes."""

    capacity: float
    panel_a: float
    panel_b: float
    stored: float
    """Of C, by one workgroup."""


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
    tiles = tiles_m * tiles_n
    return _walked(_chunked(ids % tiles, tiles, xcds, xcd_chunk), tiles_m, tiles_n, group_rows, group_columns)


def _chunked(tile: Indices, tiles: int, xcds: int, xcd_chunk: int) -> Indices:
    """Numbers of `tiles` of which neighbours are on one XCD."""
    run = xcds * xcd_chunk
    chunked = tile // run * run + tile % xcds * xcd_chunk + tile % run // xcds
    return np.where(tile < tiles // run * run, chunked, tile)


def _walked(
    tile: Indices, tiles_m: int | Indices, tiles_n: int, group_rows: int, group_columns: int
) -> tuple[Indices, Indices]:
    """Rows and columns of numbered tiles, of grids of `tiles_m` rows."""
    if group_columns:
        columns, rows = _grouped(tile, tiles_n, tiles_m, group_columns)
        return rows, columns
    return _grouped(tile, tiles_m, tiles_n, group_rows)


def _grouped(tile: Indices, lines: int | Indices, length: int | Indices, group: int) -> tuple[Indices, Indices]:
    """Line and place in it of tiles that are numbered across `group` lines at a time, each `length` long."""
    first, within = tile // (group * length) * group, tile % (group * length)
    across = np.minimum(group, lines - first)
    return first + within % across, within // across


@dataclass(frozen=True)
class OrderOfProducts:
    """`order` where there are several products, with so many `rows` of tiles each: their tiles are numbered one
    product's behind the other's, go to dies in chunks of these numbers, and are walked within each product. Rows are
    those of all products, and each has columns of its own."""

    order: WorkgroupOrder
    rows: tuple[int, ...]
    arch: Arch

    def __call__(self, ids: Indices, tiles_m: int, tiles_n: int) -> tuple[Indices, Indices]:
        del tiles_m  # of all products together
        own = self.order
        ends = np.cumsum(self.rows) * tiles_n
        tile = _chunked(ids % int(ends[-1]), int(ends[-1]), self.arch.xcds, own.xcd_chunk)
        product = np.searchsorted(ends, tile, side="right")
        rows = np.asarray(self.rows, dtype=np.int64)[product]
        row, column = _walked(tile - ends[product] + rows * tiles_n, rows, tiles_n, own.group_rows, own.group_columns)
        return row + ends[product] // tiles_n - rows, column + product * tiles_n


@lru_cache(maxsize=4096)
def problem_order(order: WorkgroupOrder, tiles: ProblemTiles, arch: Arch) -> Order:
    """`order` on `arch` for the tiles of a problem, the same object each time, so that what depends on it can be
    remembered."""
    return tile_order(order, arch) if tiles.products == 1 else OrderOfProducts(order, tiles.rows, arch)


@lru_cache(maxsize=256)
def tile_order(order: WorkgroupOrder, arch: Arch) -> Order:
    """`order` on `arch` where there is one product; see `problem_order`."""
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
    workgroups: int,
    tiles_m: int,
    tiles_n: int,
    at_once: int,
    arch: Arch,
    order: Order = row_major,
    kept: Kept | None = None,
    scattered_shared: float = 1.0,
) -> tuple[Round, ...]:
    """Full rounds of `at_once` workgroups, then what is left as a round of its own. Without `kept`, the MALL keeps all
    that it has fetched. `scattered_shared`: the part of the uses of a panel that share it in L2 with the first, after
    the first round and where the XCD wants neither of its neighbours."""
    walk = _Walk(workgroups, tiles_m, tiles_n, at_once, arch, order, kept, scattered_shared)
    full, rest = divmod(workgroups, at_once)
    rounds = []
    if full:
        rounds.append(walk.mean(0, full, at_once))
    if rest:
        rounds.append(walk.mean(full, full + 1, rest))
    return tuple(rounds)


class _Walk:
    """Which panels every round of a grid wants: counts by round."""

    def __init__(
        self,
        workgroups: int,
        tiles_m: int,
        tiles_n: int,
        at_once: int,
        arch: Arch,
        order: Order,
        kept: Kept | None,
        scattered_shared: float,
    ) -> None:
        ids = np.arange(workgroups, dtype=np.int64)
        rows, columns = order(ids, tiles_m, tiles_n)
        share = ids // (tiles_m * tiles_n)  # of a split k: another part of the same panels
        shares = int(share[-1]) + 1
        number, xcd = ids // at_once, ids % arch.xcds
        of_dies = (-(-workgroups // at_once), arch.xcds)
        panels_b = tiles_n * (len(order.rows) if isinstance(order, OrderOfProducts) else 1)
        a = _wanted(of_dies, number, xcd, rows + share * tiles_m, tiles_m * shares)
        b = _wanted(of_dies, number, xcd, columns + share * panels_b, panels_b * shares)
        uses = np.bincount(number * arch.xcds + xcd, minlength=math.prod(of_dies)).reshape(of_dies)
        alone = 0.0 if shares > 1 else 1 - scattered_shared
        self._xcd_a, self._xcd_b = _fetched(a, uses, alone), _fetched(b, uses, alone)
        of_round_a, of_round_b = np.logical_or.reduce(a, axis=1), np.logical_or.reduce(b, axis=1)
        if kept is None:
            self._fresh_a, self._fresh_b = _first_uses(of_round_a), _first_uses(of_round_b)
        else:
            self._fresh_a, self._fresh_b = _misses(of_round_a, of_round_b, at_once, kept)

    def mean(self, first: int, end: int, workgroups: int) -> Round:
        """The rounds from `first` to before `end`."""
        found = (self._xcd_a, self._xcd_b, self._fresh_a, self._fresh_b)
        return Round(end - first, workgroups, *(float(each[first:end].mean()) for each in found))


def _wanted(of_dies: tuple[int, int], number: Indices, xcd: Indices, panels: Indices, panel_count: int) -> Flags:
    """Whether the workgroups of each XCD want each panel, in each round."""
    wanted = np.zeros((*of_dies, panel_count), dtype=bool)
    wanted[number, xcd, panels] = True
    return wanted


def _fetched(wanted: Flags, uses: Indices, alone: float) -> npt.NDArray[np.float64]:
    """Panels that the XCDs fetch, by round: each that they want once, and again for the part `alone` of its other uses
    after the first round, if the XCD wants several but neither of its neighbours. `uses`: of all panels of an XCD."""
    distinct: npt.NDArray[np.float64] = wanted.sum(axis=2, dtype=np.float64)
    fetched: npt.NDArray[np.float64] = distinct.sum(axis=1)
    if not alone or len(wanted) == 1:
        return fetched
    beside = np.zeros_like(wanted)
    beside[:, :, 1:] |= wanted[:, :, :-1]
    beside[:, :, :-1] |= wanted[:, :, 1:]
    scattered = np.count_nonzero(wanted & ~beside, axis=2) * (distinct > 1)
    scattered[0] = 0
    fetched += (alone * (uses - distinct) * scattered / np.maximum(distinct, 1)).sum(axis=1)
    return fetched


def _first_uses(wanted: Flags) -> Indices:
    """Panels that no earlier round wanted, by round."""
    return np.bincount(wanted.argmax(axis=0), minlength=len(wanted))


def _misses(a: Flags, b: Flags, at_once: int, kept: Kept) -> tuple[Indices, Indices]:
    """Panels of A and of B that a cache of `kept.capacity` bytes lacks, by round, if the least recently used leave it.

    A panel is still there unless what was used since, from the whole of its round on, exceeds the capacity.
    """
    missed_a, missed_b = np.zeros(len(a), dtype=np.int64), np.zeros(len(b), dtype=np.int64)
    last_a, last_b = np.zeros(a.shape[1], dtype=np.int64), np.zeros(b.shape[1], dtype=np.int64)
    for number in range(len(a)):  # last_*: one more than the round in which a panel was wanted last; 0: none yet
        a_used, b_used = (np.bincount(each, minlength=number + 1) for each in (last_a, last_b))
        used = kept.panel_a * a_used + kept.panel_b * b_used + kept.stored * at_once
        gone = np.cumsum(used[::-1])[::-1] > kept.capacity
        gone[0] = True
        missed_a[number] = np.count_nonzero(gone[last_a[a[number]]])
        missed_b[number] = np.count_nonzero(gone[last_b[b[number]]])
        last_a[a[number]] = last_b[b[number]] = number + 1
    return missed_a, missed_b
