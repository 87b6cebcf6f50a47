"""How many times as fast one kernel is as another, or as a library, and whether that is beyond doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import geometric_mean

from hktune.core.outcome import Source
from hktune.core.trial import Trial
from hktune.emulator.clock.model_error import model_error
from hktune.tuning.searching.cost import cost_of


class Verdict(str, Enum):
    """What a gain says of a kernel. `tie`: its interval has 1 in it."""

    WIN = "win"
    TIE = "tie"
    LOSS = "loss"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Gain:
    """How many times as fast a kernel is, above 1 is faster, with the ends of its interval. `at_least`: it may be more,
    since the other was left early."""

    ratio: float
    low: float
    high: float
    at_least: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.low > 1:
            return Verdict.WIN
        return Verdict.LOSS if self.high < 1 else Verdict.TIE


def gain_over_time(trial: Trial, other_us: float | None) -> Gain | None:
    """The gain of `trial` over what took `other_us` in the same rounds, or in the same model."""
    if trial.time_us is None or other_us is None:
        return None
    if trial.source is Source.MODELLED:
        return _modelled(other_us / trial.time_us)
    low_us, high_us = trial.time_us_low or trial.time_us, trial.time_us_high or trial.time_us
    return Gain(other_us / trial.time_us, other_us / high_us, other_us / low_us)


def gain_over_trial(trial: Trial, other: Trial | None) -> Gain | None:
    """The gain of `trial` over `other`, another of its problem. Where both were measured with the vendor's library,
    each is taken relative to that: the clocks of two rounds differ. None where one has no time, or another source."""
    if other is None or trial.time_us is None or other.time_us is None or trial.source is not other.source:
        return None
    if trial.source is Source.MODELLED:
        return _modelled(other.time_us / trial.time_us)
    ours, theirs = cost_of(trial), cost_of(other)
    assert ours is not None
    assert theirs is not None
    if ours.name is not theirs.name:
        own = (trial.time_us, trial.time_us_low or trial.time_us, trial.time_us_high or trial.time_us)
        its = (other.time_us, other.time_us_low or other.time_us, other.time_us_high or other.time_us)
    else:
        own = (ours.value, ours.low or ours.value, ours.high or ours.value)
        its = (theirs.value, theirs.low or theirs.value, theirs.high or theirs.value)
    return Gain(its[0] / own[0], its[1] / own[2], its[2] / own[1], other.left_early)


def _modelled(ratio: float) -> Gain:
    """Of two kernels in one model: closer than its ties nothing is known."""
    factor = model_error().tie_factor
    return Gain(ratio, ratio / factor, ratio * factor)


@dataclass(frozen=True)
class Weighed:
    """One shape's gain: its weight, the kernel's time and the gain over something else."""

    weight: float
    time_us: float
    gain: Gain


@dataclass(frozen=True)
class Totals:
    """What the gains of several shapes come to. `all_calls` is how many times as fast all calls together are: the sums
    of times, each by its shape's weight. `at_least` counts the gains that may be more."""

    geometric_mean: float
    all_calls: float
    worst: float
    best: float
    counts: Counter[Verdict]
    weights: Mapping[Verdict, float]
    at_least: int = 0

    @property
    def shapes(self) -> int:
        return sum(self.counts.values())


def totals(gains: Sequence[Weighed]) -> Totals | None:
    """None of no gains."""
    if not gains:
        return None
    ratios = [each.gain.ratio for each in gains]
    weights = dict.fromkeys(Verdict, 0.0)
    for each in gains:
        weights[each.gain.verdict] += each.weight
    ours_us = sum(each.weight * each.time_us for each in gains)
    theirs_us = sum(each.weight * each.time_us * each.gain.ratio for each in gains)
    return Totals(
        geometric_mean(ratios),
        theirs_us / ours_us,
        min(ratios),
        max(ratios),
        Counter(each.gain.verdict for each in gains),
        weights,
        sum(each.gain.at_least for each in gains),
    )
