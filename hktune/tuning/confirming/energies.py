"""After all else was measured: what energy the best of each shape take, as far as a budget of seconds goes.

It is asked for those that a table may choose among, the kernels that may be used for a shape's best, and for the
vendor's library.
Shapes with such a choice come first, and of these the ones whose calls take longest: there most energy is at stake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.energy import Energy
from hktune.measure.stopwatch import EnergyStopwatch
from hktune.tables.standing import Standing, standings, time_us
from hktune.template import Templates
from hktune.tuning.confirming.confirmation import attempt_of, deciding
from hktune.tuning.trial_rows import now

BUDGET_SHARE, BUDGET_LEAST_S = 0.1, 5.0
"""What energies may take where nobody said: a tenth of what the GPU was asked for before, at least so many seconds."""

KERNELS_MAX = 4
"""So many of the kernels that a table may choose among, the fastest."""

WINDOWS = 2
"""Of each kernel, where there is a choice: one window would not say how far windows are apart."""


def usual_budget_s(asked_s: float) -> float:
    """Of a run that has asked its GPU for `asked_s` seconds of work."""
    return max(BUDGET_SHARE * asked_s, BUDGET_LEAST_S)


def measure_energies(
    trials: Sequence[Trial],
    weights: Mapping[Problem, float],
    templates: Templates,
    stopwatch: EnergyStopwatch,
    append: Callable[[Trial], Trial],
    budget_s: float,
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Measure what the best of each problem of `weights` take, until `budget_s` are over; what was begun is finished.
    `append` stores the row of each again, with its energy. What has one is not measured again. `templates` are those of
    the rows.

    Ends with the first problem where the device does not count its energy.
    """
    until_s = now_s() + budget_s
    for standing in _most_at_stake(trials, weights):
        if now_s() >= until_s:
            return
        kernels = _asked_for(standing)
        windows = WINDOWS if len(kernels) > 1 else 1
        attempts = [attempt_of(row, standing.problem, templates) for row in kernels]
        found = stopwatch.energies(attempts, standing.problem, windows)
        if found.baseline is None and not any(found.attempts):
            return
        for row, energy in zip(kernels, found.attempts, strict=True):
            if energy is not None:
                append(_with(row, energy, found.baseline))


def _most_at_stake(trials: Sequence[Trial], weights: Mapping[Problem, float]) -> list[Standing]:
    """The measured problems whose best has no energy yet."""

    def stake(standing: Standing) -> tuple[bool, float]:
        return (len(standing.replacements) > 1, weights[standing.problem] * time_us(standing.best))

    found = standings(row for row in deciding(trials) if row.problem in weights)
    new = [each for each in found if each.best.source is Source.MEASURED and _asked_for(each)[0].energy_j is None]
    return sorted(new, key=stake, reverse=True)


def _asked_for(standing: Standing) -> list[Trial]:
    """The kernels that a table may choose among, the fastest first; where there are none, the best of all."""
    return standing.replacements[:KERNELS_MAX] or [standing.best]


def _with(row: Trial, energy: Energy, baseline: Energy | None) -> Trial:
    """`row` again, as a new one that says its energy."""
    return replace(
        row,
        trial=0,
        started_at=now(),
        energy_j=energy.joules,
        energy_j_low=energy.low,
        energy_j_high=energy.high,
        baseline_energy_j=baseline.joules if baseline else None,
    )
