"""Which parameters mattered, by Optuna: what the best trials have in common that the others have not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hktune.core.config import Config
from hktune.core.trial import Trial
from hktune.report.results.curves import relative_costs
from hktune.report.results.results import Results

TRIALS_MIN, TRIALS_MAX = 50, 800
"""With fewer trials nothing is said. Of more than the most, every few are taken: each costs Optuna a millisecond."""

QUANTILE = 0.1
"""The best tenth of trials is what the rest is compared with."""

# The least and the greatest m of each group of shapes.
_ALL = "all shapes"
_GROUPS = {_ALL: (0, math.inf), "m to 64": (0, 64), "m to 1024": (65, 1024), "m over 1024": (1025, math.inf)}


@dataclass(frozen=True)
class Importance:
    """What mattered in the trials of `shapes` shapes, those of `trials` that were looked at: parameters and their
    shares, which sum to 1, greatest first."""

    name: str
    shapes: int
    trials: int
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Importances:
    """What mattered to one template: in all of its trials, and in those of few, more and many rows of C."""

    template: str
    groups: Sequence[Importance]


def importances(results: Results) -> list[Importances]:
    """Of each template that has trials enough, what mattered."""
    of_template: dict[str, dict[str, list[tuple[Trial, float]]]] = {}
    for shape in results.solved:
        for trial, relative in relative_costs(shape):
            named = of_template.setdefault(trial.template or "", {})
            named.setdefault(shape.label, []).append((trial, relative))
    found = []
    for template, of_shape in sorted(of_template.items()):
        groups = [group for name, range_of_m in _GROUPS.items() if (group := _group(name, range_of_m, of_shape))]
        if groups:
            found.append(Importances(template, groups))
    return found


def _group(
    name: str, range_of_m: tuple[float, float], of_shape: Mapping[str, Sequence[tuple[Trial, float]]]
) -> Importance | None:
    """None of too few trials, and of a group that is all shapes again."""
    least, most = range_of_m
    rows = [row for own in of_shape.values() for row in own if least <= row[0].m <= most]
    shapes = len({row.problem for row, _ in rows})
    if len(rows) < TRIALS_MIN or (name != _ALL and shapes == len(of_shape)):
        return None
    taken = rows[:: math.ceil(len(rows) / TRIALS_MAX)]
    shares = _shares([Config.from_json(trial.config) for trial, _ in taken], [relative for _, relative in taken])
    return Importance(name, shapes, len(taken), shares) if shares else None


def _shares(configs: Sequence[Config], values: Sequence[float]) -> dict[str, float]:
    """The importance of every parameter that has several values. A value is known by its text: 1 is not true."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    texts = [{name: repr(value) for name, value in config.items()} for config in configs]
    shared = set.intersection(*(set(each) for each in texts))
    choices = {name: sorted({each[name] for each in texts}) for name in sorted(shared)}
    several: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(own) for name, own in choices.items() if len(own) > 1
    }
    if not several or min(values) == max(values):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.study.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials(
        optuna.trial.create_trial(
            params={name: each[name] for name in several}, distributions=several, value=math.log(value)
        )
        for each, value in zip(texts, values, strict=True)
    )
    return dict(get_param_importances(study, evaluator=evaluator))
