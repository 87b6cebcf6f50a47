"""Searches replayed on recordings: what a run would have asked, in what order, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from ragged_space import ragged_recording

from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.search import STRATEGIES, Outcome, create_strategy
from hktune.store.recordings import Recording
from hktune.tuning.simulation import Replay, replay


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return ragged_recording(tmp_path_factory.mktemp("ragged"))


class InOrder:
    """Asks what it is given, and remembers how much it knew at each ask."""

    name = "in order"

    def __init__(self, configs: Sequence[Config]) -> None:
        self._left = list(configs)
        self.known = 0
        self.knew: list[int] = []

    def ask(self, n: int) -> list[Config]:
        self.knew.append(self.known)
        asked, self._left = self._left[:n], self._left[n:]
        return asked

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self.known += len(outcomes)


def test_costs_are_those_recorded_in_the_order_asked(ragged: Recording) -> None:
    asked = list(reversed(ragged.configs))[:40]
    found = replay(ragged, InOrder(asked), trials=40, in_flight=8)
    times = {row.config_id: row.time_us for row in ragged.rows}
    assert found.costs == tuple(times[config.id] or math.inf for config in asked)
    assert math.inf in found.costs, "failures are trials too"
    assert found.best == min(time for time in times.values() if time)
    assert found.asks == 40


@pytest.mark.parametrize("in_flight", [1, 3, 8, 20])
def test_so_many_are_on_their_way_when_the_next_is_asked_for(ragged: Recording, in_flight: int) -> None:
    strategy = InOrder(ragged.configs)
    replay(ragged, strategy, trials=60, in_flight=in_flight)
    assert strategy.knew == [max(0, asked - in_flight + 1) for asked in range(60)]


def test_a_search_ends_with_its_space(ragged: Recording) -> None:
    found = replay(ragged, create_strategy("random", ragged.domain, 0), trials=10_000, in_flight=8)
    assert len(found.costs) == len(ragged.rows)
    assert found.share(10_000) == 1.0


def test_shares_and_trials_are_as_one_counts_by_hand() -> None:
    found = Replay((math.inf, 40.0, 20.2, 30.0, 20.0), best=20.0, asks=5, asking_s=0.01)
    assert [found.share(trials) for trials in range(7)] == pytest.approx(
        [0.0, 0.0, 0.5, 20 / 20.2, 20 / 20.2, 1.0, 1.0]
    )
    assert (found.trials_to(0.01), found.trials_to(0.005), found.trials_to(0.02)) == (3, 5, 3)
    assert Replay((30.0,), 20.0, 1, 0.0).trials_to(0.02) is None
    assert found.ms_per_ask == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["random", "hillclimb", "tpe"])
def test_it_asks_what_a_run_asks(toy_space_path: Path, name: str) -> None:
    """The same strategy in the run's own loop, with a device that takes the recorded times."""
    from hktune.space import load_space
    from hktune.tuning.searching.loop import Tuner
    from hktune.tuning.searching.progress import SILENT
    from hktune.tuning.searching.searches import Budget, Search

    problem = Problem(512, 1024, 1024)
    legal = list(load_space(toy_space_path).domain(problem).enumerate())
    rows = [
        Trial(n, 512, 1024, 1024, problem.operation, config.id, config.json, Status.OK, time_us=float(n * 37 % 101 + 1))
        for n, config in enumerate(legal)
    ]
    recording = Recording("toy", tuple(rows))
    times = {row.config_id: row.time_us or 0.0 for row in rows}
    asked: list[Trial] = []

    def record(attempt, outcomes):  # type: ignore[no-untyped-def]
        asked.append(next(row for row in rows if row.config_id == attempt.config.id))
        return [asked[-1]]

    domain = recording.domain
    Tuner(
        [Search(problem, create_strategy(name, domain, 4), domain.is_legal)],
        InstantExecutor(),
        FormulaStopwatch(lambda config, _: times[config.id]),
        record,
        Budget(50),
        SILENT,
        share=False,
    ).run()
    simulated = replay(recording, create_strategy(name, domain, 4), trials=50, in_flight=8)
    assert simulated.costs == tuple(times[row.config_id] for row in asked)


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"gp"}))
def test_equal_seeds_give_equal_replays(ragged: Recording, name: str) -> None:
    first, second = (
        replay(ragged, create_strategy(name, ragged.domain, 5), trials=25, in_flight=4).costs for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 1
