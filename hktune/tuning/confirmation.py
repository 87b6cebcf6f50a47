"""After the search: each shape's best few are measured again, together, and only these decide the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from hktune.core.config import Config
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import Attempt, ComparingStopwatch
from hktune.tuning.cost import slowness
from hktune.tuning.trial_rows import now, outcome_fields

FINALISTS = 6
WITHIN = 0.03
"""Screened ratios are good to some 2 %, so a config within 3 % of the best may be the best."""


def confirm(
    trials: Sequence[Trial],
    problems: Mapping[Problem, Operation],
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
) -> None:
    """Measure the finalists of every problem that has news since it was last confirmed; `append` stores each row.
    With each problem goes the operation whose code it runs, as `Template.code_operation` has it.

    Where all of them fail now, those that were next best are finalists.
    """
    rows_of = by_problem(trials)
    for problem, operation in problems.items():
        own = rows_of.get(problem, [])
        if not own or confirmed(own):
            continue
        while rows := finalists(own):
            again = measure_together(rows, problem, operation, stopwatch, append, Stage.CONFIRMED)
            if any(row.status is Status.OK for row in again):
                break
            own += again


def measure_together(
    rows: Sequence[Trial],
    problem: Problem,
    operation: Operation,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
    stage: Stage,
) -> list[Trial]:
    """Measure the configs of `rows`, as the code of `operation`, on `problem` in rounds that they share; `append`
    stores a row of `stage` for each.

    Returns these rows.
    """
    confirmation = stopwatch.confirm([attempt_of(row, operation) for row in rows], problem)
    outcomes = zip(rows, confirmation.finalists, strict=True)
    return [append(_again(row, problem, outcome, stage)) for row, outcome in outcomes]


def attempt_of(row: Trial, operation: Operation) -> Attempt:
    """What a row was made from, for another measurement."""
    return Attempt(Config.from_json(row.config), object_sha256=row.object_sha256, operation=operation)


def finalists(trials: Sequence[Trial]) -> list[Trial]:
    """The proved configs of one problem that came close to its best, best first, each by its last row."""
    last = {trial.config_id: trial for trial in trials}
    ok = sorted((trial for trial in last.values() if trial.status is Status.OK), key=slowness)
    return [trial for trial in ok[:FINALISTS] if slowness(trial) <= (1 + WITHIN) * slowness(ok[0])]


def deciding(trials: Sequence[Trial]) -> list[Trial]:
    """The rows that a table is built from: of a problem whose last rows are a confirmation, these alone.

    Times of different rounds were taken at different clocks; a screened time may win by luck.
    """
    chosen: list[Trial] = []
    for own in by_problem(trials).values():
        chosen += confirmed(own) or own
    return chosen


def confirmed(own: Sequence[Trial]) -> list[Trial]:
    """Of the rows of one problem, in their order, those of its last confirmation and of what was measured after it.
    There are none where the search has found something since, or nothing was confirmed, as no modelled time is."""
    last = list(takewhile(lambda row: row.stage is not Stage.SCREENED, reversed(own)))[::-1]
    return last if any(row.stage is Stage.CONFIRMED for row in last) else []


def _again(row: Trial, problem: Problem, outcome: Timing | Failure, stage: Stage) -> Trial:
    """`row` with its new outcome."""
    return replace(row, trial=0, started_at=now(), stage=stage, **outcome_fields(outcome, problem))
