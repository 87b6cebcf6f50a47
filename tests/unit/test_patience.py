"""Patience ends a search that gains nothing; what it leaves goes where it is likely to pay, and is never exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from test_tuner import InOrder, Quiet, configs

from hktune.core.config import Config
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.tuning.searching.loop import LOOKAHEAD, Tuner
from hktune.tuning.searching.search_curve import SearchCurve
from hktune.tuning.searching.searches import Budget, Search

FLAT, GAINING, OTHER = Problem(128, 128, 128), Problem(256, 256, 256), Problem(512, 512, 512)


def time_us(config: Config, problem: Problem) -> float:
    """FLAT has its best first; the others get better by 2 % with each config."""
    return 100.0 if problem == FLAT else 100.0 * 0.98 ** int(config["block"])


def row(number: int, attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
    assert isinstance(outcome, Timing)
    return Trial(
        number,
        problem.m,
        problem.n,
        problem.k,
        problem.operation,
        attempt.config.id,
        attempt.config.json,
        Status.OK,
        source=Source.MODELLED,
        time_us=outcome.time_us,
    )


def tuned(
    problems: Sequence[Problem],
    budget: Budget,
    *,
    weights: Sequence[float] = (),
    share: bool = False,
    replayed: Sequence[Trial] = (),
    cost: Callable[[Config, Problem], float] = time_us,
) -> list[Trial]:
    """The rows of a run, those replayed first."""
    searches = [Search(problem, InOrder(configs(400)), lambda _: True) for problem in problems]
    for search, weight in zip(searches, weights, strict=False):
        search.weight = weight
    numbers, rows = count(len(replayed)), list(replayed)

    def record(attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial]:
        made = [row(next(numbers), attempt, problem, outcome) for problem, outcome in outcomes]
        rows.extend(made)
        return made

    tuner = Tuner(searches, InstantExecutor(), FormulaStopwatch(cost), record, budget, Quiet(), share)
    tuner.replay(replayed)
    tuner.run()
    return rows


def of(rows: Sequence[Trial], problem: Problem) -> int:
    return sum(each.problem == problem for each in rows)


@pytest.mark.parametrize("share", [False, True])
def test_a_search_that_gains_nothing_ends(share: bool) -> None:
    rows = tuned([FLAT], Budget(100, patience=20), share=share)
    assert 21 <= len(rows) < 21 + LOOKAHEAD


def test_a_search_that_gains_has_all_its_trials() -> None:
    assert of(tuned([GAINING], Budget(60, patience=5)), GAINING) == 60


def test_what_one_leaves_the_others_get_and_no_more() -> None:
    rows = tuned([FLAT, GAINING], Budget(60, patience=10))
    assert len(rows) == 120
    assert of(rows, FLAT) < 11 + LOOKAHEAD
    assert of(tuned([FLAT, GAINING], Budget(60)), FLAT) == 60, "without patience each has its own"


def test_each_has_its_floor_before_another_gets_more() -> None:
    rows = tuned([FLAT, GAINING, OTHER], Budget(40, patience=10), weights=[1, 1000, 1])
    assert len(rows) == 120
    assert of(rows, OTHER) == 30
    assert of(rows, GAINING) == 120 - 30 - of(rows, FLAT)


def test_more_goes_where_a_gain_weighs_more() -> None:
    light_first = tuned([FLAT, GAINING, OTHER], Budget(40, patience=10), weights=[1, 1, 5])
    assert of(light_first, OTHER) > of(light_first, GAINING) >= 30


def test_where_all_converge_trials_are_left() -> None:
    rows = tuned([FLAT], Budget(100, patience=3))
    assert len(rows) < 100


@pytest.mark.parametrize("stopped_after", [0, 1, 25, 70, 119])
def test_a_resumed_run_goes_on_as_if_never_stopped(stopped_after: int) -> None:
    whole = tuned([FLAT, GAINING, OTHER], Budget(40, patience=12), weights=[1, 2, 1])
    resumed = tuned([FLAT, GAINING, OTHER], Budget(40, patience=12), weights=[1, 2, 1], replayed=whole[:stopped_after])
    assert [(each.problem, each.config_id) for each in resumed] == [(each.problem, each.config_id) for each in whole]


def test_a_gain_is_one_percent_over_the_last_gain() -> None:
    curve = SearchCurve([math.inf, 100.0, 99.5, 99.1])
    assert curve.since_gain == 2
    curve.extend([98.9])
    assert curve.since_gain == 0, "small steps add up"
    curve.extend([math.inf, 98.0])
    assert curve.since_gain == 2


def test_the_chance_of_a_gain_falls_without_one() -> None:
    falling = SearchCurve([100.0, 60.0])
    chances = [falling.chance_of_gain]
    for _ in range(40):
        falling.extend([90.0])
        chances.append(falling.chance_of_gain)
    assert chances == sorted(chances, reverse=True)
    assert 0 < chances[-1] < chances[0] < 1
    assert SearchCurve([math.inf] * 5).chance_of_gain == 1.0
    assert SearchCurve([100.0, 60.0, *[90.0] * 40]).chance_of_gain == chances[-1]


def test_much_company_near_the_best_means_less_hope() -> None:
    alone = SearchCurve([100.0, 50.0, *[100.0] * 20])
    accompanied = SearchCurve([100.0, 50.0, *[51.0] * 20])
    assert accompanied.chance_of_gain < alone.chance_of_gain
