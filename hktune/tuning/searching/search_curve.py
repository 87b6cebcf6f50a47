"""How a search's best goes from trial to trial, and the chance that it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

GAIN = 0.01
"""A search gains when its best is better than that of its last gain by so much (0.01: 1 %)."""

NEAR = 0.03
"""Trials within so much of the best are near it. What is slower by more is left early on a GPU, and has no time."""

FADES = 0.7
"""In the logarithm of the number of trials, what a gain says of the next ones fades by a factor of e in so much."""

_GAINS_BEFORE, _TIME_BEFORE = 0.3, 1.0
"""What is believed of the rate of gains before any trial: so many gains in so much of that logarithm."""

# A logistic regression of whether as many trials again gained, on the logarithm of the rate of gains and of how many
# trials are near the best. Fitted by benchmarks/fit_chance_of_gain.py.
_CONSTANT = 0.54
_LOG_RATE = 0.98
_LOG_NEAR = -0.82


class SearchCurve:
    """What one search found, trial by trial: `costs`, infinite where one failed or is a bound, and how many came after
    the last gain."""

    def __init__(self, costs: Iterable[float] = ()) -> None:
        self.costs: list[float] = []
        self.since_gain = 0
        self._held = math.inf
        self._gained_at: list[int] = []
        self.extend(costs)

    def extend(self, costs: Iterable[float]) -> None:
        """Add trials, in their order."""
        for cost in costs:
            self.costs.append(cost)
            self.since_gain += 1
            if cost * (1 + GAIN) < self._held:
                if not math.isinf(self._held):
                    self._gained_at.append(len(self.costs))
                self._held, self.since_gain = cost, 0
        self.__dict__.pop("chance_of_gain", None)

    @cached_property
    def chance_of_gain(self) -> float:
        """That as many trials again gain; 1 where none has succeeded yet."""
        if math.isinf(self._held):
            return 1.0
        return chance(*self.features)

    @property
    def features(self) -> tuple[float, float]:
        """The logarithms of the rate of gains, and of how many trials are near the best, itself included.

        Gains are like records, which come at an even pace in the logarithm of the number of trials. The rate is per
        unit of that logarithm, and the latest count most.
        """
        trials = len(self.costs)
        gains = sum((at / trials) ** (1 / FADES) for at in self._gained_at)
        time = FADES * (1 - trials ** (-1 / FADES))
        limit = min(self.costs) * (1 + NEAR)
        near = sum(cost <= limit for cost in self.costs)
        return math.log((_GAINS_BEFORE + gains) / (_TIME_BEFORE + time)), math.log(near)


def chance(log_rate: float, log_near: float) -> float:
    """That as many trials again gain, by a curve's `features`."""
    return 1 / (1 + math.exp(-(_CONSTANT + _LOG_RATE * log_rate + _LOG_NEAR * log_near)))
