"""Which ok trials a search space can make a table of: one that it cannot may win, and be compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hktune.core.config import Config
from hktune.core.errors import InputError, StoreError
from hktune.core.operation import Operation
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.space import SearchSpace


def require_own(space: SearchSpace, trials: Iterable[Trial], where: Path) -> None:
    """Raises StoreError for the first of `trials`, which are of the file `where`, that `own_trials` would leave out."""
    for trial, reason in _judged(space, trials):
        if reason:
            raise StoreError(f"{where}: trial {trial.trial}: {reason}: delete that line")


def own_trials(space: SearchSpace, trials: Iterable[Trial]) -> tuple[list[Trial], str]:
    """`trials` without the ok ones whose operation the template of `space` cannot do, or whose config is not of `space`
    or is illegal; and a line that counts those, "" where there are none."""
    own: list[Trial] = []
    foreign: list[tuple[Trial, str]] = []
    for trial, reason in _judged(space, trials):
        if reason:
            foreign.append((trial, reason))
        else:
            own.append(trial)
    if not foreign:
        return own, ""
    first, reason = foreign[0]
    found = f"{first.problem}, config {first.config_id}: {reason}"
    return own, f"{len(foreign)} ok trials that {space.name} has no place for are left out; the first is of {found}"


def _judged(space: SearchSpace, trials: Iterable[Trial]) -> Iterator[tuple[Trial, str]]:
    """Each trial, and why no table of `space` can have it; "" where one can, or where it is not ok. A config is judged
    once for each operation."""
    reasons: dict[tuple[str, Operation], str] = {}
    for trial in trials:
        if trial.status is not Status.OK:
            yield trial, ""
            continue
        key = (trial.config_id, trial.operation)
        if key not in reasons:
            reasons[key] = _why_foreign(space, trial)
        yield trial, reasons[key]


def _why_foreign(space: SearchSpace, trial: Trial) -> str:
    try:
        space.for_operation(trial.operation).require_own(Config.from_json(trial.config))
    except InputError as foreign:
        return str(foreign)
    return ""
