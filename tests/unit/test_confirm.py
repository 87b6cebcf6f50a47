"""Which configs are measured again after a search, and which rows then decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from hktune.core.config import Config
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Source, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.stopwatch import Attempt, Confirmation, Side
from hktune.tables.standing import choose
from hktune.template import Templates
from hktune.tuning.confirming.confirmation import ALGORITHMS, FINALISTS, confirm, confirm_steady, deciding, finalists
from hktune.workers.gpu_worker import ContainedStopwatch

PROBLEM = Problem(256, 512, 1024)


class AllAlike:
    """Templates whose operations have each their own code."""

    def of(self, _: str | None) -> AllAlike:
        return self

    def code_operation(self, operation: Operation) -> Operation:
        return operation


TEMPLATES = cast("Templates", AllAlike())


def row(name: str, time_us: float | None, baseline_us: float = 100.0) -> Trial:
    config = Config({"name": name})
    return Trial(
        trial=0,
        m=PROBLEM.m,
        n=PROBLEM.n,
        k=PROBLEM.k,
        operation=PROBLEM.operation,
        config_id=config.id,
        config=config.json,
        status=Status.OK if time_us else Status.WRONG,
        source=Source.MEASURED if time_us else None,
        time_us=time_us,
        baseline_us=baseline_us if time_us else None,
        samples=8,
        object_sha256="0" * 64,
        relative_error=1e-3,
    )


class Again(ContainedStopwatch):
    """Confirms what it is given at a fixed ratio; remembers what that was."""

    def __init__(self, outcomes: dict[str, Timing | Failure]) -> None:
        self.outcomes = outcomes
        self.asked: list[list[str]] = []
        self.steady: list[bool] = []
        self.beside: list[list[str]] = []

    def confirm(
        self, attempts: Sequence[Attempt], problem: Problem, others: Sequence[Side] = (), steady: bool = False
    ) -> Confirmation:
        names = [str(attempt.config["name"]) for attempt in attempts]
        self.asked.append(names)
        self.steady.append(steady)
        self.beside.append([name for name, _ in others])
        return Confirmation(tuple(self.outcomes[name] for name in names), {})


def timing(time_us: float) -> Timing:
    return Timing(
        Source.MEASURED,
        time_us,
        baseline="vendor",
        baseline_us=100.0,
        vendor_best="faster way",
        vendor_best_us=80.0,
        gpu=1,
        clock_mhz=1755,
        power_w=512.25,
        throttled="power cap",
    )


def test_finalists_are_close_to_the_best_beside_the_vendor_of_their_own_rounds() -> None:
    rows = [row("lucky clock", 40.0, 44.0), row("best", 50.0), row("close", 51.0), row("far", 60.0), row("bad", None)]
    assert [trial.config_id for trial in finalists(rows)] == [rows[1].config_id, rows[2].config_id]


def test_no_more_finalists_than_a_comparison_holds() -> None:
    assert len(finalists([row(str(index), 50.0) for index in range(20)])) == FINALISTS


def test_a_config_that_failed_since_is_no_finalist() -> None:
    assert finalists([row("was good", 10.0), row("good", 50.0), row("was good", None)]) == [row("good", 50.0)]


def test_confirmed_rows_are_added_and_alone_decide() -> None:
    trials = [row("a", 50.0), row("b", 50.5), row("far", 80.0)]
    stopwatch = Again({"a": timing(52.0), "b": timing(49.0)})
    added: list[Trial] = []
    confirm(trials, [PROBLEM], TEMPLATES, stopwatch, lambda trial: added.append(trial) or trial)
    assert stopwatch.asked == [["a", "b"]]
    assert [(trial.time_us, trial.relative_error) for trial in added] == [(52.0, 1e-3), (49.0, 1e-3)]
    assert {trial.stage for trial in added} == {Stage.CONFIRMED}
    assert {(trial.vendor_best, trial.vendor_best_us) for trial in added} == {("faster way", 80.0)}
    seen = {(trial.gpu, trial.clock_mhz, trial.power_w, trial.throttled) for trial in added}
    assert seen == {(1, 1755, 512.25, "power cap")}
    assert deciding([*trials, *added]) == added


def test_where_power_held_the_clock_turns_decide_between_the_best() -> None:
    """In shared rounds "a" is the fastest. In turns of its own it is behind "b", and "c" behind the vendor."""
    trials = [row("a", 50.0), row("b", 50.5), row("c", 51.0)]
    shared = Again({"a": timing(49.0), "b": timing(50.0), "c": timing(50.1)})
    confirm(trials, [PROBLEM], TEMPLATES, shared, lambda trial: trials.append(trial) or trial)
    turns = Again({"a": timing(99.0), "b": timing(97.0), "c": timing(101.0)})
    confirm_steady(trials, [PROBLEM], TEMPLATES, turns, lambda trial: trials.append(trial) or trial)
    assert (turns.asked, turns.steady, shared.steady) == ([["a", "b", "c"]], [True], [False])
    in_turns = [(Stage.STEADY, 99.0), (Stage.STEADY, 97.0), (Stage.STEADY, 101.0)]
    assert [(trial.stage, trial.time_us) for trial in deciding(trials)] == in_turns
    [chosen] = choose(deciding(trials))
    assert chosen.trial
    assert chosen.trial.time_us == 97.0
    confirm_steady(trials, [PROBLEM], TEMPLATES, turns, lambda trial: trials.append(trial) or trial)
    assert len(turns.asked) == 1, "they are not measured again"
    trials.append(row("new", 40.0))
    assert deciding(trials) == trials, "until there is news"


@pytest.mark.parametrize("held", [None, "thermal", "power brake"])
def test_where_power_did_not_hold_the_clock_shared_rounds_decide(held: str | None) -> None:
    trials = [row("a", 50.0)]
    again = Again({"a": replace(timing(49.0), throttled=held)})
    confirm(trials, [PROBLEM], TEMPLATES, again, lambda trial: trials.append(trial) or trial)
    confirm_steady(trials, [PROBLEM], TEMPLATES, again, lambda trial: trials.append(trial) or trial)
    assert again.steady == [False]


def test_turns_in_which_all_fail_decide_nothing() -> None:
    trials = [row("a", 50.0)]
    confirm(trials, [PROBLEM], TEMPLATES, Again({"a": timing(49.0)}), lambda trial: trials.append(trial) or trial)
    lost = Again({"a": Failure(Status.CRASHED, "lost")})
    confirm_steady(trials, [PROBLEM], TEMPLATES, lost, lambda trial: trials.append(trial) or trial)
    assert [trial.status for trial in deciding(trials)] == [Status.OK, Status.CRASHED]


def test_what_is_confirmed_is_not_confirmed_again_until_there_is_news() -> None:
    stopwatch = Again({"a": timing(52.0), "new": timing(40.0)})
    trials = [row("a", 50.0)]
    confirm(trials, [PROBLEM], TEMPLATES, stopwatch, lambda trial: trials.append(trial) or trial)
    confirm(trials, [PROBLEM], TEMPLATES, stopwatch, lambda trial: trials.append(trial) or trial)
    assert stopwatch.asked == [["a"]]
    trials.append(row("new", 51.0))
    confirm(list(trials), [PROBLEM], TEMPLATES, stopwatch, lambda trial: trials.append(trial) or trial)
    assert stopwatch.asked == [["a"], ["new", "a"]]
    assert [trial.time_us for trial in deciding(trials)] == [40.0, 52.0], "the latest rounds, all of them"


def test_a_finalist_that_fails_leaves_a_row_without_a_time() -> None:
    added: list[Trial] = []
    stopwatch = Again({"a": Failure(Status.WRONG, "differs")})
    confirm([row("a", 50.0)], [PROBLEM], TEMPLATES, stopwatch, lambda trial: added.append(trial) or trial)
    [failed] = added
    assert (failed.status, failed.time_us, failed.source) == (Status.WRONG, None, None)
    assert (failed.stage, failed.detail, failed.baseline_us) == (Stage.CONFIRMED, "differs", None)


def test_where_every_finalist_fails_the_next_best_are_confirmed() -> None:
    trials = [row("a", 50.0), row("far", 80.0), row("farther", 99.0)]
    stopwatch = Again({"a": Failure(Status.CRASHED, "died"), "far": timing(81.0)})
    confirm(list(trials), [PROBLEM], TEMPLATES, stopwatch, lambda trial: trials.append(trial) or trial)
    assert stopwatch.asked == [["a"], ["far"]]
    assert [trial.time_us for trial in deciding(trials)] == [None, 81.0]


def test_problems_without_a_confirmation_are_decided_by_what_there_is() -> None:
    other = replace(row("x", 5.0), m=1)
    assert deciding([row("a", 50.0), other]) == [row("a", 50.0), other]


def algorithm(name: str, time_us: float) -> Trial:
    """The row of an algorithm that a library names."""
    named = VendorAlgorithm("cublasLt", "130100", "0a", name)
    return replace(row("", time_us), config=named.config.json, config_id=named.config.id, library=named.library)


def test_kernels_near_the_best_kernel_are_finalists_however_fast_the_vendor_is() -> None:
    """So rows say how fast kernels are without the vendor's algorithms, in the same rounds."""
    kernels, algorithms = [row("a", 90.0), row("b", 91.0), row("c", 99.0)], [algorithm(f"{i}", 50.0) for i in range(6)]
    found = finalists([*kernels, *algorithms, algorithm("slow", 60.0)])
    assert [each.config_id for each in found if each.is_kernel] == [each.config_id for each in kernels[:2]]
    assert len([each for each in found if not each.is_kernel]) == ALGORITHMS


