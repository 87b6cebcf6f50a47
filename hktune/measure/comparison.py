"""Candidates against a baseline in interleaved rounds: which are faster, by how much, and which tie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hktune.measure.statistics import Interval, median_interval
from hktune.measure.stopping import StoppingRule

BASELINE = 0
ROUNDS_AT_ONCE = 4  # queued before the host waits; also what is seen before a race is judged

RESOLUTION = 0.001
"""What rounds do not average away. One kernel on both sides is off by up to 0.07 % for a whole comparison, since power
and clock follow what ran before (H100, 40 comparisons of 4096x4096x4096 and 16x4096x4096)."""

Play = Callable[[Sequence[Sequence[int]]], Sequence[Sequence[float]]]
"""Runs rounds, each a sequence of sides in the order to launch them, and gives us per launch, round by round, in the
same order. Side 0 is the baseline."""


class Verdict(str, Enum):
    """What the interval of the ratio says about a candidate. More rounds may decide an `ambiguous` one."""

    FASTER = "faster"
    SLOWER = "slower"
    AMBIGUOUS = "ambiguous"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Comparison:
    """One candidate and the baseline. `ratio` is the median over rounds of baseline time / candidate time.

    `lost_race`: it was left before the stopping rule was satisfied, being clearly slower than the best.
    """

    candidate_us: Interval
    baseline_us: Interval
    ratio: Interval
    rounds: int
    lost_race: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.ratio.low > 1:
            return Verdict.FASTER
        return Verdict.SLOWER if self.ratio.high < 1 else Verdict.AMBIGUOUS


@dataclass(frozen=True)
class Race:
    """Who is left early: a candidate none of whose rounds came within `margin` of the best known ratio.

    `best` is the best ratio known before (0: none). Candidates of one comparison also race each other. Nobody races
    the last `rivals` of them (other baselines, say): these only must keep up with the rest.
    """

    best: float = 0.0
    margin: float = 0.03
    rivals: int = 0

    def lost(self, ratios: Sequence[float], best_now: float) -> bool:
        """Whether a candidate with these ratios is out. `best_now` is the best median among its rivals."""
        return max(ratios) < (1 - self.margin) * max(self.best, best_now)


def compare(play: Play, candidates: int, rule: StoppingRule, race: Race | None = None) -> list[Comparison]:
    """Time sides 1 to `candidates` with the baseline until `rule` is satisfied for each, or its race is lost.

    Every round runs each side once; the order turns round from one to the next, so that a clock that drifts favours
    nobody. Ratios are taken within a round, where the clock is the same.
    """
    times = _Times(candidates)
    open_sides, done = list(range(1, candidates + 1)), dict[int, Comparison]()
    while open_sides:
        orders = [_order(open_sides, round_) for round_ in range(times.rounds, times.rounds + ROUNDS_AT_ONCE)]
        times.add(orders, play(orders))
        raced = [side for side in open_sides if race is None or side <= candidates - race.rivals]
        best_now = max((times.median_ratio(side) for side in raced), default=0.0)
        for side in list(open_sides):
            ratios = times.ratios(side)
            lost = race is not None and race.lost(ratios, best_now)
            if lost or rule.satisfied(times.ratio(side, rule.confidence), len(ratios)):
                done[side] = times.comparison(side, rule.confidence, lost)
                open_sides.remove(side)
    return [done[side] for side in range(1, candidates + 1)]


def _order(sides: Sequence[int], round_: int) -> list[int]:
    """Baseline and sides, turned by one place a round and reversed every other: each comes first and last as often."""
    order = [BASELINE, *sides]
    turn = round_ // 2 % len(order)
    turned = order[turn:] + order[:turn]
    return turned[::-1] if round_ % 2 else turned


class _Times:
    """Times of every side by round; a side that left has fewer rounds than the baseline."""

    def __init__(self, candidates: int) -> None:
        self._us: dict[int, list[float]] = {side: [] for side in range(candidates + 1)}

    @property
    def rounds(self) -> int:
        return len(self._us[BASELINE])

    def add(self, orders: Sequence[Sequence[int]], played: Sequence[Sequence[float]]) -> None:
        for order, times_us in zip(orders, played, strict=True):
            for side, time_us in zip(order, times_us, strict=True):
                self._us[side].append(time_us)

    def ratios(self, side: int) -> list[float]:
        return [base / own for base, own in zip(self._us[BASELINE], self._us[side], strict=False)]

    def median_ratio(self, side: int) -> float:
        return float(np.median(self.ratios(side)))

    def comparison(self, side: int, confidence: float, lost_race: bool) -> Comparison:
        own, base = self._us[side], self._us[BASELINE][: len(self._us[side])]
        candidate_us, baseline_us = (median_interval(samples, confidence) for samples in (own, base))
        return Comparison(candidate_us, baseline_us, self.ratio(side, confidence), len(own), lost_race)

    def ratio(self, side: int, confidence: float) -> Interval:
        """The median ratio of a side; its interval never claims more than RESOLUTION."""
        seen = median_interval(self.ratios(side), confidence)
        return Interval(seen.low * (1 - RESOLUTION), seen.median, seen.high * (1 + RESOLUTION))
