"""Clock v1: how long a proved gfx950 GEMM kernel would take, modelled from the instructions that it executed.

`profile` runs once per code object: it simulates one compute unit on the traced instruction stream and reduces it to
prologue, one k-step and epilogue at several memory latencies. `modelled_time` runs once per problem: rounds of
workgroups over all compute units, their traffic, the latency that this traffic brings about, and the shader clock that
the MFMA activity leaves. docs/explanation/clock.md derives each rule, states the errors found, and says what the model
cannot see.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from hktune.core.arch import Arch
from hktune.core.board import Board
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch, Tile
from hktune.core.outcome import Source, Timing
from hktune.core.problem import Problem
from hktune.core.problem_tiles import ProblemTiles, tiles_of
from hktune.emulator.clock.memory_traffic import Kept, Order, rounds_of, row_major
from hktune.emulator.clock.profile import LATENCIES_CLK, Profile, Residency, profile
from hktune.emulator.clock.rates import Rates, rates_of
from hktune.emulator.clock.workgroup_round import WorkgroupRound, operand_bytes

__all__ = ["LATENCIES_CLK", "Modelled", "Profile", "Residency", "modelled_time", "profile"]

_ITERATIONS = 24  # of clock and latency against each other, both damped by half: converged far below 0.1 %


@dataclass(frozen=True)
class Modelled:
    """A modelled time and what it is made of.

    `bound` is what limits most of it: mfma, lds, tcp, issue, l2, fabric, mall or hbm; latency when none of them is
    within a tenth of the k-step's clk; launch when launch, prologues and epilogues outweigh the main loop. `clocks` has
    the clk that one k-step of the longest-running kind of round holds each of them, and `step`, what it takes.
    `peak_fraction` is against every MFMA pipe busy at the highest clock.
    """

    timing: Timing
    bound: str
    clocks: dict[str, float]
    rounds: int
    latency_clk: float
    clock_ghz: float
    loop_us: float
    peak_fraction: float


@dataclass(frozen=True)
class Settled:
    """A launch whose latency, traffic and clock agree: its rounds and the clk that they take one after another, the
    clk by which tiles of unequal depth change that, of gathering a split k, and of workgroups that find no tile; the
    time of all its bytes from HBM, of its launch and of writing C back."""

    rounds: list[WorkgroupRound]
    clock_ghz: float
    rounds_clk: float
    unequal_clk: float
    gathering_clk: float
    without_tile_clk: float
    moved_us: float
    launch_us: float
    write_back_us: float

    @property
    def walked_us(self) -> float:
        """Rounds as they are, gathering, and what finds no tile."""
        return (self.rounds_clk + self.unequal_clk + self.gathering_clk + self.without_tile_clk) / self.clock_ghz * 1e-3

    @property
    def time_us(self) -> float:
        """Rounds and gathering, at least the time of the bytes from HBM; launch and write-back come on top."""
        return max(self.walked_us, self.moved_us) + (self.launch_us + self.write_back_us)


def modelled_time(
    profile: Profile,
    problem: Problem,
    launch: Launch,
    tile: Tile,
    board: Board,
    order: Order = row_major,
    rates: Rates | None = None,
    tiles: ProblemTiles | None = None,
) -> Modelled:
    """The time of one launch of the profiled kernel on `problem`, its operands in no cache or only in the MALL.

    `launch.grid` has as many workgroups as the problem has tiles, or more that share the k-steps of a tile evenly. Of
    several products `order` is that of `problem_order`. `tiles` are those of `problem` where its groups are known, and
    `rates` are those of `board` unless given.
    """
    rates, tiles = rates or rates_of(board), tiles or tiles_of(problem, tile)
    launched = settled(profile, problem, launch, tile, board.arch, order, rates, tiles)
    return modelled_of(launched, problem, board.arch, rates)


def settled(
    profile: Profile,
    problem: Problem,
    launch: Launch,
    tile: Tile,
    arch: Arch,
    order: Order,
    rates: Rates,
    tiles: ProblemTiles,
) -> Settled:
    """The launch of `modelled_time`, in its parts."""
    workgroups, steps = tiles.workgroups(launch), tiles.mean_steps / tiles.shares(launch)
    at_once = arch.compute_units * profile.residencies[-1].workgroups
    moved_bytes = _moved_bytes(problem, tiles)
    cold = rates.rotated_sets * moved_bytes > rates.mall_bytes  # else the MALL has all sets from their last use
    kept = None if moved_bytes <= rates.mall_bytes else _kept(problem, launch, tile, tiles, rates)
    sizes = (workgroups, tiles.all_rows, tiles.columns, at_once)
    grid = rounds_of(*sizes, arch, order, kept, rates.scattered_shared)
    rounds = [WorkgroupRound(profile, part, problem, tile, tiles, steps, cold, arch, rates) for part in grid]
    mfma_clk = workgroups * steps * profile.mfma_clk / arch.compute_units
    clock_ghz, rounds_clk = _settled(rounds, mfma_clk, rates)
    return Settled(
        rounds=rounds,
        clock_ghz=clock_ghz,
        rounds_clk=rounds_clk,
        unequal_clk=rounds_clk * (longer_by_unequal_k(tiles, rounds[0].ends_of_steps(clock_ghz), at_once) - 1),
        gathering_clk=_gathering_clk(launch, tiles, tile, arch, rates, clock_ghz),
        moved_us=moved_bytes / rates.hbm_tb_per_s * 1e-6 if cold else 0.0,
        without_tile_clk=_without_tile_clk(math.prod(launch.grid) - workgroups, at_once, rates, clock_ghz),
        launch_us=rates.launch_us,
        write_back_us=_write_back_us(problem, workgroups, arch, rates),
    )


def k_steps(problem: Problem, launch: Launch, tile: Tile) -> float:
    """K-steps of one workgroup, on average: all of a tile's, or its share where workgroups split them."""
    tiles = tiles_of(problem, tile)
    return tiles.mean_steps / tiles.shares(launch)


