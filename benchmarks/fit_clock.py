"""Fits the clock's constants of whole launches to measured times, and says how well they do on shapes left out.

    python benchmarks/fit_clock.py EXACT.csv [--like LIKE.csv] [--aiter DIR] [--folds 5] [--sample N]
        [--residuals OUT.csv]

EXACT.csv is one for exact_kernels.py, LIKE.csv one for like_kernels.py; its rows count less. Free are the
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

FREE = ("launch_us", "cold_ns", "latency_growth", "hbm_ns", "write_back_tb_per_s", "shared_add_us")
EXACT_SIGMA, LIKE_SIGMA, PRIOR_SIGMA = 0.05, 0.08, 2.0
"""Of log(modelled / measured), and of a constant as a multiple of today's."""


def launches_of(rows: pd.DataFrame, what: Sequence[Modelling]) -> list[MeasuredLaunch]:
    """The measured launches of `rows`, which `what` models."""
    return [MeasuredLaunch(*each, time_us) for each, time_us in zip(what, rows.time_us, strict=True)]


def sampled(launches: list[MeasuredLaunch], count: int | None) -> list[MeasuredLaunch]:
    """At most so many of them, the same on every run."""
    if count is None or count >= len(launches):
        return launches
    chosen = np.sort(np.random.default_rng(0).choice(len(launches), count, replace=False))
    return [launches[index] for index in chosen]


def told(name: str, logs: Values) -> None:
    error, mean, spread = np.abs(np.exp(logs) - 1).mean(), np.exp(logs.mean()), np.exp(logs.std())
    within = (np.abs(logs) <= np.log(1.3)).mean()
    figures = f"error {error:5.1%}  mean {mean:.3f}  spread {spread:.3f}  within 1.3x {within:4.0%}"
    print(f"{name:44} {len(logs):5} rows  {figures}")


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
    parser.add_argument("--sample", type=int, help="fit to at most so many rows of each file (default: all)")
    parser.add_argument("--residuals", type=Path, metavar="OUT.csv")
    options = parser.parse_args()
    rows, what = modellings(pd.read_csv(options.exact), described(settings_of(options), seed=0))
    known = {"exact kernels": (launches_of(rows, what), EXACT_SIGMA)}
    if options.like:
        known["like kernels"] = (launches_of(*like_modellings(pd.read_csv(options.like), seed=0)), LIKE_SIGMA)
    fit_to = {name: sampled(launches, options.sample) for name, (launches, _) in known.items()}
    launches = [one for each in fit_to.values() for one in each]
    sigma = np.concatenate([np.full(len(fit_to[name]), sigma) for name, (_, sigma) in known.items()])
    today = rates_of(MI355X)
    fit = clock_fit(launches, today, GFX950, (*FREE, *clock_steps(today)), sigma, PRIOR_SIGMA)
    rates = with_constants(today, fit.fitted(list(fit.constants)))
    print(", ".join(f"{name} {getattr(rates, name):.3f}" for name in FREE))
    print("clock_ghz", ", ".join(f"{ghz:.3f} at {share:.0%}" for share, ghz in rates.clock_ghz))
    without = fit.left_out(list(fit.constants), options.folds)
    if options.residuals:
        residuals_of(launches, without).to_csv(options.residuals, index=False)
    for name, (each, _) in known.items():
        told(f"{name}, today's constants", log_ratios(each, today, GFX950))
        told(f"{name}, fitted", log_ratios(each, rates, GFX950))
        own, without = without[: len(fit_to[name])], without[len(fit_to[name]) :]
        told(f"{name}, left out ({options.folds} folds by shape)", own)


if __name__ == "__main__":
    main()
