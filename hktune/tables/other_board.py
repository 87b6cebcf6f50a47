"""What the table of one board costs on another, from what was measured on both: no GPU is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.dispatch.table import Entry, Table


@dataclass(frozen=True)
class OnOtherBoard:
    """One problem that both boards have a choice for: what the first board's takes on the second.

    `time_us` is its time there; None where there is no row of it, or none with a time. `is_bound`: it was left early
    there, and takes at least `time_us`. `same_rounds`: it was timed in the rounds that decided the second board's
    choice, or is that choice; else in others, and its ratio to the vendor's library carries it over. `other_source`:
    there the config was made from another version of its template.
    """

    first: Entry
    second: Entry
    time_us: float | None = None
    is_bound: bool = False
    same_rounds: bool = True
    other_source: bool = False

    @property
    def is_same(self) -> bool:
        """Whether both boards choose the same."""
        return _choice(self.first) == _choice(self.second)

    @property
    def regret(self) -> float | None:
        """How much longer it takes there than that board's own choice. Below 0 it is faster, as a tie may be."""
        return None if self.time_us is None else self.time_us / self.second.time_us - 1


def on_other_board(
    first: Table, second: Table, trials: Iterable[Trial], deciding: Sequence[Trial]
) -> list[OnOtherBoard]:
    """The problems of both tables in the order of `first`. `trials` are all rows of the second board's directory, and
    `deciding` those that its table is built from."""
    there = {entry.problem: entry for entry in second.entries}
    decided, rows = by_problem(deciding), by_problem(trials)
    return [
        _compared(entry, there[entry.problem], decided.get(entry.problem, ()), rows.get(entry.problem, ()))
        for entry in first.entries
        if entry.problem in there
    ]


def exact(found: Iterable[OnOtherBoard]) -> list[tuple[OnOtherBoard, float]]:
    """Those whose time on the second board is known, with their regret."""
    known = ((each, each.regret) for each in found if not each.is_bound)
    return [(each, regret) for each, regret in known if regret is not None]


def mean_regret(found: Iterable[OnOtherBoard]) -> float | None:
    """The geometric mean over those whose time is known, less 1; None where there is none."""
    logs = [math.log1p(regret) for _, regret in exact(found)]
    return math.expm1(sum(logs) / len(logs)) if logs else None


def _compared(first: Entry, second: Entry, decided: Sequence[Trial], rows: Sequence[Trial]) -> OnOtherBoard:
    if _choice(first) is None:
        vendor_us = second.time_us if second.kernel is None else second.baseline_us
        return OnOtherBoard(first, second, vendor_us)
    if _choice(first) == _choice(second):
        return OnOtherBoard(first, second, second.time_us, other_source=_source(first) != _source(second))
    for own, same_rounds in ((decided, True), (rows, False)):
        timed = [row for row in own if _is_of(row, first, second)]
        for row in sorted(timed, key=lambda each: each.left_early):
            time_us = row.time_us if same_rounds else _carried_over(row, second)
            other_source = row.template_sha256 != _source(first)
            return OnOtherBoard(first, second, time_us, row.left_early, same_rounds, other_source)
    return OnOtherBoard(first, second)


def _is_of(row: Trial, first: Entry, second: Entry) -> bool:
    """Whether `row` has a time of the choice of `first` that may be compared with that of `second`."""
    same = (row.template if row.is_kernel else row.library, row.config_id) == _choice(first)
    return same and row.status is Status.OK and row.source is second.source and row.time_us is not None


def _carried_over(row: Trial, second: Entry) -> float | None:
    """The time of `row` as it would be in the rounds of `second`. Clocks differ; ratios to the vendor differ less."""
    if row.time_us is None or row.baseline_us is None or second.baseline_us is None:
        return row.time_us
    return row.time_us * second.baseline_us / row.baseline_us


def _source(entry: Entry) -> str | None:
    """What its kernel was made from; an algorithm of a library has none."""
    return entry.kernel.template_sha256 if entry.kernel else None


def _choice(entry: Entry) -> tuple[str, str] | None:
    """A kernel's template and config, an algorithm's library and what it is there; None for the library's own."""
    if entry.vendor_algorithm:
        return (entry.vendor_algorithm.library, entry.vendor_algorithm.known.config.id)
    return (entry.kernel.template, entry.kernel.config_id) if entry.kernel else None


def missing(found: Iterable[OnOtherBoard]) -> list[Problem]:
    """The problems whose first choice has no row with a time on the second board."""
    return [each.second.problem for each in found if each.time_us is None]
