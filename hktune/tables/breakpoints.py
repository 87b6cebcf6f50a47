"""Serving row counts that nobody tuned: breakpoints between the tuned ones, from trials of each other's kernels.

Between two neighbours m1 < m2 of one (n, k, operation), the times of both winners are known at both ends once
`cross_trials` has been measured. Between the ends they are taken as straight lines in m. m1's winner serves up to where
the lines cross, and m2's from there on. Neither serves where the vendor library's line is lower. Where a time is
missing, the gap is left to the vendor library, unless both ends have the same winner.

An algorithm of the vendor's library serves no m but its own: beyond, its end counts as the library's own choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.tables.standing import Chosen, choose

Rows = tuple[int, int]
"""The fewest and the most rows served."""

M_MAX = 2**24


@dataclass(frozen=True)
class Regret:
    """What serving `problem` with the winner of its neighbour `winner_of` loses: time_us / best_us - 1, where best_us
    is the time of what the table uses there. `config_id` is None for the vendor library."""

    problem: Problem
    winner_of: Problem
    config_id: str | None
    time_us: float
    best_us: float

    @property
    def regret(self) -> float:
        return self.time_us / self.best_us - 1

    def __str__(self) -> str:
        winner = self.config_id or "the vendor library"
        return f"{self.problem} served as m={self.winner_of.m} ({winner}): {self.regret:+.1%}"


def cross_trials(trials: Sequence[Trial]) -> list[tuple[Trial, Problem]]:
    """The pairs of a winner and a problem to try its config on, so that every winner is timed at its neighbours' m too,
    in a fixed order.

    A pair that has any trial, a failed one too, is not asked for again. Whether a config is legal for the problem is
    the caller's to judge. New trials may make new winners: ask again until nothing is wanted.
    """
    rows_of = by_problem(trials)
    wanted: dict[tuple[tuple[str | None, str], Problem], Trial] = {}
    for lower, upper in _pairs(choose(trials)):
        for chosen, other in ((lower, upper), (upper, lower)):
            if chosen.kernel is None:
                continue
            made_from, problem, source = chosen.kernel.made_from, other.standing.problem, other.standing.best.source
            own = (row for row in rows_of[problem] if row.made_from == made_from)
            if all(row.status is Status.OK and row.source is not source for row in own):
                wanted[made_from, problem] = chosen.kernel
    return [(winner, problem) for (_, problem), winner in wanted.items()]


def regrets(trials: Sequence[Trial]) -> list[Regret]:
    """What serving each problem with its neighbours' winners would lose, wherever that was timed."""
    found = []
    for lower, upper in _pairs(choose(trials)):
        for chosen, other in ((lower, upper), (upper, lower)):
            time = other.standing.time_of(chosen.kernel)
            if time is not None:
                problems = (other.standing.problem, chosen.standing.problem)
                found.append(Regret(*problems, chosen.kernel.config_id if chosen.kernel else None, time, other.time_us))
    return found


def served_rows(chosen: Sequence[Chosen], reach: float) -> dict[Problem, Rows]:
    """The rows that each of `chosen` serves. Beyond the outermost tuned m of an (n, k) nothing was measured: its kernel
    goes no further than to m * reach, and to m / reach."""
    rows = {each.standing.problem: (each.standing.problem.m, each.standing.problem.m) for each in chosen}
    families = groupby(sorted(chosen, key=_by_family), key=lambda each: _by_family(each)[:-1])
    for members in [list(group) for _, group in families]:
        first, last = members[0], members[-1]
        if first.kernel:
            rows[first.standing.problem] = (math.ceil(first.standing.problem.m / reach), first.standing.problem.m)
        if last.kernel:
            fewest, m = rows[last.standing.problem]
            rows[last.standing.problem] = (fewest, min(M_MAX, math.floor(m * reach)))
        for lower, upper in pairwise(members):
            most, fewest = _parted(lower, upper)
            rows[lower.standing.problem] = (rows[lower.standing.problem][0], most)
            rows[upper.standing.problem] = (fewest, rows[upper.standing.problem][1])
    for each in chosen:  # the library named the algorithm for these very sizes
        if each.trial and not each.kernel:
            rows[each.standing.problem] = (each.standing.problem.m, each.standing.problem.m)
    return rows


def _by_family(chosen: Chosen) -> tuple[int, int, str, int]:
    problem = chosen.standing.problem
    return (problem.n, problem.k, str(problem.operation), problem.m)


def _pairs(chosen: Iterable[Chosen]) -> Iterator[tuple[Chosen, Chosen]]:
    """Neighbours in m of one (n, k, operation), whose times are of one source."""
    for lower, upper in pairwise(sorted(chosen, key=_by_family)):
        if _by_family(lower)[:-1] == _by_family(upper)[:-1] and _comparable(lower, upper):
            yield lower, upper


def _comparable(lower: Chosen, upper: Chosen) -> bool:
    return lower.standing.best.source is upper.standing.best.source


def _parted(lower: Chosen, upper: Chosen) -> tuple[int, int]:
    """The most rows that `lower` serves and the fewest that `upper` does."""
    m1, m2 = lower.standing.problem.m, upper.standing.problem.m
    if not _comparable(lower, upper):
        return m1, m2
    if _made_from(lower) == _made_from(upper):
        return m2 - 1, m2
    low, high = _line(lower.kernel, lower, upper), _line(upper.kernel, lower, upper)
    if low is None or high is None:
        return m1, m2
    most = min(m2 - 1, m1 + math.floor((m2 - m1) * _share_below(low, high)))
    fewest = most + 1
    vendor = _line(None, lower, upper)
    if vendor is not None and lower.kernel:
        most = min(most, m1 + math.floor((m2 - m1) * _share_below(low, vendor)))
    if vendor is not None and upper.kernel:
        fewest = max(fewest, m2 - math.floor((m2 - m1) * _share_below(high[::-1], vendor[::-1])))
    return most, fewest


def _made_from(chosen: Chosen) -> tuple[str | None, str] | None:
    return chosen.kernel.made_from if chosen.kernel else None


def _line(trial: Trial | None, lower: Chosen, upper: Chosen) -> tuple[float, float] | None:
    """The times of one contender at both ends, or None where one is missing."""
    at_lower, at_upper = lower.standing.time_of(trial), upper.standing.time_of(trial)
    return None if at_lower is None or at_upper is None else (at_lower, at_upper)


def _share_below(line: tuple[float, float], other: tuple[float, float]) -> float:
    """From which part of the way on `line`, from its first end, is above `other`: 0 from the start, 1 never."""
    ahead, behind = other[0] - line[0], line[1] - other[1]
    if behind <= 0:
        return 1.0 if ahead >= 0 else 0.0
    return max(ahead, 0.0) / (max(ahead, 0.0) + behind)
