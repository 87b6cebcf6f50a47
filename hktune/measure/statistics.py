"""What samples say about a median: its value, and an interval that assumes nothing about their distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A median between the ends of its confidence interval; the unit is that of the samples."""

    low: float
    median: float
    high: float

    @property
    def relative_width(self) -> float:
        return (self.high - self.low) / self.median

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g}..{self.high:.4g})"


def median_interval(samples: Sequence[float], confidence: float) -> Interval:
    """The median of `samples` with its order-statistic interval, the narrowest that `confidence` (0..1) allows.

    With too few samples for that confidence (fewer than 8 for 99 %) the ends are the least and the largest.
    """
    from scipy.stats import quantile_test

    interval = quantile_test(np.asarray(samples), q=0.0, p=0.5).confidence_interval(confidence)
    low, high = (float(end) for end in interval)
    return Interval(
        low=min(samples) if np.isnan(low) else low,
        median=float(np.median(samples)),
        high=max(samples) if np.isnan(high) else high,
    )
