"""Which of the kernels that are as fast as each other need the least energy."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.core.trial import Trial


def thrifty(tied: Sequence[Trial]) -> list[Trial]:
    """Those of `tied` that may need the least energy of a launch, in their order.

    Where energy was measured of two at least, these are the ones whose interval reaches down to that of the one that
    needs least. A kernel whose energy nobody measured is none of them. Where it was measured of one or none, nothing
    is known that tells kernels apart, and they are all.
    """
    measured = [trial for trial in tied if trial.energy_j is not None]
    if len(measured) < 2:
        return list(tied)
    least = min(measured, key=_joules)
    return [trial for trial in measured if _low_j(trial) <= _high_j(least)]


def _joules(trial: Trial) -> float:
    assert trial.energy_j is not None, "only what was measured is compared"
    return trial.energy_j


def _low_j(trial: Trial) -> float:
    return _joules(trial) if trial.energy_j_low is None else trial.energy_j_low


def _high_j(trial: Trial) -> float:
    return _joules(trial) if trial.energy_j_high is None else trial.energy_j_high
