"""Which ok trials a search space can make a table of: one that it cannot may win, and be compiled."""

from __future__ import annotations

from collections.abc import Iterable

from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.operation import Operation
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.space import SearchSpace


def own_trials(space: SearchSpace, trials: Iterable[Trial]) -> tuple[list[Trial], str]:
    """`trials` without the ok ones whose operation the template of `space` cannot do, or whose config is not of `space`
    or is illegal; and a line that counts those, "" where there are none. A config is judged once for each operation."""
    reasons: dict[tuple[str, Operation], str] = {}
    own: list[Trial] = []
    foreign: list[Trial] = []
    for trial in trials:
        key = (trial.config_id, trial.operation)
        if trial.status is Status.OK and key not in reasons:
            reasons[key] = _why_foreign(space, trial)
        (foreign if trial.status is Status.OK and reasons[key] else own).append(trial)
    if not foreign:
        return own, ""
    first = foreign[0]
    found = f"{first.problem}, config {first.config_id}: {reasons[first.config_id, first.operation]}"
    return own, f"{len(foreign)} ok trials that {space.name} has no place for are left out; the first is of {found}"


def _why_foreign(space: SearchSpace, trial: Trial) -> str:
    """Why no table of `space` can have `trial`; "" where one can."""
    try:
        space.for_operation(trial.operation).require_own(Config.from_json(trial.config))
    except InputError as foreign:
        return str(foreign)
    return ""
