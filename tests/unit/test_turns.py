"""How a run's trials are shared out among its shapes, and what one shape is given that was fast on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from test_patience import FLAT, GAINING, OTHER, of, row, time_us, tuned
from test_tuner import InOrder, Quiet, configs

from hktune.core.config import Config
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.tuning.searching.lessons import EVERY, FIRST, Lessons
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.searching.turns import FLOOR, Turns


def searches(*problems: Problem) -> list[Search]:
    return [Search(problem, InOrder(configs(400)), lambda _: True) for problem in problems]


@pytest.mark.parametrize("trials", [1, 2, 3, 40])
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1000, 1)])
def test_each_has_its_floor_and_in_all_there_are_as_many_as_asked_for(trials: int, weights: tuple[float, ...]) -> None:
    rows = tuned([FLAT, GAINING, OTHER], Budget(trials), weights=weights)
    assert len(rows) == 3 * trials
    assert all(of(rows, problem) >= int(FLOOR * trials) for problem in (FLAT, GAINING, OTHER))


def test_what_gains_nothing_has_no_more_than_its_floor() -> None:
    rows = tuned([FLAT, GAINING], Budget(60), weights=[1, 4])
    assert of(rows, FLAT) == 45
    assert of(rows, GAINING) == 75


def test_more_goes_where_a_gain_weighs_more() -> None:
    """Both gain alike."""
    rows = tuned([GAINING, OTHER], Budget(60), weights=[1, 8])
    assert of(rows, GAINING) == 45
    assert of(rows, OTHER) == 75


def test_where_all_matter_as_much_each_has_its_own() -> None:
    rows = tuned([FLAT, GAINING], Budget(60), weights=[7, 7])
    assert of(rows, FLAT) == of(rows, GAINING) == 60


def test_one_shape_alone_has_all_its_trials() -> None:
    assert len(tuned([FLAT], Budget(60))) == 60


def test_an_exhausted_search_leaves_nothing() -> None:
    few, many = searches(FLAT, GAINING)
    few.strategy, few.configs = InOrder(configs(5)), 5
    turns, asked = Turns([few, many], Budget(20), even=False), Counter[Problem]()
    while search := turns.next(0):
        found = search.strategy.ask(1)
        search.exhausted = not found
        search.in_flight += len(found)
        asked[search.problem] += len(found)
        turns.enter([few, many].index(search))
    assert asked == {FLAT: 5, GAINING: 20}


def test_shapes_take_turns_so_that_each_strategy_knows_all_of_its_own() -> None:
    asked = [search.problem for search in first_asked(searches(FLAT, GAINING, OTHER), 9)]
    assert asked == [FLAT, GAINING, OTHER] * 3


def first_asked(of: Sequence[Search], number: int) -> list[Search]:
    turns, asked = Turns(of, Budget(50), even=False), []
    for _ in range(number):
        search = turns.next(0)
        assert search is not None
        search.in_flight += 1
        turns.enter(of.index(search))
        asked.append(search)
    return asked


@pytest.mark.parametrize("stopped_after", [1, 30, 75, 119])
def test_a_resumed_run_shares_out_and_learns_as_if_never_stopped(stopped_after: int) -> None:
    whole = tuned([FLAT, GAINING, OTHER], Budget(40), weights=[1, 2, 1])
    resumed = tuned([FLAT, GAINING, OTHER], Budget(40), weights=[1, 2, 1], replayed=whole[:stopped_after])
    assert [(each.problem, each.config_id) for each in resumed] == [(each.problem, each.config_id) for each in whole]


def heard(problem: Problem, *costs: tuple[int, float], left_early: bool = False) -> list[Trial]:
    attempts = [(Attempt(Config({"block": block})), cost) for block, cost in costs]
    rows = [row(0, attempt, problem, Timing(Source.MODELLED, cost)) for attempt, cost in attempts]
    return [replace(each, left_early=left_early) for each in rows]


def given(lessons: Lessons, search: Search) -> list[int]:
    """What the first of the searches is told to try, in order."""
    blocks = []
    for search.asked in range(FIRST + 40 * EVERY):
        config = lessons.next_for(0)
        if config is not None:
            assert search.asked >= FIRST
            assert search.asked % EVERY == 0
            blocks.append(int(config["block"]))
    return blocks


def test_the_fastest_of_the_nearest_shapes_come_first() -> None:
    own, far, near = searches(Problem(128, 128, 128), Problem(4096, 128, 128), Problem(256, 128, 128))
    lessons = Lessons([own, far, near])
    lessons.heard(1, heard(far.problem, (1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)))
    lessons.heard(2, heard(near.problem, (3, 5.0), (6, 4.0), (7, 9.0)))
    lessons.heard(2, heard(near.problem, (8, 1.0), left_early=True))
    assert given(lessons, own) == [6, 4, 3, 7, 2]


def test_what_was_tried_or_is_illegal_or_of_another_template_is_not_given() -> None:
    own, other, foreign = searches(Problem(128, 128, 128), Problem(256, 128, 128), Problem(512, 128, 128))
    own.tried.add(Config({"block": 6}).id)
    own.legal = lambda config: config["block"] != 5
    foreign.template = "2" * 64
    lessons = Lessons([own, other, foreign])
    lessons.heard(1, heard(other.problem, (5, 1.0), (6, 2.0), (7, 3.0)))
    lessons.heard(2, heard(foreign.problem, (8, 1.0)))
    assert given(lessons, own) == [7]


def test_a_run_tries_on_one_shape_what_was_fast_on_another() -> None:
    """One strategy of two comes upon the best config late, the other early."""
    early, late = searches(GAINING, OTHER)
    early.strategy = InOrder(configs(400)[::-1])
    rows: list[Trial] = []

    def record(attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial]:
        made = [row(len(rows), attempt, problem, outcome) for problem, outcome in outcomes]
        rows.extend(made)
        return made

    Tuner([early, late], InstantExecutor(), FormulaStopwatch(time_us), record, Budget(40), Quiet(), share=False).run()
    own = [Config.from_json(each.config)["block"] for each in rows if each.problem == OTHER]
    best = configs(400)[-1]["block"]
    assert own.index(best) == FIRST, "the first ask that is for what was fast elsewhere"
