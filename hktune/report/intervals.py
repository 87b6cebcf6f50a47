"""The interval of a time, and what that of a modelled one means; an energy."""

from __future__ import annotations

from hktune.emulator.clock.model_error import model_error


def interval(low_us: float | None, high_us: float | None) -> str:
    """The ends of an interval as a cell shows them; empty where there is none."""
    if low_us is None or high_us is None:
        return ""
    digits = 1 if high_us < 1000 else 0
    return f"{low_us:.{digits}f}..{high_us:.{digits}f}"


def millijoules(energy_j: float | None) -> str:
    """An energy as a cell shows it, in mJ; empty where there is none."""
    return "" if energy_j is None else f"{energy_j * 1e3:.4g}"


def interval_meaning() -> str:
    """What low..high and ties are of modelled times."""
    figures = model_error()
    share, within = f"{figures.coverage:.0%}", f"{figures.tie_factor - 1:.0%}"
    return f"low..high: where {share} of measured times are expected; ties: configs within {within} of the fastest"
