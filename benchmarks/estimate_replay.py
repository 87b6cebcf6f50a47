"""How well a space's estimate orders what was recorded, and how what is foremost did where it was recorded.

    python benchmarks/estimate_replay.py DIR [DIR ...] [--space FILE] [--fit]

Each directory holds trials of an NVIDIA GPU. Of every shape with 20 configs or more: the rank correlation of estimate
and time, and by how much the best of the first 1, 3, 10 and 16 configs in the estimate's order is slower than the best
of all that were recorded. `--space` takes another version of the space. With `--fit` constants are fitted to half of
the n and k, and judged on the other half, both ways.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.shipped import SPACE_OF
from hktune.core.trial import Trial
from hktune.space import Domain, SearchSpace, load_space
from hktune.store import read_trials

FIRST = (1, 3, 10, 16)
ROWS_MIN = 20
FITTED = 30
"""So many rows of a shape are fitted to: the fastest half of them, and as many of the others at random."""
CLIPPED = 0.5
"""An error of a logarithm beyond this counts as this."""


@dataclass(frozen=True)
class Shape:
    """What was recorded of a problem in one directory: configs that are legal now, and time over the vendor's time."""

    directory: str
    domain: Domain
    configs: tuple[Config, ...]
    ratios: np.ndarray

    @property
    def problem(self) -> Problem:
        assert self.domain.problem is not None
        return self.domain.problem

    @cached_property
    def scopes(self) -> list[dict[str, object]]:
        """Of each config, all that an estimate may name."""
        return [{**self.domain._fixed, **each, **self.domain.derived_values(each)} for each in self.configs]

    def estimates(self, space: SearchSpace, constants: Mapping[str, int], rows: Iterable[int]) -> np.ndarray:
        """The estimate with `constants` of some of the configs."""
        estimate = space.for_operation(self.problem.operation).estimate_with(constants)
        return np.array([[*estimate.values(self.scopes[row]).values()][-1] for row in rows], dtype=float)

    @property
    def kind(self) -> str:
        """The class of the lab notes' table."""
        m, n, k = self.problem.m, self.problem.n, self.problem.k
        waves = -(-m // 128) * -(-n // 256) / 132
        if m <= 64:
            return "m of at most 64"
        if k >= 8192 and waves <= 0.5:
            return "few tiles, k of 8192 and more"
        if max(m, n, k) <= 1536:
            return "all three at most 1536"
        return "one wave of 128x256" if waves <= 1 else "1 to 4 waves" if waves <= 4 else "more waves"


def main() -> None:
    """Read, judge, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directories", nargs="+", type=Path)
    parser.add_argument("--space", type=Path, default=SPACE_OF["sm90a"])
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    space = load_space(options.space)
    shapes = [shape for directory in options.directories for shape in recorded(directory, space)]
    print(f"{sum(len(shape.configs) for shape in shapes)} configs of {len(shapes)} shapes")
    judge("as shipped", shapes, lambda shape: shape.estimates(space, {}, range(len(shape.configs))))
    show_foremost(shapes)
    if options.fit:
        held_out(shapes, space)


def recorded(directory: Path, space: SearchSpace) -> list[Shape]:
    """The shapes of a directory, the last row of each config counting."""
    last: defaultdict[Problem, dict[str, Trial]] = defaultdict(dict)
    for row in read_trials(directory / "trials.csv"):
        if row.is_kernel and row.status is Status.OK and row.time_us and row.baseline_us:
            last[row.problem][row.config_id] = row
    found = []
    for problem, rows in last.items():
        domain = space.domain(problem)
        known = [(Config.from_json(row.config), row) for row in rows.values()]
        own = [(config, row) for config, row in known if domain.has_values_of(config) and domain.is_legal(config)]
        if len(own) >= ROWS_MIN:
            ratios = np.array([(row.time_us or 0.0) / (row.baseline_us or 1.0) for _, row in own])
            found.append(Shape(str(directory), domain, tuple(config for config, _ in own), ratios))
    return found


def judge(name: str, shapes: Sequence[Shape], estimates: Callable[[Shape], np.ndarray]) -> None:
    """Print how the order of `estimates` does, by class of shape."""
    by_kind: defaultdict[str, list[list[float]]] = defaultdict(list)
    for shape in shapes:
        by_kind[shape.kind].append(scores(shape, estimates(shape)))
    by_kind["all"] = [each for own in by_kind.values() for each in own]
    print(f"{name}: shapes, rank correlation, loss of the best of the first {', '.join(map(str, FIRST))}")
    for kind, own in sorted(by_kind.items()):
        correlation, *losses = (fmean(column) for column in zip(*own, strict=True))
        print(f"  {kind:30} {len(own):4} {correlation:.2f}  {'  '.join(f'{loss:.2%}' for loss in losses)}")


def scores(shape: Shape, estimates: np.ndarray) -> list[float]:
    """The rank correlation, and the losses of the first few."""
    order = np.argsort(estimates, kind="stable")
    least = shape.ratios.min()
    losses = [float(shape.ratios[order[:first]].min() / least - 1) for first in FIRST]
    return [float(spearmanr(estimates, shape.ratios).statistic), *losses]


def show_foremost(shapes: Sequence[Shape]) -> None:
    """Print how the tiles that are foremost did where some config of the same tile and split was recorded."""
    found: defaultdict[bool, list[float]] = defaultdict(list)
    asked: defaultdict[bool, int] = defaultdict(int)
    names = ("block_m", "block_n", "split_k")
    for shape in shapes:
        for config in dict.fromkeys(shape.domain._foremost()):
            shared = config["split_k"] != 1
            asked[shared] += 1
            alike = [all(each[name] == config[name] for name in names) for each in shape.configs]
            if any(alike):
                found[shared].append(float(shape.ratios[alike].min() / shape.ratios.min() - 1))
    for shared, losses in sorted(found.items()):
        near = sum(loss < 0.01 for loss in losses)
        what = "a split K" if shared else "a whole K"
        counts = f"{asked[shared]} shapes, recorded on {len(losses)}"
        print(f"foremost with {what}: {counts}: {near} within 1 % of the best, median loss {np.median(losses):.2%}")


def held_out(shapes: Sequence[Shape], space: SearchSpace) -> None:
    """Fit to one half of the n and k, judge on the other, both ways."""
    sizes = sorted({(shape.problem.n, shape.problem.k) for shape in shapes})
    half = set(random.Random(0).sample(sizes, len(sizes) // 2))
    for first in (True, False):
        fitted_to = [shape for shape in shapes if ((shape.problem.n, shape.problem.k) in half) is first]
        others = [shape for shape in shapes if ((shape.problem.n, shape.problem.k) in half) is not first]
        constants = fitted(fitted_to, space)
        print(constants)
        judge("as shipped, one half", others, lambda shape: shape.estimates(space, {}, range(len(shape.configs))))
        judge(
            "fitted to the other half",
            others,
            lambda shape, found=constants: shape.estimates(space, found, range(len(shape.configs))),
        )


def fitted(shapes: Sequence[Shape], space: SearchSpace) -> dict[str, int]:
    """The constants whose logarithms of estimates are nearest to those of times, but for a factor of each shape. What
    is near the best of a shape counts most."""
    draw = random.Random(0)
    chosen = [_some(shape, draw) for shape in shapes]
    logs = [np.log(shape.ratios[rows]) for shape, rows in zip(shapes, chosen, strict=True)]
    weights = [np.exp(-3 * (own - own.min())) for own in logs]
    weights = [own / np.sqrt((own**2).sum()) for own in weights]
    names = [name for name in space.estimate_constants if name != "multiply_adds_per_kilocycle"]  # sets the unit
    start = np.log([float(space.estimate_constants[name]) for name in names])

    def errors(values: np.ndarray) -> np.ndarray:
        constants = {name: max(round(float(value)), 1) for name, value in zip(names, np.exp(values), strict=True)}
        found = []
        for shape, rows, times, own in zip(shapes, chosen, logs, weights, strict=True):
            error = np.log(shape.estimates(space, constants, rows)) - times
            error -= (own**2 * error).sum() / (own**2).sum()
            found.append(np.clip(error * own, -CLIPPED, CLIPPED))
        return np.concatenate([*found, 0.02 * (values - start)])

    best = least_squares(errors, start, diff_step=0.01, max_nfev=8).x
    return {name: max(round(float(value)), 1) for name, value in zip(names, np.exp(best), strict=True)}


def _some(shape: Shape, draw: random.Random) -> list[int]:
    order = [int(row) for row in np.argsort(shape.ratios)]
    nearest, rest = order[: FITTED // 2], order[FITTED // 2 :]
    return nearest + draw.sample(rest, min(len(rest), FITTED // 2))


if __name__ == "__main__":
    main()
