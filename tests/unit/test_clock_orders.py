"""Orders of workgroups: what L2 and MALL have, against hit rates and counters that were measured on an MI355X."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from clock_traces import BARRIER, Code, ds_read_b128, load_to_lds, mfma, store, trace_of, wait

from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.core.variant import Resources
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.memory_traffic import Indices, Kept, Order, Round, rounds_of, row_major, tiles_of
from hktune.emulator.clock.rates import rates_of

TILE = Tile(192, 256, 64)
MALL_BYTES = rates_of(MI355X).mall_bytes


def windows(height: int, chunk: int) -> Order:
    """HipKittens' order: windows of `height` rows, `chunk` neighbouring tiles to one die."""
    return partial(tiles_of, xcds=8, xcd_chunk=chunk, group_rows=height)


def equal_parts(ids: Indices, tiles_m: int, tiles_n: int) -> tuple[Indices, Indices]:
    """Windows of 8 rows, an eighth of the tiles to each die: chunks of 542 for the first four and of 541."""
    tiles = tiles_m * tiles_n
    long, die = tiles % 8, ids % 8
    tile = die * (tiles // 8) + np.minimum(die, long) + ids // 8
    return tiles_of(tile, tiles_m, tiles_n, xcds=1, xcd_chunk=1, group_rows=8)


# HipKittens' paper, arXiv 2511.08083v1, table 4: bf16, C tiles of 192x256, MI355X. Hit rates of L2 and of the MALL
# (there LLC), TFLOP/s.
PUBLISHED: dict[tuple[int, str], tuple[Order, float, float, float]] = {
    (9216, "row-major"): (row_major, 0.55, 0.95, 1113),
    (9216, "W7/C216"): (windows(7, 216), 0.79, 0.24, 991),
    (9216, "W5/C25"): (windows(5, 25), 0.75, 0.93, 1145),
    (14592, "row-major"): (row_major, 0.36, 0.76, 900),
    (14592, "W8/C542"): (equal_parts, 0.79, 0.07, 980),
    (14592, "W8/C64"): (windows(8, 64), 0.78, 0.55, 1068),
}


def hit_rates(size: int, order: Order, tile: Tile = TILE) -> tuple[float, float]:
    """Of L2 and of the MALL, for a cube of bf16 that one workgroup a compute unit computes."""
    tiles_m, tiles_n = size // tile.m, size // tile.n
    kept = Kept(MALL_BYTES, 2 * tile.m * size, 2 * tile.n * size, 2 * tile.m * tile.n)
    shared = rates_of(MI355X).scattered_shared
    rounds = rounds_of(tiles_m * tiles_n, tiles_m, tiles_n, 256, GFX950, order, kept, shared)

    def rows(of: str) -> float:
        return sum(
            part.count * (getattr(part, f"{of}_a") * tile.m + getattr(part, f"{of}_b") * tile.n) for part in rounds
        )

    missed = rows("xcd_panels")
    return 1 - missed / (tiles_m * tiles_n * (tile.m + tile.n)), 1 - rows("fresh_panels") / missed


@pytest.mark.parametrize("which", PUBLISHED, ids=lambda which: f"{which[0]} {which[1]}")
def test_hit_rates_are_those_that_were_measured(which: tuple[int, str]) -> None:
    order, l2, mall, _ = PUBLISHED[which]
    modelled_l2, modelled_mall = hit_rates(which[0], order)
    assert modelled_l2 == pytest.approx(l2, abs=0.045)
    assert modelled_mall == pytest.approx(mall, abs=0.06)


def test_misses_of_l2_are_those_that_were_counted() -> None:
    # AMD's gfx950 Gluon tutorials, a16w16/v8_beyond_hotloop: 4096 x 4096 x 8192 on an MI355X, 256x256 tiles. Requests
    # of 128 bytes that L2 passed on, row by row and with an eighth of the tiles to each die in windows of so many rows.
    counted = {0: 4_754_139, 1: 4_870_303, 4: 3_148_321, 6: 3_147_765}
    for height, requests in counted.items():
        (only,) = rounds_of(256, 16, 16, 256, GFX950, windows(height, 32) if height else row_major)
        assert (only.xcd_panels_a + only.xcd_panels_b) * 256 * 8192 * 2 / 128 == pytest.approx(requests, rel=0.035)


@pytest.mark.parametrize("capacity", [40.0, 90.0, 200.0, 1000.0])
@pytest.mark.parametrize("order", [row_major, windows(3, 4)])
def test_the_mall_loses_what_was_used_least_recently(order: Order, capacity: float) -> None:
    tiles_m, tiles_n, at_once, stored = 19, 23, 64, 16.0
    size = {"a": 3.0, "b": 5.0, "c": stored}
    full, tail = rounds_of(
        tiles_m * tiles_n, tiles_m, tiles_n, at_once, GFX950, order, Kept(capacity, 3, 5, stored / 64)
    )
    rows, columns = order(np.arange(tiles_m * tiles_n), tiles_m, tiles_n)
    stack: list[set[tuple[str, int]]] = []  # what each round used and no later one did, the latest round first
    missed = []
    for number in range(7):
        part = slice(number * at_once, (number + 1) * at_once)
        wanted = {("a", int(row)) for row in rows[part]} | {("b", int(column)) for column in columns[part]}
        there: set[tuple[str, int]] = set()
        left = capacity
        for used in stack:
            left -= sum(size[kind] for kind, _ in used)
            there |= used if left >= 0 else set()
        missed.append([sum(kind == which for kind, _ in wanted - there) for which in "ab"])
        stack = [wanted | {("c", number)}, *(used - wanted for used in stack)]
    assert [full.fresh_panels_a, full.fresh_panels_b] == pytest.approx(np.mean(missed[:6], axis=0))
    assert [tail.fresh_panels_a, tail.fresh_panels_b] == missed[6]


@pytest.fixture(scope="module")
def waiting() -> launch_time.Profile:
    """A loop of 192x256x64 with one tile on its way, all of which it waits for at the end of each step."""
    loads, reads = [load_to_lds()] * 7, [ds_read_b128()] * 20
    body = [*loads, *reads, wait(lgkmcnt=0), *[mfma(100 + 4 * (at % 16)) for at in range(48)], wait(vmcnt=0), BARRIER]
    epilogue = [store("global_store_short_d16_hi", 2, 4) for _ in range(96)]
    trace = trace_of(*[Code([*loads, wait(vmcnt=0), BARRIER], body, 4, epilogue)] * 8)
    resources = Resources(206, 0, 100, 0, 0, 0, 0, 512)
    return launch_time.profile(trace, resources, Launch((4, 1, 1), (512, 1, 1), 114688, ()), TILE, 4, GFX950)


def tflops(profile: launch_time.Profile, size: int, order: Order) -> float:
    tiles = (size // TILE.m) * (size // TILE.n)
    launch, problem = Launch((tiles, 1, 1), (512, 1, 1), 114688, ()), Problem(size, size, size)
    timing = launch_time.modelled_time(profile, problem, launch, TILE, MI355X, order).timing
    return problem.flops / timing.time_us * 1e-6


@pytest.mark.parametrize(("size", "best"), [(9216, "W5/C25"), (14592, "W8/C64")])
def test_orders_are_ranked_as_measured_where_loads_are_waited_for(
    waiting: launch_time.Profile, size: int, best: str
) -> None:
    modelled = {name: tflops(waiting, size, PUBLISHED[at, name][0]) for at, name in PUBLISHED if at == size}
    measured = {name: PUBLISHED[at, name][3] for at, name in PUBLISHED if at == size}
    for name in measured.keys() - {best}:
        gain, published = modelled[best] / modelled[name], measured[best] / measured[name]
        assert 1 < gain <= published + 0.01, f"{name}: {gain:.3f}, published {published:.3f}"
    slowest = min(measured, key=lambda name: measured[name])
    assert min(modelled, key=lambda name: modelled[name]) == slowest


def test_a_round_that_finds_all_panels_of_b_fetches_those_of_a_alone() -> None:
    parts: tuple[Round, ...] = rounds_of(1024, 32, 32, 256, GFX950, row_major, Kept(1e9, 1, 1, 0))
    assert sum(part.count * part.fresh_panels_a for part in parts) == 32
    assert sum(part.count * part.fresh_panels_b for part in parts) == 32
