"""A search that was stopped goes on as if it had not been: the same configs, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from test_tuner import Quiet

from hktune.core.config import Config
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search import STRATEGIES, create_strategy
from hktune.space import SearchSpace, load_space
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.searches import Budget, Search

PROBLEMS = (Problem(512, 1024, 1024), Problem(256, 512, 512))
TRIALS = 30


class Stopped(Exception):
    """What a signal does to a run."""


@dataclass
class Run:
    """One run of the loop: it goes on from `rows`, adds to them, and is stopped before it has `stop_at`."""

    space: SearchSpace
    strategy: str
    share: bool
    rows: list[Trial] = field(default_factory=list)
    stop_at: int = 10_000
    seed: int = 5
    executor: InstantExecutor = field(default_factory=lambda: InstantExecutor(2, fails))

    def __post_init__(self) -> None:
        domains = {problem: self.space.domain(problem) for problem in PROBLEMS}
        searches = [
            Search(problem, create_strategy(self.strategy, domain, self.seed), domain.is_legal)
            for problem, domain in domains.items()
        ]
        budget, stopwatch = Budget(TRIALS), FormulaStopwatch(time_us)
        tuner = Tuner(searches, self.executor, stopwatch, self.record, budget, Quiet(), self.share)
        tuner.replay(self.rows)
        try:
            tuner.run()
        except Stopped:
            return

    def record(self, attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial | None]:
        if len(self.rows) + len(outcomes) > self.stop_at:
            raise Stopped
        new: list[Trial | None] = []
        for problem, outcome in outcomes:
            timed = isinstance(outcome, Timing)
            status, taken_us = (Status.OK, outcome.time_us) if timed else (outcome.status, None)
            sizes = (problem.m, problem.n, problem.k, problem.operation)
            config = attempt.config
            row = Trial(len(self.rows), *sizes, config.id, config.json, status=status, time_us=taken_us)
            self.rows.append(row)
            new.append(row)
        return new

    @property
    def sequence(self) -> list[tuple[int, str]]:
        return [(row.m, row.config_id) for row in self.rows]


def fails(config: Config) -> Failure | None:
    broken = config["order"] == "rows" and config["stages"] == 1
    return Failure(Status.COMPILE_ERROR, "made up") if broken else None


def time_us(config: Config, problem: Problem) -> float:
    area = int(config["block_m"]) * int(config["block_n"])
    return 1e6 / area + 3.0 * abs(int(config["stages"]) - 3) + problem.m / 64 * (config["order"] == "columns")


@pytest.fixture(scope="module")
def space(toy_space_path: Path) -> SearchSpace:
    return load_space(toy_space_path)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "gp"])
def test_wherever_it_stops_it_goes_on_as_if_it_had_not(space: SearchSpace, strategy: str, share: bool) -> None:
    whole = Run(space, strategy, share)
    assert len(whole.rows) >= TRIALS + 10
    for stop_at in (1, 13, 37):
        stopped = Run(space, strategy, share, stop_at=stop_at)
        resumed = Run(space, strategy, share, rows=stopped.rows)
        assert resumed.sequence == whole.sequence
        assert len(stopped.executor.submitted) + len(resumed.executor.submitted) <= len(whole.executor.submitted) + 16


@pytest.mark.slow
def test_gp_goes_on_as_if_it_had_not_stopped(space: SearchSpace) -> None:
    whole = Run(space, "gp", share=True)
    stopped = Run(space, "gp", share=True, stop_at=37)
    assert Run(space, "gp", share=True, rows=stopped.rows).sequence == whole.sequence


def test_what_has_a_row_is_not_run_again(space: SearchSpace) -> None:
    stopped = Run(space, "hillclimb", share=False, stop_at=41)
    known = {row.config_id for row in stopped.rows}
    resumed = Run(space, "hillclimb", share=False, rows=list(stopped.rows))
    again = [config.id for config in resumed.executor.submitted if config.id in known]
    assert len(again) < 10, "what one problem has a row of may be new to the other"
    keys = [(row.m, row.config_id) for row in resumed.rows]
    assert len(set(keys)) == len(keys) == 2 * TRIALS


@pytest.mark.parametrize("share", [False, True])
def test_rows_of_another_sequence_count_and_teach(space: SearchSpace, share: bool) -> None:
    """Another seed asks for something else: from then on it knows all that was found."""
    stopped = Run(space, "random", share, stop_at=40)
    before = len(stopped.rows)
    resumed = Run(space, "hillclimb", share, rows=list(stopped.rows), seed=9)
    per_problem = [sum(row.m == problem.m for row in resumed.rows) for problem in PROBLEMS]
    assert per_problem == [TRIALS, TRIALS]
    assert resumed.rows[:before] == stopped.rows
