"""After the search: each shape's best few are measured again, together, and only these decide the table."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from hktune.core.config import Config
from hktune.core.outcome import POWER_CAP, Failure, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.stopwatch import Attempt, ComparingStopwatch, Side, attempt_of_algorithm
from hktune.template import Templates
from hktune.tuning.searching.cost import slowness
from hktune.tuning.trial_rows import now, outcome_fields

FINALISTS = 6
"""Kernels of a problem that are measured again."""
ALGORITHMS = 4
"""Algorithms of the vendor's libraries that are, finalists or not: they say how fast the vendor's best is."""
STEADY_KERNELS, STEADY_ALGORITHMS = 4, 2
"""So many of those have turns of their own, which take 2.4 s each."""
WITHIN = 0.03
"""Screened ratios are good to some 2 %, so a config within 3 % of the best may be the best."""
ALIKE = 2
"""Configs that differ in so many parameters or fewer are alike: the fastest are often one tile, in several orders."""
UNLIKE_KERNELS = 3
"""Of the finalists so many places are for kernels that are unlike all faster ones."""
UNLIKE_WITHIN = 0.08
"""So far from the best these may be. Screened times are of a cool clock; in the rounds of finalists, where power holds
it, kernels of one tile lost 5 to 8 % to others on 4 of 29 shapes (an H200), and variants of one tile lose together."""


def confirm(
    trials: Sequence[Trial],
    problems: Iterable[Problem],
    templates: Templates,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
    others: Callable[[Problem], Sequence[Side]] | None = None,
    named: Mapping[Problem, Container[str]] | None = None,
) -> None:
    """Measure the finalists of every problem that has news since it was last confirmed; `append` stores each row.
    `templates` are those of the rows. Finalists of all templates share the rounds of their problem, and `others` are
    kernels of others that do so too. `named` has the config ids of the algorithms that the vendor's libraries name now:
    rows of others are of another version, and are left out. The fastest of the vendor's algorithms get rows whether
    they are finalists or not. What is said of the vendor's best is so of a row that a table may use: where power holds
    the clock, an algorithm that was screened 4 % behind a kernel came out 1 % ahead of it.

    Where all of them fail now, those that were next best are finalists.
    """
    rows_of = by_problem(trials)
    for problem in problems:
        every = rows_of.get(problem, [])
        if not every or confirmed(every):
            continue
        here = (named or {}).get(problem, ())
        own = [row for row in every if row.is_kernel or row.config_id in here]
        sides = others(problem) if others else ()
        while rows := finalists(own):
            beside = _vendors_fastest(own, rows)
            again = measure_together([*rows, *beside], problem, templates, stopwatch, append, Stage.CONFIRMED, sides)
            if any(row.status is Status.OK for row in again[: len(rows)]):
                break
            own += again


def measure_together(
    rows: Sequence[Trial],
    problem: Problem,
    templates: Templates,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
    stage: Stage,
    others: Sequence[Side] = (),
) -> list[Trial]:
    """Measure the configs of `rows`, which are of `templates`, on `problem` in rounds that they share, or in turns
    where `stage` is steady; `append` stores a row of `stage` for each.

    Returns these rows.
    """
    attempts = [attempt_of(row, problem, templates) for row in rows]
    confirmation = stopwatch.confirm(attempts, problem, others, stage is Stage.STEADY)
    outcomes = zip(rows, confirmation.finalists, strict=True)
    return [append(_again(row, problem, outcome, stage)) for row, outcome in outcomes]


def attempt_of(row: Trial, problem: Problem, templates: Templates) -> Attempt:
    """What a row was made from, for a measurement on `problem`."""
    if not row.is_kernel:
        algorithm = VendorAlgorithm.of_config(Config.from_json(row.config))
        return attempt_of_algorithm(algorithm, problem.operation)
    operation = templates.of(row.template_sha256).code_operation(problem.operation)
    config, template = Config.from_json(row.config), row.template_sha256
    return Attempt(config, object_sha256=row.object_sha256, operation=operation, template=template)


def confirm_steady(
    trials: Sequence[Trial],
    problems: Iterable[Problem],
    templates: Templates,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
) -> None:
    """Measure the best of every problem once more, each under a load of its own, where power held the clock when it was
    confirmed; `append` stores each row.

    In rounds that kernels share they share the clock, too: the board's power control is far slower than a round. One
    that needs more energy is then not seen to lower its own clock.
    """
    rows_of = by_problem(trials)
    for problem in problems:
        own = confirmed(rows_of.get(problem, []))
        if any(row.stage is Stage.STEADY for row in own) or not any(_held_by_power(row) for row in own):
            continue
        kernels = [row for row in finalists(own) if row.is_kernel][:STEADY_KERNELS]
        algorithms = [row for row in finalists(own) if not row.is_kernel][:STEADY_ALGORITHMS]
        measure_together([*kernels, *algorithms], problem, templates, stopwatch, append, Stage.STEADY)


def _held_by_power(row: Trial) -> bool:
    return POWER_CAP in (row.throttled or "").split(", ")


def finalists(trials: Sequence[Trial]) -> list[Trial]:
    """The proved configs of one problem that came close to its best, best first, each by its last row. Of kernels those
    that came close to the best kernel: they are said to be how fast without the vendor's algorithms, too; and some that
    are unlike these. Those that were left early are among them only where nothing has a time: measured together, one of
    them gets one."""
    ok = _last_ok(trials)
    timed = [trial for trial in ok if not trial.left_early] or ok
    kernels = _various([trial for trial in timed if trial.is_kernel])
    algorithms = [trial for trial in _close(timed) if not trial.is_kernel][:ALGORITHMS]
    return sorted(kernels + algorithms, key=slowness)


def _close(timed: Sequence[Trial], within: float = WITHIN) -> list[Trial]:
    """Those that came close to the first, which is the fastest."""
    return [trial for trial in timed if slowness(trial) <= (1 + within) * slowness(timed[0])]


def _various(kernels: Sequence[Trial]) -> list[Trial]:
    """Of `kernels`, the fastest first, at most FINALISTS: those close to the first, and some unlike all before them."""
    close = _close(kernels)
    chosen = close[: FINALISTS - UNLIKE_KERNELS]
    for trial in _close(kernels, UNLIKE_WITHIN):
        if len(chosen) < FINALISTS and all(_differences(trial, other) > ALIKE for other in chosen):
            chosen.append(trial)
    others = [trial for trial in close if trial not in chosen]
    return chosen + others[: FINALISTS - len(chosen)]


def _differences(one: Trial, other: Trial) -> int:
    """In how many of the parameters that both have two configs differ: one may be older than some."""
    values, others = Config.from_json(one.config), Config.from_json(other.config)
    return sum(others[name] != value for name, value in values.items() if name in others)


def _last_ok(trials: Sequence[Trial]) -> list[Trial]:
    """The last row of each config, where it is ok; the fastest first."""
    last = {trial.made_from: trial for trial in trials}
    return sorted((trial for trial in last.values() if trial.status is Status.OK), key=slowness)


def _vendors_fastest(own: Sequence[Trial], rows: Sequence[Trial]) -> list[Trial]:
    """Of the fastest algorithms of the vendor's libraries, those that are not among `rows`."""
    chosen = {row.made_from for row in rows}
    fastest = [row for row in _last_ok(own) if not row.is_kernel][:ALGORITHMS]
    return [row for row in fastest if row.made_from not in chosen]


def deciding(trials: Sequence[Trial]) -> list[Trial]:
    """The rows that a table is built from: of a problem whose last rows are a confirmation, these alone; of these the
    steady ones, where there are any.

    Times of different rounds were taken at different clocks; a screened time may win by luck.
    """
    chosen: list[Trial] = []
    for own in by_problem(trials).values():
        chosen += confirmed(own) or own
    return chosen


def confirmed(own: Sequence[Trial]) -> list[Trial]:
    """Of the rows of one problem, in their order, those of its last confirmation and of what was measured after it, or
    the steady ones of these. There are none where the search has found something since, or nothing was confirmed, as no
    modelled time is."""
    last = list(takewhile(lambda row: row.stage is not Stage.SCREENED, reversed(own)))[::-1]
    if not any(row.stage is Stage.CONFIRMED for row in last):
        return []
    steady = [row for row in last if row.stage is Stage.STEADY]
    return steady if any(row.status is Status.OK for row in steady) else last


def _again(row: Trial, problem: Problem, outcome: Timing | Failure, stage: Stage) -> Trial:
    """`row` with its new outcome."""
    return replace(row, trial=0, started_at=now(), stage=stage, **outcome_fields(outcome, problem))
