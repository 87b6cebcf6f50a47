"""How one search went, trial by trial, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hktune.core.outcome import Source
from hktune.core.trial import Trial
from hktune.report.results.results import ShapeResult
from hktune.tuning.searching.cost import slowness
from hktune.tuning.searching.search_curve import SearchCurve

POINTS_MAX = 240
"""So many trials of a search are drawn. Of more, those that improved on all before them, and of the rest every few."""


@dataclass(frozen=True)
class Tried:
    """One trial: its number in the search, from 1, the id of its config, and its time over that of the search's best;
    `relative` is None where it failed, and a bound where it was left early."""

    number: int
    config_id: str
    relative: float | None
    left_early: bool = False


@dataclass(frozen=True)
class Curve:
    """The search of one shape. `tried` are the trials to draw, `best` those of them that improved on all before, and
    `first` is the first that has a time. `trials` counts all; `chance_of_gain` is that as many again find one that is
    1 % faster, None where none has a time."""

    shape: ShapeResult
    source: Source | None
    trials: int
    failed: int
    tried: Sequence[Tried]
    best: Sequence[Tried]
    first: Tried | None
    chance_of_gain: float | None


def curve_of(shape: ShapeResult) -> Curve:
    """The search of `shape`: its screened trials, in their order."""
    rows = shape.searched
    costs = _costs(rows)
    least = _least(rows, costs)
    relative = [None if math.isinf(cost) else cost / least for cost in costs]
    tried = [
        Tried(i, row.config_id[:8], value, row.left_early)
        for i, (row, value) in enumerate(zip(rows, relative, strict=True), 1)
    ]
    best, first = _improvements(tried), next((each for each in tried if each.relative is not None), None)
    found = shape.source is not None and not math.isinf(least)
    chance = SearchCurve(costs).chance_of_gain if found else None
    failed = sum(value is None for value in relative)
    return Curve(shape, shape.source, len(rows), failed, _thinned(tried, best), best, first, chance)


def _costs(rows: Sequence[Trial]) -> list[float]:
    """What each trial cost, in one unit for all: relative to the vendor's library if it was timed with every one."""
    timed = [row for row in rows if row.time_us is not None]
    if all(row.baseline_us for row in timed):
        return [slowness(row) for row in rows]
    return [math.inf if row.time_us is None else row.time_us for row in rows]


def _least(rows: Sequence[Trial], costs: Sequence[float]) -> float:
    """The cost of the search's best: of those that were not left early, where there are any."""
    timed = [cost for row, cost in zip(rows, costs, strict=True) if row.has_time]
    return min(timed or costs, default=math.inf)


def _improvements(tried: Sequence[Tried]) -> list[Tried]:
    found: list[Tried] = []
    for each in tried:
        if each.relative is None or each.left_early:
            continue
        if not found or each.relative < (found[-1].relative or 0.0):
            found.append(each)
    return found


def _thinned(tried: Sequence[Tried], best: Sequence[Tried]) -> Sequence[Tried]:
    if len(tried) <= POINTS_MAX:
        return tried
    kept = {each.number for each in (*best, *tried[:: math.ceil(len(tried) / POINTS_MAX)])}
    return [each for each in tried if each.number in kept]


def relative_costs(shape: ShapeResult) -> list[tuple[Trial, float]]:
    """The trials of the search of `shape` that have a time, each with its time over that of the search's best."""
    costs = _costs(shape.searched)
    least = _least(shape.searched, costs)
    return [(row, cost / least) for row, cost in zip(shape.searched, costs, strict=True) if not math.isinf(cost)]