def _moved_bytes(problem: Problem, tiles: ProblemTiles) -> float:
    """What one launch must touch once: of groups without rows, nothing."""
    unused = problem.groups - tiles.products
    return problem.bytes - operand_bytes(problem.operation, 0, unused * problem.n, problem.k)


def longer_by_unequal_k(tiles: ProblemTiles, ends: float, at_once: int) -> float:
    """How many times as long rounds take where products have not equally many steps of K: each tile goes to the place
    that is free first of `at_once`, in their order. Each has `ends` steps more."""
    if len(set(tiles.steps)) == 1:
        return 1.0
    places = np.zeros(min(at_once, tiles.count))
    for steps, rows in zip(tiles.steps, tiles.rows, strict=True):
        left = rows * tiles.columns
        while left:
            taken = min(left, len(places))
            places[np.argpartition(places, taken - 1)[:taken]] += max(steps, 1) + ends
            left -= taken
    return float(places.max()) / (-(-tiles.count // at_once) * (tiles.mean_steps + ends))


def _without_tile_clk(workgroups: int, at_once: int, rates: Rates, clock_ghz: float) -> float:
    """Clk that workgroups take which find no tile: each begins, and waits for a word of memory once. They come last."""
    return workgroups / at_once * (rates.workgroup_start_clk + rates.mall_ns * clock_ghz)


def _kept(problem: Problem, launch: Launch, tile: Tile, tiles: ProblemTiles, rates: Rates) -> Kept:
    """What decides how long the MALL keeps a panel."""
    operation, workgroups = problem.operation, tiles.workgroups(launch)
    walked_k = problem.k * tiles.mean_steps / -(-problem.k // tile.k) / tiles.shares(launch)
    return Kept(
        capacity=rates.mall_bytes,
        panel_a=operand_bytes(operation, tile.m, 0, walked_k),
        panel_b=operand_bytes(operation, 0, tile.n, walked_k),
        stored=operation.c_dtype.bytes * problem.rows * problem.n / workgroups,
    )


def _write_back_us(problem: Problem, workgroups: int, arch: Arch, rates: Rates) -> float:
    """Us in which the L2 caches write back what they hold of C: a launch ends once other dies could read it."""
    written_bytes = problem.operation.c_dtype.bytes * problem.rows * problem.n
    held_bytes = min(written_bytes, rates.l2_bytes_xcd * min(workgroups, arch.xcds))
    return held_bytes / rates.write_back_tb_per_s * 1e-6


def _gathering_clk(
    launch: Launch, of_problem: ProblemTiles, tile: Tile, arch: Arch, rates: Rates, clock_ghz: float
) -> float:
    """Clk in which the sums of the workgroups that split a tile's k-steps become one, beyond what is in the trace."""
    workgroups, tiles = of_problem.workgroups(launch), of_problem.count
    if workgroups <= tiles or not (launch.workspace_bytes or launch.adds_to_c):
        return 0.0
    if launch.workspace_bytes <= WORKSPACE_COUNTER_BYTES:
        return _adding_us(tiles, workgroups, arch, rates) * clock_ghz * 1e3
    b_columns = launch.operation.b_columns
    return _reading_back_clk(tiles, workgroups, tile, b_columns, arch, rates, clock_ghz)


def _adding_us(tiles: int, workgroups: int, arch: Arch, rates: Rates) -> float:
    """Us that workgroups which add to C itself delay one another. They arrive together, and all of a tile's add to the
    same lines. Each of these goes from die to die, so that an addition waits for those of the others before it, and
    there are as many additions at once as there are workgroups on a compute unit."""
    dies = min(workgroups / tiles, arch.xcds)
    return rates.shared_add_us * dies**2 * workgroups / arch.compute_units


def _reading_back_clk(
    tiles: int, workgroups: int, tile: Tile, b_columns: int, arch: Arch, rates: Rates, clock_ghz: float
) -> float:
    """Clk in which the last of a tile's workgroups reads back what all of them have stored: the sums of `b_columns`
    columns of B for each of C.

    The traced workgroup is not the last of its own. Each compute unit reads float32 sums at the rate of an L2 hit, or
    all together at the MALL's, whichever is slower, after one miss of L2: the sums come from other dies.
    """
    tile_bytes = 4.0 * tile.m * tile.n * b_columns * workgroups / tiles
    by_cu = -(-tiles // arch.compute_units) * tile_bytes / rates.l2_bytes_per_clk_cu
    by_mall = tiles * tile_bytes / rates.mall_tb_per_s * 1e-3 * clock_ghz
    return max(by_cu, by_mall) + rates.mall_ns * clock_ghz


def _settled(rounds: list[WorkgroupRound], mfma_clk: float, rates: Rates) -> tuple[float, float]:
    """The shader clock at which power, latency and traffic agree, in GHz, and the clk of all rounds at it.

    `mfma_clk` is the mean over all compute units. The clock follows the share of the whole launch that the MFMA pipes
    are busy: launches are taken to follow one another, as the measurements behind the curve do.
    """
    clock_ghz = rates.clock_ghz[0][1]
    rounds_clk = 0.0
    for _ in range(_ITERATIONS):
        rounds_clk = 0.0
        for number, round_ in enumerate(rounds):
            round_.settle(clock_ghz)
            rounds_clk += round_.clk(clock_ghz, follows=number > 0)
        busy = mfma_clk / (rounds_clk + rates.launch_us * clock_ghz * 1e3)
        clock_ghz = (clock_ghz + clock_at(busy, rates)) / 2
    return clock_ghz, rounds_clk


def clock_at(mfma_share: float, rates: Rates) -> float:
    """GHz sustained with the MFMA pipes of all compute units busy for `mfma_share` of the time; linear in between."""
    points = rates.clock_ghz
    for (low, fast), (high, slow) in itertools.pairwise(points):
        if mfma_share <= high:
            return fast + (slow - fast) * max(0.0, mfma_share - low) / (high - low)
    return points[-1][1]


def modelled_of(launched: Settled, problem: Problem, arch: Arch, rates: Rates) -> Modelled:
    """The time of `launched`, in us, and what bounds it."""
    rounds, clock_ghz, time_us = launched.rounds, launched.clock_ghz, launched.time_us
    longest = max(rounds, key=lambda round_: round_.loop_clk)
    loop_us = sum(round_.loop_clk for round_ in rounds) / clock_ghz * 1e-3
    clocks = longest.clocks(clock_ghz)
    unit = max(clocks, key=lambda name: clocks[name])
    bound = "launch" if loop_us < time_us / 2 else unit if clocks[unit] >= 0.9 * longest.step_clk else "latency"
    if launched.moved_us > launched.walked_us:
        bound = "hbm"
    peak_flops_per_us = (
        arch.compute_units * rates.peak_flops_per_clk_cu(problem.operation) * rates.clock_ghz[0][1] * 1e3
    )
    return Modelled(
        timing=Timing(Source.MODELLED, time_us, cache="cold"),
        bound=bound,
        clocks={**clocks, "step": longest.step_clk},
        rounds=sum(round_.count for round_ in rounds),
        latency_clk=longest.latency_clk,
        clock_ghz=clock_ghz,
        loop_us=loop_us,
        peak_fraction=problem.flops / time_us / peak_flops_per_us,
    )
