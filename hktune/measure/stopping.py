"""When a comparison has seen enough rounds."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.measure.statistics import Interval


@dataclass(frozen=True)
class StoppingRule:
    """Stop when the interval of the ratio is at most `relative_width` wide, but not before `rounds_min` rounds, and
    at `rounds_max` in any case.

    It looks at the width alone, never at where the interval is: a rule that waits until a ratio excludes 1 finds
    differences that are not there.
    """

    confidence: float
    relative_width: float
    rounds_min: int
    rounds_max: int

    def satisfied(self, ratio: Interval, rounds: int) -> bool:
        """Whether `rounds` rounds that gave `ratio` are enough."""
        return rounds >= self.rounds_max or (rounds >= self.rounds_min and ratio.relative_width <= self.relative_width)


SCREENING = StoppingRule(confidence=0.99, relative_width=0.02, rounds_min=8, rounds_max=24)
"""For a search: 24 pairs of graphs at most, which tells 2 % apart on an H100."""

CONFIRMING = StoppingRule(confidence=0.99, relative_width=0.006, rounds_min=16, rounds_max=64)
"""For what a table is built from: fresh rounds of the best few, all in the same rounds."""

STEADY = StoppingRule(confidence=0.99, relative_width=0.006, rounds_min=8, rounds_max=8)
"""For turns of 0.3 s each: as few rounds as 99 % allow."""
