"""How far the clock is from real machines: modelled best time per shape against measured ones.

    python benchmarks/clock_validation.py MEASURED.csv [--space FILE] [--configs 60] [--seed 0] [--rows]

MEASURED.csv has a row per shape: m, n, k and time_us (the fastest library's device time), and may have split_k and
out_dtype. The modelled best is over the space's seeds and a random sample of it, each compiled and proved on the
emulator as in a tuning run (cached between runs). Shapes that no sampled config divides are left out and counted.

The errors are of model and kernel together: the libraries may have a better kernel than the space, and a worse one.
Widths that are no multiple of 64 stand apart, and so do rows of split_k > 1 or float32 output.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from hktune.commands.arguments import add_board, add_hipkittens, add_space
from hktune.core.board import Board, board_named
from hktune.core.candidate import Candidate
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.memory_traffic import tile_order
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench

# TFLOP/s of HipKittens' bf16 kernels on an MI355X: its repository, analysis/bf16_gemm/mi350x (November 2025). They time
# one launch between two events on an idle device, which adds some 10 us of launching to the small ones.
HIPKITTENS_TFLOPS = {1024: 139.5, 2048: 665.1, 8192: 1610.5}


def main() -> None:
    options = parsed()
    space = load_space(options.space)
    board = board_named(options.board)
    attempts = proved(space, options)
    measured = pd.read_csv(options.measured)
    rows = compared(measured, attempts, space, board)
    if options.rows:
        print(rows.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(f"{len(attempts)} proved variants; {len(rows)} of {len(measured)} shapes have one that divides them")
    report(rows)
    hipkittens(attempts, space, board)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    add_space(parser, "the search space (default: gfx950's)", default=DEFAULT_SPACE)
    add_board(parser, "whose clock and power times are modelled with")
    add_hipkittens(parser)
    parser.add_argument("--configs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", action="store_true", help="print every shape")
    return parser.parse_args()


def proved(space: SearchSpace, options: argparse.Namespace) -> list[Attempt]:
    """The space's seeds and a sample of it, as far as they compiled and were proved right."""
    rng = random.Random(options.seed)
    sampled = {config.id: config for config in space.seeds}
    while len(sampled) < options.configs:
        config = space.sample(rng)
        sampled[config.id] = config
    settings = Settings.from_environment(os.environ)
    prover = EmulatedBench(options.space, options.seed, settings, options.hipkittens).prover()
    attempts = [prover(Candidate(config)) for config in track(sampled.values(), "proving", transient=True)]
    return [attempt for attempt in attempts if attempt.profile is not None]


def best(
    problem: Problem, attempts: Iterable[Attempt], space: SearchSpace, board: Board
) -> tuple[launch_time.Modelled, Attempt]:
    """The fastest modelled variant that is legal for `problem`. Raises ValueError when none is."""
    template = space.template
    times = []
    for attempt in attempts:
        if attempt.profile is not None and space.is_legal(attempt.config, problem):
            launch, tile = template.launch(attempt.config, problem), template.tile(attempt.config)
            order = tile_order(template.order(attempt.config), board.arch)
            times.append((launch_time.modelled_time(attempt.profile, problem, launch, tile, board, order), attempt))
    return min(times, key=lambda time: time[0].timing.time_us)


def compared(measured: pd.DataFrame, attempts: list[Attempt], space: SearchSpace, board: Board) -> pd.DataFrame:
    rows = []
    for row in measured.to_dict("records"):
        problem = Problem(int(row["m"]), int(row["n"]), int(row["k"]))
        try:
            modelled, attempt = best(problem, attempts, space, board)
        except ValueError:
            continue
        config = attempt.config
        rows.append(
            {
                "m": problem.m,
                "n": problem.n,
                "k": problem.k,
                "like": row.get("split_k", 0) in (0, 1) and row.get("out_dtype", "bf16") == "bf16",
                "measured_us": row["time_us"],
                "modelled_us": modelled.timing.time_us,
                "ratio": modelled.timing.time_us / row["time_us"],
                "bound": modelled.bound,
                "clock_ghz": modelled.clock_ghz,
                "block": f"{config['block_m']}x{config['block_n']}x{config['k_step']}",
                "config": config.id,
            }
        )
    return pd.DataFrame(rows)


def report(rows: pd.DataFrame) -> None:
    """Geometric mean of modelled over measured, its spread as a factor, and Spearman's rank correlation, by size."""
    wide = rows[rows.n % 64 == 0]
    like = wide[wide.like]
    tiles = like.m * like.n / (256 * 256)
    groups = {
        "n a multiple of 64": wide,
        "  bf16 output, no split of k": like,
        "    of these, a round of 256x256 tiles or more": like[tiles >= 256],
        "    of these, 64 to 255 such tiles": like[(tiles >= 64) & (tiles < 256)],
        "    of these, fewer than 64": like[tiles < 64],
        "  split k or float32 output": wide[~wide.like],
        "other n": rows[rows.n % 64 != 0],
    }
    for name, group in groups.items():
        if len(group) < 2:
            continue
        logs = np.log(group.ratio)
        within = float((logs.abs() <= np.log(1.3)).mean())
        ranks = group.modelled_us.rank().corr(group.measured_us.rank())
        mean, spread = np.exp(logs.mean()), np.exp(logs.std())
        print(
            f"{name:46} {len(group):4} shapes  geometric mean {mean:.3f}  spread x{spread:.3f}"
            f"  within 1.3x {within:4.0%}  rank correlation {ranks:.3f}"
        )


def hipkittens(attempts: list[Attempt], space: SearchSpace, board: Board) -> None:
    for size, tflops in HIPKITTENS_TFLOPS.items():
        problem = Problem(size, size, size)
        modelled, attempt = best(problem, attempts, space, board)
        measured_us = problem.flops / tflops / 1e6
        print(
            f"HipKittens {size}: published {measured_us:.1f} us, modelled {modelled.timing.time_us:.1f} us "
            f"({modelled.timing.time_us / measured_us:.2f}), bound {modelled.bound}, {attempt.config!r}"
        )


if __name__ == "__main__":
    main()
