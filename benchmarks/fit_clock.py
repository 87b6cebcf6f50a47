"""Fits the clock's constants of whole launches to measured times, and says how well they do on shapes left out.

    python benchmarks/fit_clock.py EXACT.csv [--like LIKE.csv] [--aiter DIR] [--folds 5]

EXACT.csv is one for exact_kernels.py, LIKE.csv one for like_kernels.py; its rows count a quarter as much. Free are the
constants in FREE and the shader clock at every share of MFMA but the lowest. What is minimised is the square of
log(modelled / measured), of outliers its absolute value. Nothing is written: hktune/emulator/clock/rates.py has the
constants, each with its source.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from exact_kernels import Modelling, described, modellings, time_of
from like_kernels import modellings as like_modellings
from scipy.optimize import least_squares

from hktune.commands.arguments import add_aiter, settings_of
from hktune.core.board import MI355X
from hktune.emulator.clock.rates import Rates, rates_of

FREE = ("launch_us", "cold_ns", "latency_growth", "hbm_ns", "mall_tb_per_s", "write_back_tb_per_s")
EXACT_SIGMA, LIKE_SIGMA, PRIOR_SIGMA = 0.05, 0.2, 2.0
"""Of log(modelled / measured), and of a constant as a multiple of today's."""
Values = npt.NDArray[np.float64]


class Fit:
    """Modelled and measured times of all rows; the first `exact` of them are exact kernels."""

    def __init__(self, what: Sequence[Modelling], measured_us: Values, exact: int) -> None:
        self._what, self._measured_us = what, measured_us
        self._sigma = np.where(np.arange(len(what)) < exact, EXACT_SIGMA, LIKE_SIGMA)
        self._today = rates_of(MI355X)
        self._points = len(self._today.clock_ghz) - 1

    def rates(self, factors: Values) -> Rates:
        """Today's constants, each free one times its factor."""
        today = self._today
        free = {name: getattr(today, name) * factor for name, factor in zip(FREE, factors, strict=False)}
        clocks = [ghz * factor for (_, ghz), factor in zip(today.clock_ghz[1:], factors[len(FREE) :], strict=True)]
        shares = [share for share, _ in today.clock_ghz[1:]]
        return replace(today, **free, clock_ghz=(today.clock_ghz[0], *zip(shares, clocks, strict=True)))

    def logs(self, factors: Values, rows: npt.NDArray[np.intp]) -> Values:
        rates = self.rates(factors)
        times = [time_of(self._what[row], rates) for row in rows]
        found: Values = np.log([each.timing.time_us for each in times] / self._measured_us[rows])
        return found

    def fitted(self, rows: npt.NDArray[np.intp]) -> Values:
        """The factors that suit `rows` best."""

        def residuals(factors: Values) -> Values:
            return np.concatenate([self.logs(factors, rows) / self._sigma[rows], (factors - 1) / PRIOR_SIGMA])

        start = np.ones(len(FREE) + self._points)
        found: Values = least_squares(residuals, start, loss="soft_l1", x_scale=0.1, diff_step=0.02, max_nfev=15).x
        return found


def folds_of(rows: pd.DataFrame, folds: int) -> npt.NDArray[np.intp]:
    """A fold for each row, the same for all rows of one shape."""
    shapes = rows.groupby(["m", "n", "k"]).ngroup().to_numpy()
    order = np.random.default_rng(0).permutation(shapes.max() + 1)
    return order[shapes] % folds


def told(name: str, logs: Values) -> None:
    error, mean, spread = np.abs(np.exp(logs) - 1).mean(), np.exp(logs.mean()), np.exp(logs.std())
    print(f"{name:44} {len(logs):5} rows  error {error:5.1%}  mean {mean:.3f}  spread {spread:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exact", type=Path)
    parser.add_argument("--like", type=Path)
    add_aiter(parser)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    rows, what = modellings(pd.read_csv(options.exact), described(settings_of(options), seed=0))
    exact = np.arange(len(rows))
    if options.like:
        others, like = like_modellings(pd.read_csv(options.like), seed=0)
        rows, what = pd.concat([rows, others], ignore_index=True), [*what, *like]
    fit, everything = Fit(what, rows.time_us.to_numpy(), len(exact)), np.arange(len(rows))
    factors = fit.fitted(everything)
    rates = fit.rates(factors)
    print(", ".join(f"{name} {getattr(rates, name):.3f}" for name in FREE))
    print("clock_ghz", ", ".join(f"{ghz:.3f} at {share:.0%}" for share, ghz in rates.clock_ghz))
    told("exact kernels, today's constants", fit.logs(np.ones_like(factors), exact))
    told("exact kernels, fitted", fit.logs(factors, exact))
    fold = folds_of(rows, options.folds)
    left_out = [
        fit.logs(fit.fitted(np.flatnonzero(fold != number)), exact[fold[exact] == number])
        for number in range(options.folds)
    ]
    told(f"exact kernels, left out ({options.folds} folds by shape)", np.concatenate(left_out))


if __name__ == "__main__":
    main()
