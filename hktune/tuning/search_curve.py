"""How a search's best goes from trial to trial, and the chance that it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

GAIN = 0.01
"""A search gains when its best is better than that of its last gain by so much (0.01: 1 %)."""

NEAR = 0.05
"""Trials within so much of the best are near it."""

# A logistic regression of whether as many trials again gained, on the part of the trials since the last gain and the
# logarithm of how many are near the best. Fitted by benchmarks/fit_chance_of_gain.py to replayed searches on an H100
# and an H200, and to the rows of two runs.
_CONSTANT = -0.71
_SINCE_GAIN = -1.37
_LOG_NEAR = -0.54


class SearchCurve:
    """What one search found, trial by trial: `costs`, infinite where one failed, and how many came after the last
    gain."""

    def __init__(self, costs: Iterable[float] = ()) -> None:
        self.costs: list[float] = []
        self.since_gain = 0
        self._held = math.inf
        self.extend(costs)

    def extend(self, costs: Iterable[float]) -> None:
        """Add trials, in their order."""
        for cost in costs:
            self.costs.append(cost)
            self.since_gain += 1
            if cost * (1 + GAIN) < self._held:
                self._held, self.since_gain = cost, 0
        self.__dict__.pop("chance_of_gain", None)

    @cached_property
    def chance_of_gain(self) -> float:
        """That as many trials again gain; 1 where none has succeeded yet."""
        best = min(self.costs, default=math.inf)
        if math.isinf(best):
            return 1.0
        since, near = gain_features(self.costs, self.since_gain)
        return 1 / (1 + math.exp(-(_CONSTANT + _SINCE_GAIN * since + _LOG_NEAR * near)))


def gain_features(costs: list[float], since_gain: int) -> tuple[float, float]:
    """The part of the trials since the last gain, and the logarithm of how many are near the best, itself included."""
    best = min(costs)
    return since_gain / len(costs), math.log(sum(cost <= best * (1 + NEAR) for cost in costs))
