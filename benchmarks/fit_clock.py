"""Fits the clock's constants of whole launches to measured times, and says how well they do on shapes left out.

    python benchmarks/fit_clock.py EXACT.csv [--like LIKE.csv] [--aiter DIR] [--folds 5] [--residuals OUT.csv]

EXACT.csv is one for exact_kernels.py, LIKE.csv one for like_kernels.py; its rows count a quarter as much. Free are the
constants in FREE and the shader clock at every share of MFMA but the lowest. What is minimised is said in
hktune/measure/fitting.py. Nothing is written: hktune/emulator/clock/rates.py has the constants, each with its
source. --residuals keeps what every row was off by with constants fitted to the other folds, for fit_model_error.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from exact_kernels import Modelling, described, modellings
from like_kernels import modellings as like_modellings

from hktune.commands.arguments import add_aiter, settings_of
from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.emulator.clock.constants import MeasuredLaunch, Values, clock_steps, log_ratios, with_constants
from hktune.emulator.clock.rates import rates_of
from hktune.measure.clock_fit import clock_fit

FREE = ("launch_us", "cold_ns", "latency_growth", "hbm_ns", "mall_tb_per_s", "write_back_tb_per_s")
EXACT_SIGMA, LIKE_SIGMA, PRIOR_SIGMA = 0.05, 0.2, 2.0
"""Of log(modelled / measured), and of a constant as a multiple of today's."""


def launches_of(rows: pd.DataFrame, what: Sequence[Modelling]) -> list[MeasuredLaunch]:
    """The measured launches of `rows`, which `what` models."""
    return [MeasuredLaunch(*each, time_us) for each, time_us in zip(what, rows.time_us, strict=True)]


def told(name: str, logs: Values) -> None:
    error, mean, spread = np.abs(np.exp(logs) - 1).mean(), np.exp(logs.mean()), np.exp(logs.std())
    print(f"{name:44} {len(logs):5} rows  error {error:5.1%}  mean {mean:.3f}  spread {spread:.3f}")


def residuals_of(launches: Sequence[MeasuredLaunch], logs: Values) -> pd.DataFrame:
    """As fit_model_error.py reads them: what `logs` are of."""
    rows = []
    for one, log_ratio in zip(launches, logs, strict=True):
        problem, tile = one.problem, one.tile
        tiles = -(-problem.m // tile.m) * -(-problem.n // tile.n)
        shape = {"m": problem.m, "n": problem.n, "k": problem.k, "split": math.prod(one.launch.grid) / tiles}
        rows.append({**shape, "tiles": tiles, "block": f"{tile.m}x{tile.n}x{tile.k}", "log_ratio": log_ratio})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exact", type=Path)
    parser.add_argument("--like", type=Path)
    add_aiter(parser)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--residuals", type=Path, metavar="OUT.csv")
    options = parser.parse_args()
    rows, what = modellings(pd.read_csv(options.exact), described(settings_of(options), seed=0))
    exact = launches_of(rows, what)
    launches = exact
    if options.like:
        launches = exact + launches_of(*like_modellings(pd.read_csv(options.like), seed=0))
    today = rates_of(MI355X)
    sigma = np.where(np.arange(len(launches)) < len(exact), EXACT_SIGMA, LIKE_SIGMA)
    fit = clock_fit(launches, today, GFX950, (*FREE, *clock_steps(today)), sigma, PRIOR_SIGMA)
    rates = with_constants(today, fit.fitted(list(fit.constants)))
    print(", ".join(f"{name} {getattr(rates, name):.3f}" for name in FREE))
    print("clock_ghz", ", ".join(f"{ghz:.3f} at {share:.0%}" for share, ghz in rates.clock_ghz))
    told("exact kernels, today's constants", log_ratios(exact, today, GFX950))
    told("exact kernels, fitted", log_ratios(exact, rates, GFX950))
    without = fit.left_out(list(fit.constants), options.folds)
    told(f"exact kernels, left out ({options.folds} folds by shape)", without[: len(exact)])
    if options.residuals:
        residuals_of(launches, without).to_csv(options.residuals, index=False)


if __name__ == "__main__":
    main()
