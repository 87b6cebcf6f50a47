"""After the search: each shape's best few are measured again, together, and only these decide the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from hktune.core.config import Config
from hktune.core.operation import Operation
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.measured import CONFIRMED
from hktune.measure.stopwatch import Attempt
from hktune.tuning.trial_rows import failed_fields, now, timed_fields
from hktune.workers.gpu_worker import ContainedStopwatch

FINALISTS = 6
WITHIN = 0.03
"""Screened ratios are good to some 2 %, so whoever came within 3 % of the best may be the best."""


def confirm(
    trials: Sequence[Trial],
    problems: Mapping[Problem, Operation],
    stopwatch: ContainedStopwatch,
    append: Callable[[Trial], Trial],
) -> None:
    """Measure the finalists of every problem that has news since it was last confirmed; `append` stores each row.
    With each problem goes the operation whose code it runs, as `Template.code_operation` has it.

    Where all of them fail now, those that were next best are finalists.
    """
    rows_of = by_problem(trials)
    for problem, operation in problems.items():
        own = rows_of.get(problem, [])
        if not own or is_confirmed(own[-1]):
            continue
        while rows := finalists(own):
            confirmed = measure_together(rows, problem, operation, stopwatch, append)
            if any(row.status is Status.OK for row in confirmed):
                break
            own += confirmed


def measure_together(
    rows: Sequence[Trial],
    problem: Problem,
    operation: Operation,
    stopwatch: ContainedStopwatch,
    append: Callable[[Trial], Trial],
) -> list[Trial]:
    """Measure the configs of `rows`, as the code of `operation`, on `problem` in rounds that they share; `append`
    stores a confirmed row of each.

    Returns these rows.
    """
    confirmation = stopwatch.confirm([attempt_of(row, operation) for row in rows], problem)
    outcomes = zip(rows, confirmation.finalists, strict=True)
    return [append(_again(row, problem, outcome, confirmation.rivals)) for row, outcome in outcomes]


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
        last = list(takewhile(is_confirmed, reversed(own)))[::-1]
        chosen += last or own
    return chosen


def is_confirmed(trial: Trial) -> bool:
    """Whether the row was taken on fresh rounds after a search."""
    return (trial.detail or "").startswith(CONFIRMED)


def slowness(trial: Trial) -> float:
    """Time relative to the vendor's in the same rounds; infinite where there is none."""
    if trial.time_us is None:
        return float("inf")
    return trial.time_us / (trial.baseline_us or 1.0)


def _again(row: Trial, problem: Problem, outcome: Timing | Failure, rivals: dict[str, float]) -> Trial:
    """`row` with its new outcome, and beside it the fastest of the vendor's other ways."""
    fresh = replace(row, trial=0, started_at=now(), **_NO_TIME)
    if isinstance(outcome, Failure):
        failed = failed_fields(outcome)
        return replace(fresh, status=failed["status"], detail=f"{CONFIRMED} as failing: {failed['detail']}")
    fields = timed_fields(outcome, problem)
    if rivals and outcome.baseline_us:
        name, ratio = max(rivals.items(), key=lambda rival: rival[1])
        fields["detail"] += f"; the vendor's best: {name} at {outcome.baseline_us / ratio:.2f} us ({ratio:.4f}x)"
    return replace(fresh, **fields)


_NO_TIME: dict[str, Any] = dict.fromkeys(
    ("source", "time_us", "time_us_low", "time_us_high", "samples", "tflops", "cache")
)
