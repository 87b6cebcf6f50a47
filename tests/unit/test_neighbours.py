"""Winners meet their neighbours in m: what is asked for, of whom, and under which name it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from fakes import FormulaStopwatch, InstantExecutor

from hktune.core.config import Config
from hktune.core.operation import BF16_NT, Operation
from hktune.core.outcome import Failure, Source, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import Attempt, Confirmation, Side
from hktune.space import Spaces
from hktune.tables import cross_trials
from hktune.tuning.benches.emulated_bench import OpenEmulatedBench
from hktune.tuning.benches.gpu_bench import OpenGpuBench
from hktune.tuning.confirming.confirmation import deciding
from hktune.tuning.confirming.neighbours import time_neighbours
from hktune.workers.executor import Executor
from hktune.workers.gpu_worker import ContainedStopwatch

FAMILY = [Problem(m, 512, 1024) for m in (16, 64, 256)]
ELSEWHERE = Problem(64, 4096, 4096)
WINNERS = {16: "narrow", 64: "middle", 256: "wide"}
ILLEGAL = ("wide", 64)


class AllAlike:
    """A template whose operations have each their own code."""

    sha256 = None

    def code_operation(self, operation: Operation) -> Operation:
        return operation

    def of(self, _: str | None) -> AllAlike:
        return self


class Lenient:
    """A space in which one config is illegal for one m."""

    template = AllAlike()

    @property
    def templates(self) -> AllAlike:
        return self.template

    def of(self, _: str | None) -> Lenient:
        return self

    def is_legal(self, config: Mapping[str, Any], problem: Problem) -> bool:
        return (config["name"], problem.m) != ILLEGAL


LENIENT = cast("Spaces", Lenient())


def row(name: str, problem: Problem, source: Source, stage: Stage) -> Trial:
    config = Config({"name": name})
    return Trial(
        0, problem.m, problem.n, problem.k, problem.operation, config.id, config.json, Status.OK, stage, source=source,
        time_us=10.0, baseline_us=12.0 if source is Source.MEASURED else None, object_sha256="0" * 64,
    )  # fmt: skip


def searched(source: Source, stage: Stage) -> list[Trial]:
    """Each shape has its winner; "middle" has won on a shape of other n and k too, and last."""
    return [row(WINNERS[problem.m], problem, source, stage) for problem in FAMILY] + [
        row("middle", ELSEWHERE, source, stage)
    ]


class Together(ContainedStopwatch):
    """Measures by a table of times; remembers who shared rounds."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[str]]] = []
        self.objects: dict[Operation, set[str | None]] = {}

    def confirm(
        self, attempts: Sequence[Attempt], problem: Problem, others: Sequence[Side] = (), steady: bool = False
    ) -> Confirmation:
        self.objects.setdefault(problem.operation, set()).update(attempt.object_sha256 for attempt in attempts)
        names = [str(attempt.config["name"]) for attempt in attempts]
        self.asked.append((problem.m, names))
        times = [10.0 if name == WINNERS[problem.m] else 11.0 for name in names]
        measured = (Timing(Source.MEASURED, time, baseline="vendor", baseline_us=12.0) for time in times)
        return Confirmation(tuple(measured), {})


def meetings(rows: Sequence[Trial]) -> list[tuple[str, int, int]]:
    return sorted((Config.from_json(each.config)["name"], each.m, each.n) for each in rows)


EXPECTED = [("middle", 16, 512), ("middle", 256, 512), ("narrow", 64, 512)]


def test_on_a_gpu_a_winner_shares_rounds_with_the_shapes_own_best() -> None:
    stopwatch, rows = Together(), searched(Source.MEASURED, Stage.CONFIRMED)
    before = len(rows)
    work = OpenGpuBench(cast("Executor", None), stopwatch)
    time_neighbours(LENIENT, [*FAMILY, ELSEWHERE], work, lambda: rows, never, lambda trial: rows.append(trial) or trial)
    assert stopwatch.asked == [(64, ["middle", "narrow"]), (16, ["narrow", "middle"]), (256, ["wide", "middle"])]
    assert {trial.stage for trial in rows[before:]} == {Stage.NEIGHBOUR}
    assert meetings(rows[before:]) == sorted([*EXPECTED, ("middle", 64, 512), ("narrow", 16, 512), ("wide", 256, 512)])
    assert [Config.from_json(winner.config)["name"] for winner, _ in cross_trials(rows)] == ["wide"], (
        "all but the illegal one have met"
    )


def test_a_winner_goes_to_its_neighbours_as_the_code_of_their_operation() -> None:
    f16 = Operation("f16")
    rows = searched(Source.MEASURED, Stage.CONFIRMED)
    rows += [replace(row, operation=f16, object_sha256="f" * 64) for row in rows]
    stopwatch, problems = Together(), [row.problem for row in rows]
    work = OpenGpuBench(cast("Executor", None), stopwatch)
    time_neighbours(LENIENT, problems, work, lambda: rows, never, lambda trial: rows.append(trial) or trial)
    assert stopwatch.objects == {BF16_NT: {"0" * 64}, f16: {"f" * 64}}


def test_where_time_is_modelled_each_is_proved_once_and_timed_alone() -> None:
    rows = searched(Source.MODELLED, Stage.SCREENED)
    before = len(rows)

    def record(attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        assert isinstance(outcome, Timing)
        made = row(str(attempt.config["name"]), problem, outcome.source, Stage.NEIGHBOUR)
        rows.append(replace(made, time_us=outcome.time_us))
        return rows[-1]

    work = OpenEmulatedBench(InstantExecutor(), FormulaStopwatch())
    time_neighbours(LENIENT, FAMILY, work, lambda: rows, record, lambda trial: trial)
    assert meetings(rows[before:]) == EXPECTED
    assert {trial.time_us for trial in rows[before:]} == {11.0}
    assert deciding(rows) == [trial for own in by_problem(rows).values() for trial in own], (
        "no modelled time is confirmed"
    )


def test_shapes_of_another_run_are_left_alone() -> None:
    rows = searched(Source.MODELLED, Stage.SCREENED)
    time_neighbours(
        LENIENT,
        [ELSEWHERE],
        OpenEmulatedBench(InstantExecutor(), FormulaStopwatch()),
        lambda: rows,
        never,
        lambda trial: trial,
    )
    assert len(rows) == len(FAMILY) + 1


def never(attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
    raise AssertionError((attempt, problem, outcome))
