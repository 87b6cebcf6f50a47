"""Strategies in another process choose what they would have chosen here."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hktune.core.config import Config
from hktune.core.errors import MachineError
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.search import Cost, Outcome, Strategy, create_strategy
from hktune.space import load_space
from hktune.tuning.searching.searches import Search
from hktune.tuning.searching.strategies_apart import StrategiesApart

PROBLEMS = [Problem(512, 1024, 1024), Problem(512, 512, 256)]


class Dying:
    """A strategy that takes its process with it."""

    name = "dying"

    def ask(self, n: int) -> list[Config]:
        os._exit(7)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        pass


def searches(space: Path) -> list[Search]:
    domains = {problem: load_space(space).domain(problem) for problem in PROBLEMS}
    return [
        Search(problem, create_strategy("tpe", domain, 3), domain.is_legal, {"tried before"})
        for problem, domain in domains.items()
    ]


@pytest.fixture
def apart(toy_space_path: Path) -> Iterator[list[Search]]:
    process = StrategiesApart(searches(toy_space_path))
    yield process.searches
    process.close()


def run(strategy: Strategy) -> list[str]:
    """What it asks for, told of some times and a failure."""
    asked: list[Config] = []
    for step in range(15):
        configs = strategy.ask(2)
        asked += configs
        strategy.tell([Outcome(configs[0], Status.OK, Cost(1.0 + step % 4)), Outcome(configs[1], Status.WRONG)])
    return [config.id for config in asked]


def test_the_same_searches_with_the_same_choices(apart: list[Search], toy_space_path: Path) -> None:
    here = searches(toy_space_path)
    assert [(each.problem, each.tried, each.strategy.name) for each in apart] == [
        (each.problem, each.tried, "tpe") for each in here
    ]
    assert [run(each.strategy) for each in apart] == [run(each.strategy) for each in here]


def test_a_process_that_dies_of_a_question_is_an_error_that_says_so(toy_space_path: Path) -> None:
    [search, _] = searches(toy_space_path)
    search.strategy = Dying()
    process = StrategiesApart([search])
    with pytest.raises(MachineError, match=r"died twice \(the worker died with exit code 7\)"):
        process.searches[0].strategy.ask(1)
    process.close()


def test_a_process_that_was_killed_is_replaced_and_chooses_the_same(toy_space_path: Path) -> None:
    process = StrategiesApart(searches(toy_space_path))
    strategy = process.searches[0].strategy
    here = searches(toy_space_path)[0].strategy
    asked = []
    for step in range(8):
        configs = strategy.ask(1)
        asked += [(config.id, here_config.id) for config, here_config in zip(configs, here.ask(1), strict=True)]
        for each in (strategy, here):
            each.tell([Outcome(configs[0], Status.OK, Cost(1.0 + step % 3))])
        if step in (2, 5):
            os.kill(process.pid, signal.SIGKILL)
    assert [there for there, _ in asked] == [config_id for _, config_id in asked]
    process.close()