def test_the_vendors_fastest_are_in_the_rounds_and_those_of_another_version_are_not() -> None:
    fast, older = algorithm("fast", 95.0), algorithm("older", 94.0)
    again = Again({"a": timing(50.0), "fast": timing(49.0)})
    named = {PROBLEM: {fast.config_id}}
    rows = [row("a", 50.0), fast, older]
    confirm(list(rows), [PROBLEM], TEMPLATES, again, lambda trial: rows.append(trial) or trial, named=named)
    assert again.asked == [["a", "fast"]]
    assert [(each.library, each.time_us) for each in deciding(rows)] == [(None, 50.0), ("cublasLt", 49.0)]
    [chosen] = choose(deciding(rows))
    assert chosen.trial
    assert chosen.trial.library == "cublasLt", "screened at twice the time, it is the best of the rounds that count"


def test_where_every_kernel_fails_the_next_best_are_confirmed_though_an_algorithm_is_right() -> None:
    rows = [row("a", 50.0), row("far", 80.0), algorithm("slow", 99.0)]
    again = Again({"a": Failure(Status.CRASHED, "died"), "far": timing(81.0), "slow": timing(99.0)})
    named = {PROBLEM: {rows[2].config_id}}
    confirm(list(rows), [PROBLEM], TEMPLATES, again, lambda trial: rows.append(trial) or trial, named=named)
    assert again.asked == [["a", "slow"], ["far", "slow"]]


def test_half_of_the_places_are_for_kernels_unlike_the_fastest() -> None:
    """Eight orders of one tile within 1 %, and two other tiles 4 and 7 % behind: under load one of these may win."""

    def config_row(time_us: float, **values: int) -> Trial:
        config = Config(values)
        return replace(row("x", time_us), config_id=config.id, config=config.json)

    one = [config_row(10 + i / 100, block=64, wide=64, deep=1, group=i % 4, stages=i // 4) for i in range(8)]
    others = [
        config_row(10.4, block=128, wide=32, deep=2, group=0, stages=0),
        config_row(10.7, block=32, wide=16, deep=4, group=0, stages=0),
        config_row(11.0, block=16, wide=8, deep=8, group=0, stages=0),
    ]
    found = finalists([*one, *others])
    assert len(found) == FINALISTS
    assert [trial.config_id for trial in found[:3]] == [trial.config_id for trial in one[:3]]
    assert {trial.config_id for trial in others[:2]} < {trial.config_id for trial in found}
    assert others[2].config_id not in {trial.config_id for trial in found}
    assert [trial.time_us for trial in found] == sorted(trial.time_us or 0 for trial in found)
