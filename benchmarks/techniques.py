"""What each technique of the gfx950 GEMM is worth, modelled: the table of its template's README.

    python benchmarks/techniques.py [--configs 300] [--shapes shapes.yaml] [--hipkittens DIR]

For each problem, the fastest modelled of a pool of proved configs; then the fastest of those that go without one
technique, every other knob free; last the configuration that the specification fixed. The pool is the space's seeds,
configs one step from them, and a random sample. A proved config stands for all workgroup orders, which its main loop
does not know. Then the same for every shape of the file: the best against the specification's choice.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean

from rich.progress import track

from hktune.commands.arguments import add_board, add_hipkittens, add_space
from hktune.core.board import Board, board_named
from hktune.core.candidate import Candidate
from hktune.core.config import Config, Value
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shapes import load_shapes
from hktune.core.shipped import DEFAULT_SPACE
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space
from hktune.template import Templates
from hktune.tuning.benches.emulated_bench import EmulatedBench

PROBLEMS = [
    Problem(8192, 8192, 8192),
    Problem(4096, 4096, 4096),
    Problem(2048, 28672, 4096),
    Problem(16, 7168, 16384),
    Problem(1000, 1000, 1000),
]
TECHNIQUES: dict[str, dict[str, list[Value]]] = {  # what each knob may be when the technique is off
    "everything": {},
    "without ping-pong": {"schedule": ["interleave", "pipeline"]},
    "without ping-pong and interleave": {"schedule": ["pipeline"]},
    "simple pipeline, loads in one burst": {"schedule": ["pipeline"], "spread": [1]},
    "without late refills": {"refill": ["early"]},
    "without reads across steps": {"read_across": [False]},
    "without reads in flight under MFMAs": {"lgkmcnt_clusters": [0], "read_across": [False]},
    "no tile more in flight than needed": {"vmcnt_tiles": [0], "vmcnt_waits": ["step"]},
    "at most 2 stages": {"stages": [1, 2]},
    "16x16x32 alone": {"mfma": [16]},
    "without setprio": {"setprio": ["none"]},
    "plain workgroup order": {"xcd_chunk": [1], "group_rows": [1]},
    "blocks of 128 and 256 alone": {"block_m": [128, 256], "block_n": [128, 256]},
}
ORDERS = [(1, 1), (1, 4), (1, 8), (4, 4), (8, 4), (8, 8), (16, 8), (32, 8), (32, 16)]


def main() -> None:
    options = parsed()
    space = load_space(options.space)
    bench = EmulatedBench(options.space, options.seed, Settings.from_environment(os.environ), options.hipkittens)
    configs = track(pool(space, options.configs, random.Random(options.seed)), "proving", transient=True)
    attempts = [attempt for attempt in map(bench.prover(), map(Candidate, configs)) if attempt.profile is not None]
    table = Table(space, attempts, board_named(options.board))
    print("| technique | " + " | ".join(f"{problem.m} x {problem.n} x {problem.k}" for problem in PROBLEMS) + " |")
    print("|---|" + "---|" * len(PROBLEMS))
    for name, off in TECHNIQUES.items():
        print(row(name, [table.fastest(problem, off) for problem in PROBLEMS]))
    print(row("the specification's choice", [table.specified(problem) for problem in PROBLEMS]))
    print(f"\n{len(attempts)} proved configs")
    compare(table, load_shapes(options.shapes).problems)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=300, help="variants to prove")
    parser.add_argument("--seed", type=int, default=1)
    add_space(parser, "the search space (default: gfx950's)", default=DEFAULT_SPACE)
    parser.add_argument("--shapes", type=Path, default=Path("shapes.yaml"))
    add_board(parser, "whose clock and power times are modelled with")
    add_hipkittens(parser)
    return parser.parse_args()


def pool(space: SearchSpace, count: int, rng: random.Random) -> list[Config]:
    """The seeds, also with each technique off, and what the specification fixed; then their neighbours and a sample."""
    named = [*space.seeds, *(specified(space, problem) for problem in PROBLEMS)]
    found = {config.id: config for config in named}
    for off in TECHNIQUES.values():
        changed = [space.config({**seed, **{name: values[-1] for name, values in off.items()}}) for seed in named]
        found.update({config.id: config for config in changed if space.is_legal(config)})
    near = [config for seed in named for config in space.neighbours(seed) if plain(config)]
    for config in rng.sample(near, min(len(near), max(0, count - len(found)) // 2)):
        found[config.id] = config
    while len(found) < count:
        sampled = space.config({**space.sample(rng), "xcd_chunk": 1, "group_rows": 1})
        found[sampled.id] = sampled
    return list(found.values())


def plain(config: Config) -> bool:
    return config["xcd_chunk"] == 1 and config["group_rows"] == 1


def specified(space: SearchSpace, problem: Problem) -> Config:
    """256x256 where both sides reach 512, else 128x128; double buffered, every load waited for at every step."""
    choice = space.fixed_choice.of(problem) if space.fixed_choice else None
    if choice is None:
        raise SystemExit(f"{space.name} says of no config that it was specified for {problem}")
    return choice


class Table:
    """The proved configs in every workgroup order, and how fast they are."""

    def __init__(self, space: SearchSpace, attempts: list[Attempt], board: Board) -> None:
        self._space = space
        self._stopwatch = ModelledStopwatch(Templates(space.template), board=board)
        self._attempts = [
            replace(attempt, config=space.config({**attempt.config, "xcd_chunk": chunk, "group_rows": rows}))
            for attempt in attempts
            for chunk, rows in ORDERS
        ]

    def fastest(self, problem: Problem, off: Mapping[str, Sequence[Value]]) -> tuple[Timing, Config] | None:
        """The best modelled time with its config, of those with one of `off`'s values; None where none is legal."""
        timed = [
            (time, attempt.config)
            for attempt in self._attempts
            if all(attempt.config[name] in values for name, values in off.items())
            if self._space.is_legal(attempt.config, problem)
            if not isinstance(time := self._stopwatch.time(attempt, problem), Failure)
        ]
        return min(timed, key=lambda one: one[0].time_us, default=None)

    def specified(self, problem: Problem) -> tuple[Timing, Config] | None:
        choice = specified(self._space, problem)
        return self.fastest(problem, {name: [value] for name, value in choice.items()})


def row(name: str, found: list[tuple[Timing, Config] | None]) -> str:
    cells = (f"{one[0].time_us:.1f}, {one[0].bound}" if one else "n/a" for one in found)
    return f"| {name} | " + " | ".join(cells) + " |"


def compare(table: Table, problems: tuple[Problem, ...]) -> None:
    """Every problem's best, what bounds it, and how much faster it is than the specification's choice."""
    speedups = []
    for problem in problems:
        best, fixed = table.fastest(problem, {}), table.specified(problem)
        if best is None or fixed is None:
            print(f"{problem}: n/a")
            continue
        speedups.append(fixed[0].time_us / best[0].time_us)
        print(f"{problem}: {best[0].time_us:.1f} us ({best[0].bound}), {speedups[-1]:.2f}x: {best[1]}")
    print(f"geometric mean of {len(speedups)} shapes: {geometric_mean(speedups):.3f}x")


if __name__ == "__main__":
    main()
