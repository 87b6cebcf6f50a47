"""From measured trials to a calibration: the rows that count, what both kinds have in common, and what is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hktune.core.calibration import Calibration
from hktune.core.errors import InputError, StoreError
from hktune.core.identity import Identity
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.version import __version__
from hktune.measure.fitting import Fit, Values
from hktune.store import read_environment, read_trials
from hktune.store.trials import FILE_NAME
from hktune.tuning.trial_rows import now

SHAPES_MIN = 2
"""Fewer say nothing about shapes that a fit has not seen."""


@dataclass(frozen=True)
class ConstantFound:
    """One constant: what it was, what the rows make of it, and how uncertain they leave it, as a part of it. `after`
    and `uncertainty` are None where the rows do not identify it."""

    name: str
    before: float
    after: float | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Judged:
    """How good the model is on one class of rows, before and after, each row by constants that its shape had no part
    in."""

    name: str
    rows: int
    before: float
    after: float


@dataclass(frozen=True)
class Calibrated:
    """A calibration, None where the rows identify no constant; what it was made of, and what else to know."""

    calibration: Calibration | None
    constants: tuple[ConstantFound, ...]
    classes: tuple[Judged, ...]
    notes: tuple[str, ...] = ()


def device_of(directory: Path) -> Identity:
    """The GPU that the trials of `directory` were measured on. Raises StoreError where nothing says, and InputError
    where times are modelled."""
    environment = read_environment(directory)
    if environment is None and not directory.is_dir():
        raise StoreError(f"{directory}: is no results directory: pass a DIR that hktune tune left on a GPU")
    if environment is None:
        raise StoreError(f"{directory}: no environment.json says which device its trials are of: keep it with them")
    if environment.identity.kind == "emulated":
        rule = f"{directory}: its times are modelled, and a model is not fitted to itself"
        raise InputError(f"{rule}: pass a DIR that hktune tune left on a GPU")
    return environment.identity


def measured_rows(directory: Path, left_out: Counter[str] | None = None) -> list[Trial]:
    """The trials of kernels in `directory` that have a measured time of cold operands, one of each kernel on each
    problem: the confirmed one, else the last. A row that was left early has none, only a bound: `left_out` counts the
    kernels of which there is nothing else. Raises StoreError for an unreadable file, InputError where there are too
    few."""
    found: dict[object, Trial] = {}
    bounds: set[object] = set()
    for trial in read_trials(directory / FILE_NAME):
        usable = trial.source is Source.MEASURED and trial.status is Status.OK and trial.time_us is not None
        key = (trial.problem, trial.made_from)
        if not usable or not trial.is_kernel or trial.cache == "warm":
            continue
        if trial.left_early:
            bounds.add(key)
        elif key not in found or found[key].stage is not Stage.CONFIRMED or trial.stage is Stage.CONFIRMED:
            found[key] = trial
    if left_out is not None:
        left_out["left early, so that their times are bounds"] += len(bounds - found.keys())
    rows = list(found.values())
    require_shapes(directory, [trial.problem for trial in rows])
    return rows


def require_shapes(directory: Path, problems: Sequence[Problem]) -> None:
    """Raises InputError for rows of fewer shapes than a fit can be judged on."""
    shapes = len(set(problems))
    if shapes < SHAPES_MIN:
        rule = f"{directory}: {len(problems)} usable measured trials of {shapes} shapes, at least {SHAPES_MIN} shapes"
        raise InputError(f"{rule} are needed: tune more there")


def in_turn(rows: Iterable[Trial]) -> list[Trial]:
    """The fastest row of each problem, then the second of each, and so on."""
    by_problem: dict[Problem, list[Trial]] = {}
    for row in rows:
        by_problem.setdefault(row.problem, []).append(row)
    ranked = [(rank, row) for own in by_problem.values() for rank, row in enumerate(sorted(own, key=time_us))]
    return [row for _, row in sorted(ranked, key=lambda each: each[0])]


def constants_found(fit: Fit, names: Sequence[str], values: Mapping[str, float]) -> tuple[ConstantFound, ...]:
    """What became of each constant of `fit`; `names` are those that the rows identify."""
    spread = fit.uncertainty(names)
    return tuple(
        ConstantFound(name, before, values[name], spread[name]) if name in spread else ConstantFound(name, before)
        for name, before in fit.constants.items()
    )


def made_of(identity: Identity, problems: Sequence[Problem]) -> dict[str, object]:
    """What a calibration says of its own making."""
    return {
        "arch": identity.arch,
        "device": f"{identity.name} {identity.pci_id}" if identity.pci_id else identity.name,
        "rows": len(problems),
        "shapes": len(set(problems)),
        "hktune": __version__,
        "made_at": now(),
    }


Measure = Callable[[Values, Values], float]
"""Of the logarithms of modelled and measured times of one shape's kernels."""

WRONG = "pairs ordered wrong"


def judged_by_shape(
    name: str,
    measure: Measure,
    problems: Sequence[Problem],
    times_us: Sequence[float],
    logs: tuple[Values, Values],
    more_than: int = 1,
) -> Judged:
    """The mean of `measure` over shapes that have more than so many rows. `logs` are those of modelled / measured,
    before and after."""
    by_problem: dict[Problem, list[int]] = {}
    for number, problem in enumerate(problems):
        by_problem.setdefault(problem, []).append(number)
    own = [of for of in by_problem.values() if len(of) > more_than]
    measured = np.log(np.array(times_us))
    before, after = (
        float(np.mean([measure(each[of] + measured[of], measured[of]) for of in own])) if own else 0.0 for each in logs
    )
    return Judged(name, sum(map(len, own)), before, after)


def pairs_wrong(modelled: Values, measured: Values) -> float:
    """The part of all pairs whose times differ that are ordered the other way round."""
    sooner, faster = (np.sign(values[:, None] - values[None, :]) for values in (modelled, measured))
    return float((sooner * faster < 0).sum() / max((faster != 0).sum(), 1))


def mean_error(logs: Values) -> float:
    """Of |modelled / measured - 1|, given the logarithms of these ratios."""
    return float(np.abs(np.exp(logs) - 1).mean())


def time_us(trial: Trial) -> float:
    """The time of a measured row."""
    assert trial.time_us is not None, "a measured row has a time"
    return trial.time_us
