"""Which ok trials a search space can make a table of: one that it cannot may win, and be compiled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hktune.core.config import Config
from hktune.core.errors import InputError, StoreError
from hktune.core.operation import Operation
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.space import SearchSpace, Spaces


def require_own(spaces: Spaces, trials: Iterable[Trial], where: Path) -> None:
    """Raises StoreError for the first of `trials`, which are of the file `where`, that `own_trials` would leave out."""
    for trial, reason in _judged(spaces, trials):
        if reason:
            raise StoreError(f"{where}: trial {trial.trial}: {reason}: delete that line")


def own_trials(spaces: Spaces, trials: Iterable[Trial]) -> tuple[list[Trial], str]:
    """`trials`, which are of templates of `spaces`, without the ok ones whose operation their template cannot do, or
    whose config is not of its space or is illegal; and a line that counts those, "" where there are none."""
    own: list[Trial] = []
    foreign: list[tuple[Trial, str]] = []
    for trial, reason in _judged(spaces, trials):
        if reason:
            foreign.append((trial, reason))
        else:
            own.append(trial)
    if not foreign:
        return own, ""
    first, reason = foreign[0]
    found = f"{first.problem}, config {first.config_id}: {reason}"
    where = spaces.of(first.template_sha256).name
    return own, f"{len(foreign)} ok trials that {where} has no place for are left out; the first is of {found}"


def _judged(spaces: Spaces, trials: Iterable[Trial]) -> Iterator[tuple[Trial, str]]:
    """Each trial, and why no table of its space can have it; "" where one can, where it is not ok, and
    where it is of the vendor's library. A config is judged once for each operation."""
    reasons: dict[tuple[tuple[str | None, str], Operation], str] = {}
    for trial in trials:
        if trial.status is not Status.OK or not trial.is_kernel:
            yield trial, ""
            continue
        key = (trial.made_from, trial.operation)
        if key not in reasons:
            reasons[key] = _why_foreign(spaces.of(trial.template_sha256), trial)
        yield trial, reasons[key]


def _why_foreign(space: SearchSpace, trial: Trial) -> str:
    try:
        space.for_operation(trial.operation).require_own(Config.from_json(trial.config))
    except InputError as foreign:
        return str(foreign)
    return ""
