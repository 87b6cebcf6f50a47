"""Where the time of an entry may lie, and which of two are apart."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.outcome import Source
from hktune.dispatch.table import Entry


@dataclass(frozen=True)
class Span:
    """From `low_us` to `high_us`, both included."""

    low_us: float
    high_us: float

    def is_below(self, other: Span) -> bool:
        """Whether all of it is shorter than all of `other`."""
        return self.high_us < other.low_us


def expected(entry: Entry) -> Span:
    """Where a measured time of the entry's choice is expected: its interval, else the time itself."""
    return Span(entry.time_us_low or entry.time_us, entry.time_us_high or entry.time_us)


def ranked(entry: Entry, model_tie: float) -> Span:
    """Where the time of the entry's choice lies when it is compared with another of the same board and source. The
    interval of a modelled time says nothing of which of two kernels is faster: there it is a factor of `model_tie`."""
    if entry.source is Source.MEASURED:
        return expected(entry)
    half = model_tie**0.5
    return Span(entry.time_us / half, entry.time_us * half)
