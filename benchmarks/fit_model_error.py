"""How far modelled times are from measured ones, by class of launch: what the intervals of modelled times are made of.

    python benchmarks/fit_model_error.py RESIDUALS.csv [--coverage 0.8] [--folds 5] [--write]

RESIDUALS.csv has a row per measured kernel: m, n, k, split, tiles, block (any text that tells kernels apart) and
log_ratio, the natural logarithm of modelled over measured time. Best are residuals of shapes that the clock was not
fitted to (benchmarks/fit_clock.py --residuals).

A class is a range of m, of split and of tiles (workgroups that k is not split over). Its size is the mean of
|log_ratio|, in which each block counts once, however many rows it has: rows of one kernel err alike. Classes of few
blocks are drawn towards the class above: all tiles of the same m and split, then all of the same m, then all. One
factor turns sizes into half widths of intervals that hold `--coverage` of the residuals, blocks counted alike. Of two
kernels of one shape much of the error is the same: the differences of their residuals give the width within which two
modelled times tie.

Prints every class, and the coverage on shapes, and on blocks, that were left out. --write puts the figures into
hktune/emulator/clock/model_error.yaml.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from hktune.emulator.clock.model_error import FILE, ModelError

EDGES = {"m": (64, 1024), "split": (1, 8), "tiles": (64, 256)}
DRAWN_TO_PARENT = 3.0
"""A class has the size of the one above as if so many of its blocks said so."""

Values = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def places_of(rows: pd.DataFrame) -> list[Places]:
    """Of each row, its range of m, of split and of tiles."""
    return [np.searchsorted(EDGES[name], rows[name].to_numpy()) for name in EDGES]


@dataclass(frozen=True)
class Fitted:
    """Half widths of log_ratio by class, how many rows each has, and the half width of a difference of two kernels."""

    half_widths: Values
    counts: Places
    pair_half_width: float
    pairs: int

    def covers(self, rows: pd.DataFrame) -> Values:
        """Whether each row is within the half width of its class."""
        within: Values = np.abs(rows.log_ratio.to_numpy()) <= self.half_widths[tuple(places_of(rows))]
        return within


def fitted(rows: pd.DataFrame, coverage: float) -> Fitted:
    """The half widths that cover so much of `rows`."""
    sizes, weights = np.abs(rows.log_ratio.to_numpy()), weights_of(rows)
    places = places_of(rows)
    drawn, counts = np.average(sizes, weights=weights), np.array(len(rows))
    for depth in range(1, len(places) + 1):
        shape = [len(edges) + 1 for edges in itertools.islice(EDGES.values(), depth)]
        at = np.ravel_multi_index(places[:depth], shape)
        total, weight = (np.bincount(at, each, np.prod(shape)).reshape(shape) for each in (weights * sizes, weights))
        drawn = (total + DRAWN_TO_PARENT * drawn[..., np.newaxis]) / (weight + DRAWN_TO_PARENT)
        counts = np.bincount(at, minlength=np.prod(shape)).reshape(shape)
    widening = quantile(sizes / drawn[tuple(places)], weights, coverage)
    differences, of_pairs = differences_of(rows)
    return Fitted(drawn * widening, counts, quantile(differences, of_pairs, coverage), len(differences))


def weights_of(rows: pd.DataFrame) -> Values:
    """Of each row, one over how many its class has of its block."""
    classes = np.ravel_multi_index(places_of(rows), [len(edges) + 1 for edges in EDGES.values()])
    weights: Values = 1.0 / rows.block.groupby([rows.block, classes]).transform("size").to_numpy()
    return weights


def differences_of(rows: pd.DataFrame) -> tuple[Values, Values]:
    """|difference of log_ratio| of every two kernels of one shape. All pairs of a shape of n kernels weigh n - 1."""
    differences, weights = [], []
    for _, group in rows.groupby(["m", "n", "k"]):
        logs = group.log_ratio.to_numpy()
        own = [abs(one - other) for one, other in itertools.combinations(logs, 2)]
        differences += own
        weights += [2 / len(logs)] * len(own)
    return np.array(differences), np.array(weights)


def quantile(values: Values, weights: Values, share: float) -> float:
    """The value below which `share` of the weight is; not a number where there is none."""
    if not len(values):
        return float("nan")
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(share * weights.sum(), below, values[order]))


def folds_of(rows: pd.DataFrame, alike: list[str], folds: int) -> Places:
    """A fold for each row, the same for all rows that are alike in these columns."""
    groups = rows.groupby(alike).ngroup().to_numpy()
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    return order[groups] % folds


def left_out(rows: pd.DataFrame, coverage: float, fold: Places) -> tuple[Values, Values, Values]:
    """Of each row, whether the figures of the other folds cover it; of each pair likewise, and its weight."""
    covered = np.zeros(len(rows))
    pairs, weights = [], []
    for number in np.unique(fold):
        others, own = rows[fold != number], rows[fold == number]
        figures = fitted(others, coverage)
        covered[fold == number] = figures.covers(own)
        differences, weight = differences_of(own)
        pairs.append(differences <= figures.pair_half_width)
        weights.append(weight)
    return covered, np.concatenate(pairs), np.concatenate(weights)


def model_error(found: Fitted, coverage: float) -> ModelError:
    """What the clock reads."""
    edges = {f"{name}_edges": pair for name, pair in EDGES.items()}
    factors, rows = np.exp(found.half_widths).round(3).tolist(), found.counts.tolist()
    tie_factor = round(float(np.exp(found.pair_half_width)), 3)
    fields = dict(coverage=coverage, pairs=found.pairs, tie_factor=tie_factor, factors=factors, rows=rows, **edges)
    return msgspec.convert(fields, ModelError)


def text_of(figures: ModelError, count: int) -> str:
    """`figures` as the file has them."""
    lines = [f"# Written by benchmarks/fit_model_error.py, of {count} residuals: hktune/emulator/clock/model_error.py"]
    for name, value in msgspec.to_builtins(figures).items():
        if name in ("factors", "rows"):
            lines.append(f"{name}:  # a line for each range of m: of split, of tiles")
            lines += [f"  - {json.dumps(of_m)}" for of_m in value]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def report(rows: pd.DataFrame, found: Fitted, coverage: float, folds: int) -> None:
    covered, pairs, of_pairs = left_out(rows, coverage, folds_of(rows, ["m", "n", "k"], folds))
    of_blocks, _, _ = left_out(rows, coverage, folds_of(rows, ["block"], folds))
    places = places_of(rows)
    print(f"{'m':>12} {'split':>12} {'tiles':>12} {'rows':>5} {'factor':>7} {'left out, covered':>18}")
    for at in np.ndindex(found.half_widths.shape):
        own = np.logical_and.reduce([place == index for place, index in zip(places, at, strict=True)])
        names = [range_name(EDGES[name], index) for name, index in zip(EDGES, at, strict=True)]
        share = f"{covered[own].mean():.0%}" if own.any() else ""
        figures = f"{own.sum():5} {np.exp(found.half_widths[at]):7.3f} {share:>18}"
        print(" ".join([*(f"{name:>12}" for name in names), figures]))
    weights = weights_of(rows)
    for name, each in (("shapes", covered), ("blocks", of_blocks)):
        share = f"{np.average(each, weights=weights):.1%} with blocks counted alike, {each.mean():.1%} of rows"
        print(f"{len(rows)} rows, {name} left out in {folds} folds: {share}; {coverage:.0%} meant")
    share = np.average(pairs, weights=of_pairs)
    half_width = np.exp(found.pair_half_width)
    print(f"{found.pairs} pairs of one shape: {coverage:.0%} within {half_width:.3f}; shapes left out: {share:.1%}")


def range_name(edges: tuple[int, ...], index: int) -> str:
    if index == len(edges):
        return f"> {edges[-1]}"
    return f"<= {edges[0]}" if index == 0 else f"{edges[index - 1] + 1} to {edges[index]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("residuals", type=Path)
    parser.add_argument("--coverage", type=float, default=0.8)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into hktune's file")
    options = parser.parse_args()
    rows = pd.read_csv(options.residuals)
    found = fitted(rows, options.coverage)
    if not found.pairs:
        raise SystemExit(f"{options.residuals}: no two rows are of one shape, so nothing says when two times tie")
    report(rows, found, options.coverage, options.folds)
    if options.write:
        FILE.write_text(text_of(model_error(found, options.coverage), len(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
