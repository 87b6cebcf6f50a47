"""How far AMD's analytic model of GEMMs, origami, is from measured times, and how far the clock is on the same rows.

    python benchmarks/against_origami.py MEASURED.csv [--aiter DIR] [--configs 60] [--seed 0] [--rows]

MEASURED.csv names the kernel of each row by symbol, as `exact_kernels.py` takes it, or by block_m and so on, as
`like_kernels.py` does. Origami then has that kernel's own tile, depth and split of k. Where the kernel is not named, as
in what `clock_validation.py` takes, each model has the fastest of one sample of variants. Left out then are rows that
split k, have float32 output, or an n that is no multiple of 64. Those three choose and model hktune's rows.

The MFMA of named kernels is 16x16x32. The board's highest clock turns clk to us, and the occupancy is the profile's.

Origami's `compute_total_latency` chooses the split of k itself, for a StreamK kernel. So its steps are taken here one
by one, with the split that was measured: latency of a timestep, times the number of timesteps.

It divides a tile's time by the share of the tile that C fills: the fewer rows, the longer. A second line has its times
for m and n rounded up to whole tiles, which is without that rule.

Its matrices have their columns in a row, so C of row-major ones is its transposed: m and n are swapped.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clock_validation
import exact_kernels
import like_kernels
import numpy as np
import pandas as pd
from exact_kernels import described, time_of

from hktune.commands.arguments import add_aiter, add_board, add_hipkittens, settings_of
from hktune.core.board import Board, board_named
from hktune.core.launch import Tile
from hktune.core.problem import Problem
from hktune.core.shipped import DEFAULT_SPACE
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space

L2_BYTES = 4 << 20
"""Of one XCD, as the driver reports it."""

MODELS = {"hktune": "hktune_us", "origami": "origami_us", "  whole tiles": "whole_tiles_us"}


@dataclass(frozen=True)
class Kernel:
    """What origami is given of a kernel: its tile, how many workgroups share the k of one, how many fit on a CU, and
    the m, n and k of its MFMA."""

    tile: Tile
    split_k: int
    occupancy: int
    mfma: tuple[int, int, int] = (16, 16, 32)


class Origami:
    """Origami's times for kernels on `board`."""

    def __init__(self, board: Board) -> None:
        try:
            import origami
        except ImportError as error:
            raise SystemExit("origami is not here: pip install rocm-origami==0.0.3, which needs ROCm") from error
        self._origami, self._clock_ghz, self._compute_units = origami, board.max_clock_ghz, board.arch.compute_units
        self._hardware = origami.get_hardware_for_arch(
            arch=origami.architecture_t.gfx950,
            N_CU=board.arch.compute_units,
            lds_capacity=board.arch.lds_bytes,
            L2_capacity=L2_BYTES,
            compute_clock_khz=round(board.max_clock_ghz * 1e6),
        )

    def time_us(self, m: int, n: int, k: int, out_dtype: str, kernel: Kernel, whole_tiles: bool = False) -> float:
        """Time of a bf16 product whose C is of `out_dtype`."""
        tile, split_k = kernel.tile, kernel.split_k
        tiles_m, tiles_n = math.ceil(m / tile.m), math.ceil(n / tile.n)
        if whole_tiles:
            m, n = tiles_m * tile.m, tiles_n * tile.n
        workgroups = tiles_m * tiles_n * split_k
        active = min(workgroups, self._compute_units)
        problem, config = self._problem(m, n, k, out_dtype), self._config(kernel)
        timestep_clk = self._origami.compute_timestep_latency(problem, self._hardware, config, active, split_k)
        return float(timestep_clk) * math.ceil(workgroups / self._compute_units) / self._clock_ghz * 1e-3

    def _problem(self, m: int, n: int, k: int, out_dtype: str) -> Any:
        types = self._origami.data_type_t
        problem = self._origami.problem_t()
        problem.size = self._origami.dim3_t(n, m, k)
        problem.batch = 1
        problem.a_transpose, problem.b_transpose = self._origami.transpose_t.T, self._origami.transpose_t.N
        problem.a_dtype = problem.b_dtype = problem.mi_dtype = types.BFloat16
        problem.c_dtype = problem.d_dtype = types.Float if out_dtype == "float32" else types.BFloat16
        return problem

    def _config(self, kernel: Kernel) -> Any:
        config = self._origami.config_t()
        config.mt = self._origami.dim3_t(kernel.tile.n, kernel.tile.m, kernel.tile.k)
        config.mi = self._origami.dim3_t(*kernel.mfma)
        config.occupancy = kernel.occupancy
        config.hand_optimized_main_loop = True
        # What compute_total_latency sets before it takes the same steps.
        config.workgroup_mapping = math.ceil(math.sqrt(self._compute_units // self._hardware.NUM_XCD))
        return config


Rows = tuple[pd.DataFrame, list[list[Kernel]]]
"""Measured rows with hktune's times, and the kernels that origami may take for each."""


def named(measured: pd.DataFrame, options: argparse.Namespace, board: Board) -> Rows:
    """The rows whose kernel is here by symbol, or is like a config of the space."""
    alike = "block_m" in measured
    if alike:
        rows, what = like_kernels.modellings(measured, options.seed)
    else:
        rows, what = exact_kernels.modellings(measured, described(settings_of(options), options.seed))
    rows = rows.assign(hktune_us=[time_of(each, board=board).timing.time_us for each in what])
    kernels = []
    for row, (profile, _, _, tile, _) in zip(rows.itertuples(), what, strict=True):
        own = Tile(row.block_m, row.block_n, row.block_k) if alike else tile
        kernels.append([Kernel(own, max(row.split_k, 1), profile.residencies[-1].workgroups)])
    return rows, kernels


def unnamed(measured: pd.DataFrame, options: argparse.Namespace, board: Board) -> Rows:
    """The rows that a sampled variant divides: for both models, the fastest of the variants that may do each."""
    space = load_space(DEFAULT_SPACE)
    attempts = clock_validation.proved(space, options)
    found, times, kernels = [], [], []
    like = (measured.split_k <= 1) & (measured.out_dtype == "bf16") & (measured.n % 64 == 0)
    for row in measured[like].itertuples():
        problem = Problem(row.m, row.n, row.k)
        legal = [each for each in attempts if each.profile and space.is_legal(each.config, problem)]
        if legal:
            found.append(row.Index)
            times.append(clock_validation.best(problem, legal, space, board)[0].timing.time_us)
            kernels.append([_variant(space, each) for each in legal])
    return measured.loc[found].assign(hktune_us=times), kernels


def _variant(space: SearchSpace, attempt: Attempt) -> Kernel:
    mfma = (32, 32, 16) if attempt.config["mfma"] == 32 else (16, 16, 32)
    fit = attempt.profile.residencies[-1].workgroups
    return Kernel(space.template.tile(attempt.config), attempt.config["split_k"], fit, mfma)


def with_origami(rows: pd.DataFrame, kernels: list[list[Kernel]], origami: Origami) -> pd.DataFrame:
    """`rows` with origami's times: of several kernels, the fastest in its own eyes."""
    both = {
        column: [
            min(origami.time_us(row.m, row.n, row.k, row.out_dtype, kernel, whole_tiles) for kernel in choice)
            for row, choice in zip(rows.itertuples(), kernels, strict=True)
        ]
        for column, whole_tiles in (("origami_us", False), ("whole_tiles_us", True))
    }
    return rows.assign(**both)


def report(rows: pd.DataFrame) -> None:
    """Of each class and model: mean absolute error, geometric mean of modelled over measured, its spread as a factor,
    share within 1.3x, and Spearman's rank correlation."""
    classes = {
        "all": rows.m > 0,
        "k <= 2048": rows.k <= 2048,
        "k not split": rows.split_k <= 1,
        "split k": rows.split_k > 1,
        "m <= 64": rows.m <= 64,
        "m > 1024": rows.m > 1024,
    }
    print(f"{'':30} {'rows':>5} {'error':>7} {'mean':>6} {'spread':>7} {'in 1.3':>7} {'rank':>7}")
    for name, chosen in classes.items():
        group = rows[chosen]
        for model, column in MODELS.items() if len(group) > 1 else ():
            ratio = group[column] / group.time_us
            logs = np.log(ratio)
            print(
                f"{name:14} {model:15} {len(group):5} {(ratio - 1).abs().mean():7.1%} {np.exp(logs.mean()):6.3f} "
                f"{np.exp(logs.std()):7.3f} {(logs.abs() <= np.log(1.3)).mean():7.0%} "
                f"{group[column].rank().corr(group.time_us.rank()):7.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    add_aiter(parser)
    add_hipkittens(parser)
    add_board(parser, "whose clock and power times are modelled with")
    parser.add_argument("--configs", type=int, default=60, help="how many variants stand for kernels without a name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.set_defaults(space=DEFAULT_SPACE)
    options = parser.parse_args()
    board = board_named(options.board)
    origami = Origami(board)
    measured = pd.read_csv(options.measured)
    modelled = named if {"block_m", "kernel"} & {*measured} else unnamed
    rows, kernels = modelled(measured, options, board)
    if rows.empty:
        raise SystemExit("no row's kernel is here: pip install 'hktune[aiter]' or pass --aiter DIR")
    rows = with_origami(rows, kernels, origami)
    if options.rows:
        print(rows.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(f"{len(rows)} of {len(measured)} rows are modelled by both")
    report(rows)


if __name__ == "__main__":
    main()
