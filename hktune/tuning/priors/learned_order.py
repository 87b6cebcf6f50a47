"""A model of what makes a config slow, learned from trials of other shapes. Needs LightGBM.

What it learns is how far a time is from the space's estimate, so that it can be no more than a correction of it.
It sees what the space derives for a shape: waves, bytes, cycles, each relative to the estimate. Sizes themselves say
little of a shape that was not among those it learned from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.space import Domain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FIRST = 8
"""An order is judged by the best of its first so many configs."""

WEIGHTS = (0.5, 1.0)
"""By which the correction may be scaled. Half of it is safer where a shape is unlike those that were learned from."""

_FOLDS = 5
_ROWS_MAX = 16_000  # which are learned in about a second
_ROUNDS = 150
_SETTINGS = {
    "objective": "regression",
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "learning_rate": 0.08,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_NEAR_THE_BEST = 2.0  # a row counts by (best time / its time) to this power


@dataclass(frozen=True)
class Measured:
    """A shape that was measured before: configs that are legal in `domain`, and what each cost."""

    domain: Domain
    configs: tuple[Config, ...]
    costs: tuple[float, ...]

    @cached_property
    def features(self) -> Floats:
        """One row for each config."""
        return features(self.domain, self.configs)

    @cached_property
    def logs(self) -> Floats:
        """Natural logarithms of the costs over the least."""
        import numpy as np

        costs = np.array(self.costs)
        return np.log(costs / costs.min())  # type: ignore[no-any-return]

    def thinned(self, most: int) -> Measured:
        """The fastest half of `most` configs, and as many evenly over the others."""
        by_cost = sorted(range(len(self.costs)), key=lambda place: self.costs[place])
        half = most - most // 2
        if len(by_cost) <= most:
            return self
        rest = by_cost[half:]
        kept = by_cost[:half] + [rest[i * len(rest) // (most // 2)] for i in range(most // 2)]
        return Measured(self.domain, tuple(self.configs[i] for i in kept), tuple(self.costs[i] for i in kept))


@dataclass(frozen=True)
class Judged:
    """How orders do on shapes with an n and k that the model did not learn from, in the mean: by how much the best of
    the first FIRST configs is slower than the best of all (0.01: 1 %). `by_weight` are the model's, by how much of its
    correction is taken; `without` is that of the estimate, or of a random order."""

    by_weight: dict[float, float]
    without: float

    @property
    def weight(self) -> float:
        """That of the best order; 0 where none of the model's is better than without it."""
        best = min(self.by_weight, key=lambda weight: self.by_weight[weight])
        return best if self.by_weight[best] < self.without else 0.0


class LearnedModel:
    """The correction of the estimate, learned from `shapes`. Equal shapes give equal models."""

    def __init__(self, shapes: Sequence[Measured]) -> None:
        import lightgbm
        import numpy as np

        targets = [shape.logs - _estimated(shape.features) for shape in shapes]
        rows = lightgbm.Dataset(
            np.vstack([shape.features for shape in shapes]),
            np.concatenate([target - np.median(target) for target in targets]),
            weight=np.exp(-_NEAR_THE_BEST * np.concatenate([shape.logs for shape in shapes])),
        )
        self._booster = lightgbm.train(dict(_SETTINGS), rows, num_boost_round=_ROUNDS)

    def slowness(self, domain: Domain, configs: Sequence[Config], weight: float) -> list[float]:
        """What orders the configs of `domain`, less being faster."""
        return list(map(float, self.of_features(features(domain, configs), weight)))

    def of_features(self, rows: Floats, weight: float) -> Floats:
        """See `slowness`; by their features."""
        import numpy as np

        return _estimated(rows) + weight * np.asarray(self._booster.predict(rows), dtype=float)


def features(domain: Domain, configs: Iterable[Config]) -> Floats:
    """A row for each config; its first number is the logarithm of the space's estimate, 0 without one."""
    import numpy as np

    return np.array([_features(domain, config) for config in configs], dtype=float)


def _features(domain: Domain, config: Config) -> list[float]:
    numbers = domain.numbers(config)
    positions = [float(parameter.index(config[parameter.name])) for parameter in domain.parameters]
    if not domain.has_estimate:
        return [0.0, *positions, *(math.log2(size) for size in _problem(domain).sizes.values()), *numbers.values()]
    terms = domain.space.estimate.expressions.keys()
    estimate = max(numbers[list(terms)[-1]], 1.0)
    relative = [numbers[name] / estimate for name in terms]
    own = [numbers[name] for name in terms if name not in domain.space.derived.expressions]
    return [math.log(estimate), *positions, *relative, *own]


def _problem(domain: Domain) -> Problem:
    assert domain.problem is not None
    return domain.problem


def judge(shapes: Sequence[Measured]) -> Judged | None:
    """How the order does where no shape of the same n and k was learned from; None where all are of one."""
    folds = _folds(shapes)
    if len(folds) < 2 or all(len(shape.costs) <= FIRST for shape in shapes):
        return None
    regrets: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    without = []
    for fold in folds:
        left_out = set(map(id, fold))
        model = LearnedModel([shape for shape in shapes if id(shape) not in left_out])
        for shape in (shape for shape in fold if len(shape.costs) > FIRST):
            without.append(_regret(shape, _estimated(shape.features)))
            for weight in WEIGHTS:
                regrets[weight].append(_regret(shape, model.of_features(shape.features, weight)))
    return Judged({weight: _mean(found) for weight, found in regrets.items()}, _mean(without))


def thinned(shapes: Sequence[Measured]) -> list[Measured]:
    """The shapes with no more configs in all than can be learned from at once."""
    most = max(_ROWS_MAX // max(len(shapes), 1), 2 * FIRST)
    return [shape.thinned(most) for shape in shapes]


def _estimated(rows: Floats) -> Floats:
    return rows[:, 0]


def _folds(shapes: Sequence[Measured]) -> list[list[Measured]]:
    """The shapes in so many parts; those of one n and k are in one."""
    groups: dict[tuple[int, int], list[Measured]] = {}
    for shape in shapes:
        problem = _problem(shape.domain)
        groups.setdefault((problem.n, problem.k), []).append(shape)
    parts: list[list[Measured]] = [[] for _ in range(min(_FOLDS, len(groups)))]
    for number, key in enumerate(sorted(groups)):
        parts[number % len(parts)] += groups[key]
    return parts


def _regret(shape: Measured, slowness: Floats) -> float:
    """By how much the best of the first FIRST is slower than the best. Where all are equally slow, that of a random
    order: the mean over all ways to choose."""
    import numpy as np

    ratios = np.exp(shape.logs) - 1
    if (slowness == slowness[0]).all():
        return _random_regret(np.sort(ratios))
    return float(ratios[np.argsort(slowness, kind="stable")[:FIRST]].min())


def _random_regret(ratios: Floats) -> float:
    """The least of FIRST drawn without replacement from `ratios`, which are sorted, in the mean."""
    left, mean, none_yet = len(ratios), 0.0, 1.0
    chosen = min(FIRST, left)
    for place, ratio in enumerate(ratios):
        chance = chosen / (left - place)  # that this one is drawn, where none before it was
        mean += none_yet * min(chance, 1.0) * float(ratio)
        none_yet *= max(1 - chance, 0.0)
    return mean


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
