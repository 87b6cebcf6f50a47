"""The constants of a space's estimate from measured trials: `hktune calibrate` where the clock has no rates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hktune.core.calibration import ESTIMATE, Calibration
from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.expression import Derived
from hktune.core.problem import Problem
from hktune.core.shipped import SPACE_OF
from hktune.core.trial import Trial
from hktune.measure.fitting import Constants, Fit, Rows, Values
from hktune.space import SearchSpace, load_space
from hktune.tuning.calibrating.measured_trials import (
    WRONG,
    Calibrated,
    Judged,
    constants_found,
    device_of,
    judged_by_shape,
    made_of,
    measured_rows,
    pairs_wrong,
    require_shapes,
    time_us,
)

SIGMA = 0.15
"""Of log(estimate / measured) of one config: an estimate is rough."""

FIRST = 16
"""So many configs are tried first in the order of the estimate, and the best of them is looked at."""


def calibrate_estimate(directory: Path, space_file: Path | None, rows_max: int) -> Calibrated:
    """Fit the estimate's constants to the order that the trials of `directory` have within each shape. At most
    `rows_max` of them are fitted to, and all of them judged: those whose configs are of the space, whichever version of
    its template they were made from. Raises HktuneError for trials that cannot be used."""
    identity = device_of(directory)
    if space_file is None and identity.arch not in SPACE_OF:
        raise InputError(f"no search space for {identity.arch} comes with hktune: pass --space")
    space = load_space(space_file or SPACE_OF[identity.arch]).on(identity.compute_units)
    if not space.estimate_constants:
        raise InputError(f"{space.name} has no estimate with constants, so there is nothing to fit")
    left_out = Counter[str]()
    everything = measured_rows(directory, left_out)
    rows = [row for row in everything if _is_of(space, row)]
    problems = [row.problem for row in rows]
    require_shapes(directory, problems)
    fit = _fit(space, rows, _drawn(rows, rows_max))
    names = fit.identified()
    values = fit.fitted(names)
    before, after = fit.log_ratios(fit.constants, fit.everything), fit.left_out(names, start=values)
    classes = _classes(rows, before, after)
    left_out[f"their configs are not of {space.name}"] += len(everything) - len(rows)
    notes = _notes(left_out, len(rows) - len(fit.rows))
    calibration = Calibration(
        **made_of(identity, problems),  # type: ignore[arg-type]  # each value is of its field's type
        of=ESTIMATE,
        space=space.name,
        error_before=classes[0].before,
        error_after=classes[0].after,
        constants={name: float(value) for name, value in _whole(values).items()},
    )
    return Calibrated(calibration if names else None, constants_found(fit, names, values), classes, notes)


def _is_of(space: SearchSpace, row: Trial) -> bool:
    if row.template not in (None, space.template.name) or not space.template.does(row.operation):
        return False
    return space.domain(row.problem).has_values_of(space.completed(Config.from_json(row.config)))


def _notes(left_out: Counter[str], judged: int) -> tuple[str, ...]:
    said = [f"{judged} trials are judged, and not fitted to: see --rows"] if judged else []
    return (*said, *(f"{count} trials are left out: {why}" for why, count in left_out.items() if count))


def _drawn(rows: Sequence[Trial], count: int) -> Rows:
    """The numbers of at most `count` of `rows`, as many of each problem as of any other, drawn at random but the same
    each time."""
    by_problem: dict[Problem, list[int]] = {}
    for number in random.Random(0).sample(range(len(rows)), len(rows)):
        by_problem.setdefault(rows[number].problem, []).append(number)
    ranked = sorted((rank, number) for own in by_problem.values() for rank, number in enumerate(own))
    return np.array(sorted(number for _, number in ranked[:count]), dtype=np.intp)


def _whole(values: Constants) -> dict[str, int]:
    return {name: max(round(value), 1) for name, value in values.items()}


def _fit(space: SearchSpace, rows: Sequence[Trial], seen: Rows) -> Fit:
    """Only the order within a shape counts, so what is fitted is each ratio's distance from its shape's mean."""
    problems = [row.problem for row in rows]
    spaces = {problem.operation: space.for_operation(problem.operation) for problem in problems}
    scopes = [_scope(spaces[row.operation], row) for row in rows]
    log_times = np.log([time_us(row) for row in rows])

    def logs(constants: Constants, chosen: Rows) -> Values:
        other = {operation: own.estimate_with(_whole(constants)) for operation, own in spaces.items()}
        estimates = [_last(other[problems[row].operation], scopes[row]) for row in chosen]
        return _centred(np.log(estimates) - log_times[chosen], [problems[row] for row in chosen])

    constants = {name: float(value) for name, value in space.estimate_constants.items() if value > 0}
    return Fit(constants, logs, np.full(len(rows), SIGMA), problems, seen=seen)


def _scope(space: SearchSpace, row: Trial) -> dict[str, object]:
    """All that an estimate may name of a row, but for its own constants."""
    config = space.completed(Config.from_json(row.config))
    return {**space.facts(row.problem), **config, **space.domain(row.problem).derived_values(config)}


def _last(estimate: Derived, scope: Mapping[str, object]) -> int:
    *_, value = estimate.values(scope).values()
    return int(value)


def _centred(values: Values, problems: Sequence[Problem]) -> Values:
    """`values` without the mean of their problem's."""
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    of = np.array([numbers[problem] for problem in problems])
    centred: Values = values - (np.bincount(of, values) / np.bincount(of))[of]
    return centred


def _classes(rows: Sequence[Trial], before: Values, after: Values) -> tuple[Judged, ...]:
    """How good the order of the estimate is, in the mean over shapes: what the best of its first few configs loses to
    the best of all, of shapes that have more than these few, and which part of all pairs it orders wrong."""
    problems, times_us = [row.problem for row in rows], [time_us(row) for row in rows]
    most = max(Counter(problems).values())
    loss = judged_by_shape(
        f"best of the first {FIRST}: loss", _loss, problems, times_us, (before, after), min(FIRST, most - 1)
    )
    return (loss, judged_by_shape(WRONG, pairs_wrong, problems, times_us, (before, after)))


def _loss(estimates: Values, times: Values) -> float:
    first = np.argsort(estimates, kind="stable")[:FIRST]
    return float(np.exp(times[first].min() - times.min()) - 1)
