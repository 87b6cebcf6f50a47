"""A row of trials.csv as a trial of Optuna's, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from hktune.core.config import Config
from hktune.core.trial import Trial
from hktune.space import Parameter
from hktune.store.recordings.t4 import Measurement
from hktune.store.recordings.t4_trials import cells_of, trial_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

ROW = "row"
"""The attribute that holds the whole row, so that nothing is lost."""

_SHOWN = ("config_id", "status", "stage", "source", "detail", "baseline_us", "vendor_best_us", "tflops", "template")
"""What of a row has an attribute of its own."""

Known = tuple[str, str, str | None]
"""A row among those of one problem and template: its config's id, its stage, and when it was made."""


def known_by(trial: Trial) -> Known:
    """What distinguishes `trial`."""
    return (trial.config_id, str(trial.stage), trial.started_at)


def known_in(frozen: FrozenTrial) -> Known | None:
    """What distinguishes the row that `frozen` was made of; None where it was made of none."""
    row = frozen.user_attrs.get(ROW)
    if not isinstance(row, Mapping):
        return None
    return (str(row.get("config_id")), str(row.get("stage")), row.get("started_at"))


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """The values of a parameter as Optuna has them. Whole numbers in even steps are a range with that step; those of
    one ratio a logarithmic range, which holds numbers between them too; all else is a choice."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    numbers = sorted(value for value in parameter.values if isinstance(value, int) and not isinstance(value, bool))
    if len(numbers) < len(parameter.values) or len(numbers) < 2:
        return CategoricalDistribution(parameter.values)
    pairs = list(pairwise(numbers))
    steps = {after - before for before, after in pairs}
    if len(steps) == 1:
        return IntDistribution(numbers[0], numbers[-1], step=steps.pop())
    if numbers[0] > 0 and all(after * numbers[0] == before * numbers[1] for before, after in pairs):
        return IntDistribution(numbers[0], numbers[-1], log=True)
    return CategoricalDistribution(parameter.values)


def frozen_of(trial: Trial, parameters: Sequence[Parameter]) -> FrozenTrial:
    """`trial` as Optuna has it: its time in us is the value, a failure is FAIL, and what was left early is PRUNED at
    the bound that its time is. `parameters` are those of its space; of what has one value alone nothing is said."""
    from optuna.trial import TrialState, create_trial

    config = Config.from_json(trial.config)
    several = [each for each in parameters if len(each.values) > 1 and each.has(config.get(each.name))]
    if trial.time_us is None:
        state, value, bound = TrialState.FAIL, None, {}
    elif trial.left_early:
        state, value, bound = TrialState.PRUNED, None, {0: trial.time_us}
    else:
        state, value, bound = TrialState.COMPLETE, trial.time_us, {}
    frozen = create_trial(
        state=state,
        value=value,
        intermediate_values=bound,
        params={each.name: config[each.name] for each in several},
        distributions={each.name: distribution_of(each) for each in several},
        user_attrs=_attributes(trial),
    )
    if (ended := _local_time(trial.started_at)) is not None:
        frozen.datetime_start = ended - timedelta(seconds=trial.compile_s or 0.0)
        frozen.datetime_complete = ended
    return frozen


def row_of(frozen: FrozenTrial) -> Trial:
    """The row that `frozen` was made of, checked as one of trials.csv is. Raises ValueError, or an error of hktune, for
    what is none."""
    row = frozen.user_attrs.get(ROW)
    if not isinstance(row, Mapping) or not isinstance(row.get("config"), str):
        raise ValueError(f"trial {frozen.number} has no row of hktune's")  # noqa: TRY004 - it is a file's fault
    cells = [Measurement(str(name), value) for name, value in row.items() if name != "config"]
    return trial_of(Config.from_json(row["config"]), cells)


def _attributes(trial: Trial) -> dict[str, object]:
    cells = {each["name"]: each["value"] for each in cells_of(trial)}
    shown = {name: cells[name] for name in _SHOWN if name in cells}
    return {**shown, ROW: {**cells, "config": trial.config}}


def _local_time(started_at: str | None) -> datetime | None:
    """The moment as Optuna has it: this machine's time, of no zone."""
    try:
        return None if started_at is None else datetime.fromisoformat(started_at).astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None
