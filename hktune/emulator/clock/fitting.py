"""Fits constants of the clock to measured times: which of them some launches can tell, what those then are, and how far
the model is off before and after, on shapes that a fit has not seen.

What is minimised is the square of log(modelled / measured) in units of `sigma`, of outliers its absolute value. Each
constant is drawn to what it was, by PRIOR_SIGMA: where launches say nothing, it stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.emulator.clock.launch_time import modelled_of, settled
from hktune.emulator.clock.memory_traffic import Order
from hktune.emulator.clock.profile import Profile
from hktune.emulator.clock.rates import Rates

SIGMA = 0.05
"""Of log(modelled / measured) of one launch, where nothing else is said: about what the model errs by on AMD's own
kernels."""

PRIOR_SIGMA = 0.5
"""Of a constant, as a part of what it was."""

TOLD_SIGMA = 0.1
"""A constant that launches leave less certain than this, as a part of it, is not told by them."""

_FACTORS = (0.2, 5.0)
_LOOK = 0.1  # so much a constant is moved, either way, to see what it does
_CLOCK = re.compile(r"clock_ghz\[([0-9]+)\]\Z")

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class MeasuredLaunch:
    """A proved kernel's launch on a problem, and its measured time. `sigma`: see SIGMA."""

    profile: Profile
    problem: Problem
    launch: Launch
    tile: Tile
    order: Order
    time_us: float
    sigma: float = SIGMA


def constants_of(rates: Rates, names: Sequence[str]) -> dict[str, float]:
    """Values of constants by name: of fields of `rates`, or of points of its clock as clock_ghz[1]."""
    found = {}
    for name in names:
        point = _CLOCK.match(name)
        found[name] = rates.clock_ghz[int(point[1])][1] if point else float(getattr(rates, name))
    return found


def clock_names(rates: Rates) -> tuple[str, ...]:
    """The points of the clock that power decides: all but the highest."""
    return tuple(f"clock_ghz[{number}]" for number in range(1, len(rates.clock_ghz)))


def with_constants(rates: Rates, values: Mapping[str, float]) -> Rates:
    """`rates` with the constants of `values`. A busier clock is never the faster one: where a point is above the one
    before, it is lowered to that."""
    plain = {name: value for name, value in values.items() if not _CLOCK.match(name)}
    points, below_ghz = [], float("inf")
    for number, (share, ghz) in enumerate(rates.clock_ghz):
        below_ghz = min(below_ghz, values.get(f"clock_ghz[{number}]", ghz))
        points.append((share, below_ghz))
    return replace(rates, **plain, clock_ghz=tuple(points))  # type: ignore[arg-type]  # of floats, all of them


def log_ratios(launches: Sequence[MeasuredLaunch], rates: Rates, arch: Arch) -> Values:
    """log(modelled / measured) of each launch."""
    times_us = []
    for one in launches:
        launched = settled(one.profile, one.problem, one.launch, one.tile, arch, one.order, rates)
        times_us.append(modelled_of(launched, one.problem, arch, rates).timing.time_us)
    found: Values = np.log(np.array(times_us) / [one.time_us for one in launches])
    return found


def uncertainty(launches: Sequence[MeasuredLaunch], rates: Rates, arch: Arch, names: Sequence[str]) -> dict[str, float]:
    """How uncertain the launches leave each constant, as a part of it, with the others of `names` free too."""
    return _spread(_information(launches, rates, arch, names), names, names)


def told_by(launches: Sequence[MeasuredLaunch], rates: Rates, arch: Arch, names: Sequence[str]) -> tuple[str, ...]:
    """The constants among `names` that the launches tell: the least certain is left out until all of them are."""
    information, left = _information(launches, rates, arch, names), list(names)
    while left:
        spread = _spread(information, names, left)
        worst = max(left, key=lambda name: spread[name])
        if spread[worst] <= TOLD_SIGMA:
            break
        left.remove(worst)
    return tuple(left)


def _information(launches: Sequence[MeasuredLaunch], rates: Rates, arch: Arch, names: Sequence[str]) -> Values:
    """What launches and prior say of the constants together: the inverse of their covariance."""
    sigma = np.array([one.sigma for one in launches])
    values, now = constants_of(rates, names), log_ratios(launches, rates, arch)
    information = np.eye(len(names)) / PRIOR_SIGMA**2
    for step in (-_LOOK, _LOOK):  # what binds only beyond a value is seen from one side
        moved = [with_constants(rates, {name: values[name] * (1 + step)}) for name in names]
        slopes = [(log_ratios(launches, each, arch) - now) / step / sigma for each in moved]
        jacobian = np.stack(slopes, axis=1)
        information += jacobian.T @ jacobian / 2
    return information


def _spread(information: Values, names: Sequence[str], left: Sequence[str]) -> dict[str, float]:
    """The standard deviation of each constant that is `left`, where the others do not move."""
    at = [names.index(name) for name in left]
    spread = np.sqrt(np.diag(np.linalg.inv(information[np.ix_(at, at)])))
    return dict(zip(left, spread.tolist(), strict=True))


def fitted(
    launches: Sequence[MeasuredLaunch],
    rates: Rates,
    arch: Arch,
    names: Sequence[str],
    prior_sigma: float = PRIOR_SIGMA,
    start: Rates | None = None,
) -> Rates:
    """`rates` with the constants `names` as they suit the launches best, sought from those of `start`."""
    if not names:
        return rates
    from scipy.optimize import least_squares

    sigma = np.array([one.sigma for one in launches])
    before = constants_of(rates, names)

    def rates_at(factors: Values) -> Rates:
        return with_constants(
            rates, {name: before[name] * float(each) for name, each in zip(names, factors, strict=True)}
        )

    def residuals(factors: Values) -> Values:
        return np.concatenate([log_ratios(launches, rates_at(factors), arch) / sigma, (factors - 1) / prior_sigma])

    first = [value / before[name] for name, value in constants_of(start or rates, names).items()]
    options = {"loss": "soft_l1", "x_scale": 0.1, "diff_step": 0.02, "max_nfev": 15, "bounds": _FACTORS}
    return rates_at(least_squares(residuals, np.clip(first, *_FACTORS), **options).x)


def folds_of(problems: Sequence[Problem], folds: int) -> Numbers:
    """A fold for each problem, equal for equal ones. There are no more folds than problems."""
    distinct = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    order = np.random.default_rng(0).permutation(len(distinct)) % min(folds, len(distinct))
    return np.array([order[distinct[problem]] for problem in problems], dtype=np.intp)


def left_out(
    launches: Sequence[MeasuredLaunch],
    rates: Rates,
    arch: Arch,
    names: Sequence[str],
    folds: int = 5,
    prior_sigma: float = PRIOR_SIGMA,
    start: Rates | None = None,
) -> Values:
    """log(modelled / measured) of each launch, with constants fitted to the other folds' shapes."""
    fold = folds_of([one.problem for one in launches], folds)
    found = np.empty(len(launches))
    for number in range(int(fold.max()) + 1):
        own = [one for one, each in zip(launches, fold, strict=True) if each == number]
        others = [one for one, each in zip(launches, fold, strict=True) if each != number]
        found[fold == number] = log_ratios(own, fitted(others, rates, arch, names, prior_sigma, start), arch)
    return found
