"""Configs as points: the numbers in which a model compares them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from hktune.core.config import Value
from hktune.space import Domain, Parameter

Points = npt.NDArray[np.float64]
"""One row for each config, one column for each coordinate."""

LOGARITHMIC_FROM = 4.0
"""Positive numbers whose largest is so many times the smallest are compared by their ratios."""
HALVED_FROM = 4
"""So many values make halvings a coordinate,"""
SAME = 0.95
"""unless they say the same as the numbers: so correlated is the same."""
HALVINGS_MAX = 7
ESTIMATE_SPAN = math.log(4.0)
"""Estimates a factor of 4 apart are as far from each other as the ends of a parameter."""


class Coordinates:
    """Points for the configs of a domain, mostly in the unit cube. A number has one coordinate, or the logarithm of it.
    One of many numbers has another: how often it can be halved, for hardware works in powers of two. A category, three
    or more words, has one for each word: all are equally far from each other. Where the space has an estimate, its
    logarithm is one more."""

    def __init__(self, domain: Domain) -> None:
        free = [parameter for parameter in domain.parameters if len(parameter.values) > 1]
        self._tables = [(parameter.name, *_table(parameter)) for parameter in free]
        self._domain = domain

    def of(self, configs: Iterable[Mapping[str, Value]]) -> Points:
        """Their points, in their order."""
        listed = list(configs)
        columns = [
            rows[np.array([place_of[config[name]] for config in listed], dtype=np.intp)]
            for name, place_of, rows in self._tables
        ]
        if self._domain.has_estimate:
            estimates = [math.log(max(self._domain.estimate(config), 1)) for config in listed]
            columns.append(np.array(estimates).reshape(len(listed), 1) / ESTIMATE_SPAN)
        return np.hstack([np.empty((len(listed), 0)), *columns])


def _table(parameter: Parameter) -> tuple[dict[Value, int], Points]:
    """The place of each value, and at each place its coordinates."""
    values = parameter.values
    place_of = {value: place for place, value in enumerate(values)}
    if isinstance(values[0], str) and len(values) > 2:
        return place_of, np.eye(len(values)) / math.sqrt(2)
    numbers = np.array(values if not isinstance(values[0], str) else range(len(values)), dtype=np.float64)
    halvings = np.array([_halvings(value) for value in values], dtype=np.float64)
    capped = np.minimum(halvings, HALVINGS_MAX)
    if numbers.min() > 0 and numbers.max() >= LOGARITHMIC_FROM * numbers.min():
        numbers = np.log(numbers)
    columns = [_scaled(numbers)]
    differ = len(values) >= HALVED_FROM and capped.min() < capped.max()
    if differ and abs(np.corrcoef(columns[0], halvings)[0, 1]) < SAME:
        columns.append(_scaled(capped))
    return place_of, np.stack(columns, axis=1)


def _halvings(value: Value) -> int:
    """How often an integer can be halved."""
    if not isinstance(value, int) or value == 0:
        return 0
    return (value & -value).bit_length() - 1


def _scaled(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 0 to 1."""
    return np.asarray((numbers - numbers.min()) / (numbers.max() - numbers.min()))
