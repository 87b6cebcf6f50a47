"""Where a modelled time goes, and what it would be without each cause, printed."""

from __future__ import annotations

import math

from rich.console import Console

from hktune.core.identity import Identity
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.core.problem_tiles import tiles_of
from hktune.emulator.clock.breakdown import CLOCK, LAUNCH, MEMORY, MEMORY_LATENCY, ROUNDS, Breakdown
from hktune.emulator.clock.launch_time import Modelled
from hktune.emulator.clock.model_error import model_error
from hktune.emulator.clock.stalls import CAUSES
from hktune.measure.modelled import with_interval
from hktune.report.columns import Column, print_columns, print_prose
from hktune.report.intervals import interval

_SHOWN_SHARE = 5e-4
"""Parts that are less of the time have no row: 0.1 % is the last digit."""

_WHERE = {
    **dict.fromkeys(CAUSES, "k-steps"),
    **dict.fromkeys(MEMORY, "k-steps"),
    **dict.fromkeys(ROUNDS, "rounds"),
    **dict.fromkeys(LAUNCH, "launch"),
    **dict.fromkeys((MEMORY_LATENCY, CLOCK), "in all"),
}

_MEANING = {
    "mfma": "an MFMA is at work in the SIMD",
    "mfma result": "the next instruction reads a result that is not there yet",
    "issue": "an instruction is issued, or another wave's is first",
    "pause": "s_nop, s_sleep",
    "lds": "the LDS takes no more instructions",
    "tcp": "the vector memory path takes no more instructions",
    "vmcnt": "waits for loads from memory",
    "lgkmcnt": "waits for LDS and scalar loads",
    "barrier": "waits for other waves",
    "l2": "L2 bandwidth, beyond what the waves wait for",
    "fabric": "bandwidth between dies, beyond that",
    "mall": "MALL bandwidth, beyond that",
    "hbm": "HBM bandwidth, beyond that",
    "workgroup start": "until a workgroup's first instruction",
    "cold pages": "first loads from new pages",
    "prologue": "until the main loop",
    "epilogue": "C is stored",
    "idle CUs": "the last round has fewer workgroups than there is room for",
    "unequal k": "groups are of K, and places are done late or early",
    "gathering": "sums of a split k are read back",
    "no tile": "workgroups for which groups have no tile",
    "bytes from hbm": "all bytes at HBM's bandwidth, beyond the rounds",
    "launch": "until the first workgroup starts, and after the last",
    "write-back": "L2 writes back what it holds of C",
    MEMORY_LATENCY: "of which: loads are not answered at once",
    CLOCK: "of which: MFMA activity costs shader clock",
}


def print_time(
    console: Console, problem: Problem, launch: Launch, tile: Tile, found: Breakdown, device: Identity
) -> None:
    """Print the breakdown of the time on `problem` and `device`: `tile` is what a workgroup of `launch` computes."""
    modelled = found.modelled
    time_us = modelled.timing.time_us
    rate = f"{problem.flops / time_us * 1e-6:.0f} TFLOP/s, {modelled.peak_fraction:.0%} of the peak"
    print_prose(console, f"modelled on {problem}: {time_us:.2f} us, {rate}, bound by {modelled.bound}", indent="  ")
    timing = with_interval(modelled.timing, problem, launch, tiles_of(problem, tile))
    expected = interval(timing.time_us_low, timing.time_us_high)
    print_prose(console, f"  {model_error().coverage:.0%} of measured times are expected in {expected} us", indent="  ")
    print_prose(console, f"  {device.name}: {_launched(launch, modelled, device.compute_units)}", indent="  ")
    if padding := _padding(problem, tile):
        print_prose(console, f"  {padding}", indent="  ")
    _print_parts(console, found)
    for line in _next(found):
        print_prose(console, line, indent="  ")


def _launched(launch: Launch, modelled: Modelled, compute_units: int) -> str:
    workgroups = math.prod(launch.grid)
    rounds = f"{modelled.rounds} round{'' if modelled.rounds == 1 else 's'}"
    idle = f", {compute_units - workgroups} of {compute_units} CUs have none" if workgroups < compute_units else ""
    clock = f"the shader clock is {modelled.clock_ghz:.2f} GHz, a miss of L2 takes {modelled.latency_clk:.0f} clk"
    return f"{workgroups} workgroups in {rounds}{idle}; {clock}"


def _padding(problem: Problem, tile: Tile) -> str | None:
    """How much of what tiles cover is none of the product, if any is."""
    tiles = tiles_of(problem, tile)
    k = problem.k / problem.groups if problem.operation.divides_k else problem.k
    needed = problem.rows * problem.n * k
    padding = 1 - needed / (tiles.count * tile.m * tile.n * tiles.mean_steps * tile.k)
    covered = f"tiles of {tile.m}x{tile.n}x{tile.k}: {padding:.1%} of what they compute is not of the product"
    return covered if padding >= _SHOWN_SHARE else None


def _print_parts(console: Console, found: Breakdown) -> None:
    time_us, clk_per_us = found.modelled.timing.time_us, found.modelled.clock_ghz * 1e3
    parts_us = {cause: part_us for cause, part_us in found.parts_us.items() if part_us >= _SHOWN_SHARE * time_us}
    causes = [*parts_us, *(cause for cause in (MEMORY_LATENCY, CLOCK) if found.without.get(cause))]
    without = [found.without[cause] for cause in causes]
    known = [parts_us.get(cause) for cause in causes]

    def told(digits: int, scale: float = 1.0) -> list[str]:
        return ["" if part_us is None else f"{part_us * scale:.{digits}f}" for part_us in known]

    columns = [
        Column("in", [_WHERE[cause] for cause in causes], rank=3),
        Column("cause", causes),
        Column("clk", told(0, clk_per_us), rank=4, right=True),
        Column("us", told(2), right=True),
        Column("share", ["" if part is None else f"{part / time_us:.1%}" for part in known], rank=2, right=True),
        Column("without\nit, us", [f"{each.timing.time_us:.2f}" for each in without], right=True),
        Column("then\nbound by", [each.bound for each in without]),
        Column("meaning", [_MEANING[cause] for cause in causes], rank=5, folds=True),
    ]
    print_columns(console, columns)


def _next(found: Breakdown) -> list[str]:
    """What binds, what would bind next, and which cause alone would gain most."""
    time_us = found.modelled.timing.time_us

    def gained(cause: str) -> str:
        without = found.without[cause]
        less = 1 - without.timing.time_us / time_us
        return f"without {cause}: {without.timing.time_us:.2f} us, {less:.1%} less, and {without.bound} would bind"

    lines = [gained(found.binding)]
    most = min(found.without, key=lambda cause: found.without[cause].timing.time_us)
    return lines if most == found.binding else [*lines, f"the most alone, {gained(most)}"]
