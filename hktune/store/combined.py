"""The same config measured by several: their rows become one, whose interval holds all of theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.store.origins import line_without_origin
from hktune.store.rows import Encoder

_T = TypeVar("_T")


@dataclass(frozen=True)
class Disagreement:
    """What several say of one config on one problem, beyond noise: `said` is a part for each, `apart` by how much the
    times differ (0 where one of them has none)."""

    problem: Problem
    config_id: str
    said: tuple[str, ...]
    apart: float = 0.0

    def __str__(self) -> str:
        by = f" ({self.apart:+.1%})" if self.apart else ""
        return f"{self.problem} config {self.config_id[:8]}: {', '.join(self.said)}{by}"


@dataclass(frozen=True)
class Combined:
    """The rows, the number of those that are of several measurements, and what was said unlike."""

    trials: list[Trial]
    several: int
    disagreements: list[Disagreement]


def combined(trials: Iterable[Trial]) -> Combined:
    """`trials`, in which measured rows of one config on one problem, of one stage and from several origins, are one.

    Its time is the mean by samples, its interval from the lowest to the highest end. A row whose origins are all in
    such a row, and that is no younger, is part of it already. So merging again changes nothing.
    """
    groups: dict[object, list[Trial]] = {}
    kept: list[Trial] = []
    for trial in trials:
        if _may_be_one(trial):
            groups.setdefault(_alike(trial), []).append(trial)
        else:
            kept.append(trial)
    several, disagreements = 0, _unlike_endings([*kept, *(row for rows in groups.values() for row in rows)])
    for rows in groups.values():
        parts = _parts(rows)
        if len({part.origin for part in parts}) > 1:
            disagreements += _apart(parts)
            parts = [_one(parts)]
        several += any("+" in (part.origin or "") for part in parts)
        kept += parts
    return Combined(kept, several, disagreements)


def _may_be_one(trial: Trial) -> bool:
    measured = trial.source is Source.MEASURED and trial.status is Status.OK and trial.has_time
    return measured and trial.origin is not None


def _alike(trial: Trial) -> object:
    """What rows that may become one have in common."""
    of = (trial.problem, trial.made_from, trial.object_sha256, trial.device)
    return (*of, trial.stage, trial.cache, trial.baseline)


def _origins(trial: Trial) -> frozenset[str]:
    return frozenset((trial.origin or "").split("+"))


def _parts(rows: Sequence[Trial]) -> list[Trial]:
    """The rows that are no part of another, in a fixed order."""
    whole = [row for row in rows if "+" in (row.origin or "")]

    def is_part(row: Trial) -> bool:
        return any(
            _origins(row) < _origins(other) and (row.started_at or "") <= (other.started_at or "") for other in whole
        )

    encoder = Encoder()
    parts = _without_copies([row for row in rows if not is_part(row)])
    return sorted(parts, key=lambda row: (row.started_at or "", row.origin or "", line_without_origin(encoder, row)))


def _without_copies(rows: Sequence[Trial]) -> list[Trial]:
    """`rows` without those that are there again with an energy, which was measured later than the time."""
    known = {_timed(row) for row in rows if row.energy_j is not None}
    return [row for row in rows if row.energy_j is not None or _timed(row) not in known]


def _timed(row: Trial) -> object:
    return (row.origin, row.time_us, row.time_us_low, row.time_us_high, row.samples, row.baseline_us)


def _one(parts: Sequence[Trial]) -> Trial:
    """One row of several, otherwise like the last of them."""
    samples = [part.samples or 1 for part in parts]
    last = parts[-1]
    time_us = _mean([_time(part) for part in parts], samples)
    ids = sorted(frozenset[str]().union(*map(_origins, parts)))
    return replace(
        last,
        origin="+".join(ids),
        time_us=time_us,
        time_us_low=min(_low(part) for part in parts),
        time_us_high=max(_high(part) for part in parts),
        samples=sum(samples),
        tflops=last.problem.flops / time_us / 1e6,
        baseline_us=_mean_if_all([part.baseline_us for part in parts], samples),
        vendor_best=_same([part.vendor_best for part in parts]),
        vendor_best_us=_mean_if_all([part.vendor_best_us for part in parts], samples)
        if _same([part.vendor_best for part in parts])
        else None,
        gpu=_same([part.gpu for part in parts]),
        clock_mhz=_same([part.clock_mhz for part in parts]),
        power_w=_same([part.power_w for part in parts]),
        throttled=_same([part.throttled for part in parts]),
        energy_j=_mean_of_known([part.energy_j for part in parts]),
        energy_j_low=min((part.energy_j_low for part in parts if part.energy_j_low is not None), default=None),
        energy_j_high=max((part.energy_j_high for part in parts if part.energy_j_high is not None), default=None),
        baseline_energy_j=_mean_of_known([part.baseline_energy_j for part in parts]),
        relative_error=max((part.relative_error for part in parts if part.relative_error is not None), default=None),
        detail=f"of {len(parts)} rows: {', '.join(map(_said, parts))}",
    )


def _apart(parts: Sequence[Trial]) -> list[Disagreement]:
    """The row's disagreement where two of its parts have intervals without a common time."""
    fastest, slowest = min(parts, key=_high), max(parts, key=_low)
    if _high(fastest) >= _low(slowest):
        return []
    said = tuple(map(_said, parts))
    return [Disagreement(fastest.problem, fastest.config_id, said, _time(slowest) / _time(fastest) - 1)]


def _unlike_endings(trials: Iterable[Trial]) -> list[Disagreement]:
    """The kernels that are right by one origin and fail by another."""
    ends: dict[object, dict[str, Trial]] = {}
    for trial in trials:
        if trial.origin and trial.object_sha256:
            of_kernel = ends.setdefault((trial.problem, trial.made_from, trial.object_sha256), {})
            of_kernel.setdefault(str(trial.status), trial)
    unlike = [found for found in ends.values() if len(found) > 1 and str(Status.OK) in found]
    return [
        Disagreement(
            next(iter(found.values())).problem,
            next(iter(found.values())).config_id,
            tuple(f"{status} in {trial.origin}" for status, trial in sorted(found.items())),
        )
        for found in unlike
        if len({trial.origin for trial in found.values()}) > 1
    ]


def _said(part: Trial) -> str:
    return f"{_time(part):.2f} us ({_low(part):.2f}..{_high(part):.2f}) in {part.origin}"


def _time(trial: Trial) -> float:
    assert trial.time_us is not None, "only rows with a time become one"
    return trial.time_us


def _low(trial: Trial) -> float:
    return _time(trial) if trial.time_us_low is None else trial.time_us_low


def _high(trial: Trial) -> float:
    return _time(trial) if trial.time_us_high is None else trial.time_us_high


def _mean(values: Sequence[float], samples: Sequence[int]) -> float:
    return math.fsum(value * count for value, count in zip(values, samples, strict=True)) / sum(samples)


def _mean_if_all(values: Sequence[float | None], samples: Sequence[int]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known, samples) if len(known) == len(values) else None


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    """Energy is measured of few rows, in windows of one length."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _same(values: Sequence[_T | None]) -> _T | None:
    return values[0] if len(set(values)) == 1 else None
