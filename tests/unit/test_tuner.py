"""The loop, on a fake executor and a fake stopwatch: budgets, sharing, failures, replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from fakes import FormulaStopwatch, InstantExecutor, LastFirstExecutor

from hktune.core.config import Config
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search.strategy import Cost, CostName, Outcome
from hktune.tuning.searching.cost import cost_of
from hktune.tuning.searching.loop import LOOKAHEAD, Tuner
from hktune.tuning.searching.searches import Budget, Search

SMALL, LARGE = Problem(128, 128, 128), Problem(256, 256, 256)


class InOrder:
    """A strategy that goes through a list and remembers what it was told."""

    name = "in order"

    def __init__(self, configs: Sequence[Config]) -> None:
        self._left = list(configs)
        self.told: list[Outcome] = []

    def ask(self, n: int) -> list[Config]:
        known = {outcome.config for outcome in self.told}
        self._left = [config for config in self._left if config not in known]
        asked, self._left = self._left[:n], self._left[n:]
        return asked

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self.told += outcomes


def block_plus_m(config: Config, problem: Problem) -> float:
    """The time of a config, in us: other for each block and each m."""
    return float(int(config["block"]) + problem.m)


class Quiet:
    def working(self, variants: int) -> None: ...

    def recorded(self, trial: Trial) -> None: ...


def configs(count: int) -> list[Config]:
    return [Config({"block": block}) for block in range(count)]


def search(problem: Problem, candidates: Sequence[Config], legal: Callable[[Config], bool] = lambda _: True) -> Search:
    return Search(problem, InOrder(candidates), legal)


def run(
    searches: Sequence[Search],
    budget: Budget,
    outcome: Callable[[Config], Failure | None] = lambda _: None,
    replayed: Sequence[Trial] = (),
    executor_type: type[InstantExecutor] = InstantExecutor,
    share: bool = True,
) -> tuple[list[Trial], InstantExecutor]:
    rows: list[Trial] = []

    def record(attempt: Attempt, problem: Problem, result: Timing | Failure) -> Trial:
        timed = isinstance(result, Timing)
        rows.append(
            Trial(
                trial=len(rows),
                m=problem.m,
                n=problem.n,
                k=problem.k,
                operation=problem.operation,
                config_id=attempt.config.id,
                config=attempt.config.json,
                status=Status.OK if timed else result.status,
                time_us=result.time_us if timed else None,
            )
        )
        return rows[-1]

    def record_all(attempt: Attempt, results: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial | None]:
        return [record(attempt, problem, result) for problem, result in results]

    executor = executor_type(2, outcome)
    tuner = Tuner(searches, executor, FormulaStopwatch(block_plus_m), record_all, budget, Quiet(), share)
    tuner.replay(replayed)
    tuner.run()
    return rows, executor


def test_one_proof_serves_every_problem_it_is_legal_for() -> None:
    shared = configs(6)
    searches = [search(SMALL, shared), search(LARGE, shared)]
    rows, executor = run(searches, Budget(trials=100))
    assert len(executor.submitted) == 6
    assert sorted((row.m, row.time_us) for row in rows) == sorted(
        (problem.m, block + problem.m) for problem in (SMALL, LARGE) for block in range(6)
    )


def test_a_problem_for_which_less_is_legal_leaves_the_others_their_turns() -> None:
    own, others = configs(24), configs(64)[24:]
    small, large = search(SMALL, own), search(LARGE, others, lambda config: config not in own)
    rows, _ = run([small, large], Budget(trials=24))
    asked = [Config.from_json(row.config) in own for row in rows if row.m == SMALL.m]
    assert len(asked) == 24
    assert sum(asked) >= 12, "what the large one asks for is tried on both, and it has always tried less"


def test_without_sharing_a_problem_is_timed_on_what_it_asked_for() -> None:
    few, many = configs(10)[:3], configs(10)[2:]
    rows, executor = run([search(SMALL, few), search(LARGE, many)], Budget(trials=100), share=False)
    assert {row.config for row in rows if row.m == SMALL.m} == {config.json for config in few}
    assert {row.config for row in rows if row.m == LARGE.m} == {config.json for config in many}
    assert len(executor.submitted) == 10, "what both asked for is proved once"


def test_without_sharing_every_problem_spends_its_budget() -> None:
    rows, _ = run([search(SMALL, configs(50)), search(LARGE, configs(90)[40:])], Budget(trials=20), share=False)
    assert [sum(row.m == problem.m for row in rows) for problem in (SMALL, LARGE)] == [20, 20]


def test_operations_with_other_code_share_no_proof_and_no_time() -> None:
    """Both ask for the same configs: each is compiled once for each code, and told to its own problem alone."""
    shared, f16 = configs(4), Operation("f16")
    other = replace(search(replace(SMALL, operation=f16), shared), operation=f16)
    rows, executor = run([search(SMALL, shared), search(LARGE, shared), other], Budget(trials=100))
    assert len(executor.submitted) == 2 * len(shared)
    problems = [(row.m, str(row.problem.operation)) for row in rows]
    assert sorted(problems) == sorted(4 * [(SMALL.m, "bf16.nt"), (LARGE.m, "bf16.nt"), (SMALL.m, "f16.nt")])


def test_a_strategy_is_told_times_relative_to_the_baseline_beside_them() -> None:
    [row], _ = run([search(SMALL, configs(1))], Budget(trials=1))
    assert cost_of(row) == Cost(SMALL.m, CostName.TIME_US)
    wide = replace(row, time_us=30.0, time_us_low=28.0, time_us_high=36.0)
    assert cost_of(wide) == Cost(30.0, CostName.TIME_US), "what a model may be wrong by is no noise between configs"
    beside = replace(wide, source=Source.MEASURED, baseline_us=40.0)
    assert cost_of(beside) == Cost(0.75, CostName.TIME_OVER_BASELINE, low=0.7, high=0.9)
    assert cost_of(replace(row, time_us=None)) is None


def test_a_config_illegal_for_a_problem_never_becomes_its_trial() -> None:
    even = search(SMALL, configs(6)[::2], legal=lambda config: int(config["block"]) % 2 == 0)
    rows, _ = run([even, search(LARGE, configs(6))], Budget(trials=100))
    assert {row.config for row in rows if row.m == SMALL.m} == {config.json for config in configs(6)[::2]}


def test_the_trial_budget_holds_for_each_problem() -> None:
    rows, executor = run([search(SMALL, configs(50)), search(LARGE, configs(50))], Budget(trials=7))
    assert [sum(row.m == problem.m for row in rows) for problem in (SMALL, LARGE)] == [7, 7]
    assert len(executor.submitted) == 7


def test_no_time_no_trials() -> None:
    rows, _ = run([search(SMALL, configs(5))], Budget(trials=100, time_s=0.0))
    assert rows == []


def test_failures_are_recorded_and_told() -> None:
    failing = search(SMALL, configs(30))
    rows, _ = run([failing], Budget(trials=30), lambda _: Failure(Status.WRONG, "bad"))
    assert [row.status for row in rows] == [Status.WRONG] * 30
    assert isinstance(failing.strategy, InOrder)
    assert [outcome.cost for outcome in failing.strategy.told] == [None] * (30 - LOOKAHEAD)
    assert [row.time_us for row in failing.untold] == [None] * LOOKAHEAD, "it is not asked any more"


def test_a_replayed_trial_is_told_and_not_run_again() -> None:
    first, _ = run([search(SMALL, configs(3))], Budget(trials=3))
    again = search(SMALL, configs(5 + LOOKAHEAD))
    rows, executor = run([again], Budget(trials=5 + LOOKAHEAD), replayed=first)
    assert [config["block"] for config in executor.submitted] == list(range(3, 5 + LOOKAHEAD))
    assert len(rows) == 2 + LOOKAHEAD
    assert isinstance(again.strategy, InOrder)
    assert again.strategy.told[0].cost == Cost(SMALL.m)


def test_what_is_told_does_not_depend_on_what_finishes_first() -> None:
    told = []
    for executor_type in (InstantExecutor, LastFirstExecutor):
        searched = search(SMALL, configs(20))
        run([searched, search(LARGE, configs(30)[10:])], Budget(trials=25), executor_type=executor_type)
        assert isinstance(searched.strategy, InOrder)
        told.append(searched.strategy.told)
    assert told[0] == told[1]
    assert len(told[0]) > 10


def test_a_strategy_hears_of_all_that_was_found_before_it_is_asked() -> None:
    """What the asks see is what they would have seen had each outcome been told at once."""
    seen: list[tuple[int, int]] = []

    class Counting(InOrder):
        def ask(self, n: int) -> list[Config]:
            seen.append((len(self.told), len(searched.tried)))
            return super().ask(n)

    searched = Search(SMALL, Counting(configs(30)), lambda _: True)
    first, _ = run([search(SMALL, configs(5))], Budget(trials=5))
    run([searched, search(LARGE, configs(30)[10:])], Budget(trials=30), replayed=first)
    assert len(seen) > 3
    assert all(told == tried for told, tried in seen)


def test_searches_whose_budget_is_spent_hear_nothing() -> None:
    """Of thousands of shapes resumed, only those that go on cost their strategy's time and memory."""
    first, _ = run([search(SMALL, configs(5)), search(LARGE, configs(5))], Budget(trials=5))
    small, large = search(SMALL, configs(9)), search(LARGE, configs(9))
    run([small, large], Budget(trials=5), replayed=first)
    for each in (small, large):
        assert isinstance(each.strategy, InOrder)
        assert each.strategy.told == []
        assert len(each.untold) == len(each.tried) == 5


class Watched(set[str]):
    """Ids that count how often their number is asked for."""

    looked = 0

    def __len__(self) -> int:
        Watched.looked += 1
        return super().__len__()


@pytest.mark.parametrize("shapes", [50, 400])
def test_who_is_asked_next_is_found_without_looking_at_every_shape(shapes: int) -> None:
    problems = [Problem(m, 128, 128) for m in range(1, shapes + 1)]
    searches = [Search(problem, InOrder(configs(3)), lambda _: True, tried=Watched()) for problem in problems]
    Watched.looked = 0
    rows, _ = run(searches, Budget(trials=3), share=False)
    assert sorted((row.m, row.config_id) for row in rows) == sorted(
        (problem.m, config.id) for problem in problems for config in configs(3)
    )
    assert Watched.looked < 20 * len(rows)
