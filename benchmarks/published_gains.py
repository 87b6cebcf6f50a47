"""What HipKittens published of its own choices, and what the clock says of configs that are like them.

    python benchmarks/published_gains.py [--hipkittens DIR]

TFLOP/s of bf16 cubes on an MI355X, from HipKittens' repository (analysis/) and paper (arXiv 2511.08083, table 4): two
instructions, two schedules, and orders of workgroups in one kernel. For each, a config of the shipped space that does
the same is compiled, proved and modelled. Gains are over the first of a group. Their kernels are not ours: what counts
is the sign of a gain and its size.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from hktune.commands.arguments import add_hipkittens
from hktune.core.board import MI355X
from hktune.core.candidate import Candidate
from hktune.core.config import Config, Value
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.emulator.clock.launch_time import Profile, modelled_time
from hktune.emulator.clock.memory_traffic import Indices, Order, row_major, tiles_of
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench

Changes = Mapping[str, Value]  # against the space's default, 256x256x64 in 8 waves
PINGPONG: Changes = {"schedule": "pingpong", "refill": "late", "lgkmcnt_clusters": 1, "spread": 4}
INTERLEAVE: Changes = {
    **{"schedule": "interleave", "block_n": 128, "warps_n": 2, "slices": 2, "stages": 3, "spread": 4},
    **{"refill": "late", "read_across": True, "lgkmcnt_clusters": 1, "vmcnt_tiles": 1},
}
WAITING: Changes = {}
"""A double buffer whose loads are all waited for in the step that sends them, as in HipKittens' kernel of the study."""
WAITING_192: Changes = {"block_m": 192, "split": 1, "slices": 2, "refill": "late", "lgkmcnt_clusters": 1}


def windows(height: int, chunk: int) -> Order:
    """HipKittens' order: windows of `height` tile rows, `chunk` neighbouring tiles to one die."""
    return partial(tiles_of, xcds=8, xcd_chunk=chunk, group_rows=height)


def eighths(ids: Indices, tiles_m: int, tiles_n: int) -> tuple[Indices, Indices]:
    """Windows of 8 rows, an eighth of the tiles to each die, also where they do not divide by 8."""
    tiles, die = tiles_m * tiles_n, ids % 8
    tile = die * (tiles // 8) + np.minimum(die, tiles % 8) + ids // 8
    return tiles_of(tile, tiles_m, tiles_n, xcds=1, xcd_chunk=1, group_rows=8)


@dataclass(frozen=True)
class Published:
    name: str
    tflops: float
    changes: Changes
    order: Order


GROUPS: dict[int, dict[str, list[Published]]] = {
    8192: {
        "MFMA, 8-wave ping-pong": [
            Published("16x16x32", 1580, PINGPONG, windows(8, 128)),
            Published("32x32x16", 1291, {**PINGPONG, "mfma": 32}, windows(8, 128)),
        ],
        "schedule": [
            Published("8-wave ping-pong", 1580, PINGPONG, windows(8, 128)),
            Published("4-wave interleave", 1507, INTERLEAVE, windows(8, 128)),
        ],
        "order, 256x256": [
            Published("windows of 8 rows", 1113.88, WAITING, windows(8, 128)),
            Published("windows of 4 rows", 1108.85, WAITING, windows(4, 128)),
            Published("windows of 2 rows", 1083.25, WAITING, windows(2, 128)),
            Published("row-major", 1016.59, WAITING, row_major),
            Published("windows of 32 rows", 875.14, WAITING, windows(32, 128)),
        ],
    },
    9216: {
        "order, 192x256": [
            Published("W5, C25", 1145, WAITING_192, windows(5, 25)),
            Published("row-major", 1113, WAITING_192, row_major),
            Published("W7, C216", 991, WAITING_192, windows(7, 216)),
        ],
    },
    14592: {
        "order, 192x256": [
            Published("W8, C64", 1068, WAITING_192, windows(8, 64)),
            Published("W8, C542", 980, WAITING_192, eighths),
            Published("row-major", 900, WAITING_192, row_major),
        ],
    },
}


class Clock:
    """Modelled TFLOP/s of configs, each proved once."""

    def __init__(self, space: SearchSpace, bench: EmulatedBench) -> None:
        self._space, self._prover = space, bench.prover()
        self._profiles: dict[Config, Profile] = {}

    def tflops(self, size: int, one: Published) -> float:
        problem, template = Problem(size, size, size), self._space.template
        config = self._space.config(one.changes)
        assert self._space.is_legal(config, problem), f"{one.name}: {config}"
        launch, tile = template.launch(config, problem), template.tile(config)
        time_us = modelled_time(self._profile(config), problem, launch, tile, MI355X, one.order).timing.time_us
        return problem.flops / time_us * 1e-6

    def _profile(self, config: Config) -> Profile:
        if config not in self._profiles:
            attempt = self._prover(Candidate(config))
            if attempt.profile is None:
                raise SystemExit(f"not proved: {config}: {attempt.failure}")
            self._profiles[config] = attempt.profile
        return self._profiles[config]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_hipkittens(parser)
    options = parser.parse_args()
    bench = EmulatedBench(DEFAULT_SPACE, 0, Settings.from_environment(os.environ), options.hipkittens)
    clock = Clock(load_space(DEFAULT_SPACE), bench)
    print("| cube of | what | | TFLOP/s, published | modelled | gain, published | modelled |")
    print("|---|---|---|---|---|---|---|")
    for size, groups in GROUPS.items():
        for what, of in groups.items():
            report(size, what, of, [clock.tflops(size, one) for one in of])


def report(size: int, what: str, of: list[Published], modelled: list[float]) -> None:
    for one, tflops in zip(of, modelled, strict=True):
        published_gain, gain = one.tflops / of[0].tflops - 1, tflops / modelled[0] - 1
        gains = "| |" if one is of[0] else f"{published_gain:+.1%} | {gain:+.1%} |".replace("%", " %")
        print(f"| {size} | {what} | {one.name} | {one.tflops:.0f} | {tflops:.0f} | {gains}")


if __name__ == "__main__":
    main()
