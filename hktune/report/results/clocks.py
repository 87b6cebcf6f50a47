"""What clock and power a GPU had while it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from hktune.core.trial import Trial
from hktune.report.results.results import Results, ShapeResult


@dataclass(frozen=True)
class ShapeClock:
    """One shape's measured rows that say their clock: the medians. `power_w` is None where none says its power,
    `throttled` the share of them that held their clock down."""

    shape: ShapeResult
    rows: int
    clock_mhz: float
    power_w: float | None
    throttled: float


@dataclass(frozen=True)
class Clocks:
    """Of all shapes that say so. `reasons` counts rows by why they held their clock down; `rows` counts all that say
    their clock, of `of` rows."""

    shapes: Sequence[ShapeClock]
    reasons: Counter[str]
    rows: int
    of: int


def clocks(results: Results) -> Clocks | None:
    """None where no row says its clock: nothing was measured."""
    rows = [row for row in results.trials if row.clock_mhz is not None]
    if not rows:
        return None
    shapes = [each for shape in results.shapes if (each := _of_shape(shape))]
    return Clocks(shapes, Counter(row.throttled for row in rows if row.throttled), len(rows), len(results.trials))


def _of_shape(shape: ShapeResult) -> ShapeClock | None:
    rows: list[Trial] = [row for row in shape.rows if row.clock_mhz is not None]
    if not rows:
        return None
    clock_mhz = median(row.clock_mhz for row in rows if row.clock_mhz is not None)
    powers = [row.power_w for row in rows if row.power_w is not None]
    throttled = sum(row.throttled is not None for row in rows) / len(rows)
    return ShapeClock(shape, len(rows), clock_mhz, median(powers) if powers else None, throttled)
