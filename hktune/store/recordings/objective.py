"""What another tuner was after, as a number of which less is better."""

from __future__ import annotations

import math
import re

from hktune.core.escaped import shown
from hktune.store.recordings.recording import BrokenRecording

TIME = "time"
NO_TIME = 1e20
"""Kernel Tuner once wrote this in place of a time where a config failed."""

_MORE_IS_BETTER = re.compile(r".*/(s|W|J)|score|fitness", re.IGNORECASE)
_US_OF = (("mic", 1.0), ("us", 1.0), ("mil", 1e3), ("ms", 1e3), ("n", 1e-3), ("s", 1e6))


def us_of(unit: str) -> float:
    """How many us one `unit` of time is; a millisecond's for one that is not known, as Kernel Tuner has it."""
    return next((us for begin, us in _US_OF if unit.lower().startswith(begin)), 1e3)


def cost(objective: str, value: object, unit_us: float, config: object) -> float:
    """`value` as less is better: a time in us, another objective as it is, and of one of which more is better, such as
    GFLOP/s, the inverse. Raises BrokenRecording where it is no number above 0: it has no share of the best."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise BrokenRecording(f"config {shown(config)}: {shown(objective)} is {shown(value)}, not a number above 0")
    if _MORE_IS_BETTER.fullmatch(objective):
        number = 1 / number
    elif objective == TIME:
        number *= unit_us
    if not (math.isfinite(number) and number > 0):
        raise BrokenRecording(f"config {shown(config)}: {shown(objective)} is {shown(value)}, which is out of range")
    return number
