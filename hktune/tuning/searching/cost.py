"""What a row cost: the one number by which configs of a problem are compared, and what it is."""

from __future__ import annotations

import math

from hktune.core.outcome import Source
from hktune.core.trial import Trial
from hktune.search import Cost, CostName


def cost_of(trial: Trial) -> Cost | None:
    """The time of a row, and its interval. Where a baseline was in the same rounds, it is relative to the
    baseline's time: the clocks of two rounds differ. None where it has no time. A modelled time's interval is left out:
    kernels of one problem share most of its error, and costs are there to be compared."""
    if trial.time_us is None:
        return None
    name = CostName.TIME_OVER_BASELINE if trial.baseline_us else CostName.TIME_US
    unit = trial.baseline_us or 1.0
    ends = (trial.time_us_low, trial.time_us_high) if trial.source is Source.MEASURED else (None, None)
    low, high = (None if end is None else end / unit for end in ends)
    return Cost(trial.time_us / unit, name, low, high, trial.left_early)


def slowness(trial: Trial) -> float:
    """The value of a row's cost, a bound's too; infinite where it has none."""
    cost = cost_of(trial)
    return math.inf if cost is None else cost.value


def timed_slowness(trial: Trial) -> float:
    """`slowness`; infinite for a bound too, which nothing is gained by."""
    return slowness(trial) if trial.has_time else math.inf
