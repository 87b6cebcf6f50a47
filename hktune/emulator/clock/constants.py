"""Constants of the clock by name, and how far its times are from measured ones with some in place of others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.core.problem_tiles import tiles_of
from hktune.emulator.clock.launch_time import modelled_of, settled
from hktune.emulator.clock.memory_traffic import Order
from hktune.emulator.clock.profile import Profile
from hktune.emulator.clock.rates import Rates

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredLaunch:
    """A proved kernel's launch on a problem, and its measured time."""

    profile: Profile
    problem: Problem
    launch: Launch
    tile: Tile
    order: Order
    time_us: float


def constants_of(rates: Rates, names: Sequence[str]) -> dict[str, float]:
    """Values of constants by name: of fields of `rates`, or of steps of its clock (`clock_steps`)."""
    steps = dict(zip(clock_steps(rates), itertools.pairwise(ghz for _, ghz in rates.clock_ghz), strict=True))
    found = {}
    for name in names:
        before_ghz, ghz = steps.get(name, (1.0, 0.0))
        found[name] = ghz / before_ghz if name in steps else float(getattr(rates, name))
    return found


def clock_steps(rates: Rates) -> tuple[str, ...]:
    """Names of the steps of the clock, each of a point as a part of the one before: clock_step[1] is the second point's
    over the highest. So what is said of a point is said of those after it too."""
    return tuple(f"clock_step[{number}]" for number in range(1, len(rates.clock_ghz)))


def with_constants(rates: Rates, values: Mapping[str, float]) -> Rates:
    """`rates` with the constants of `values`. A busier clock is never the faster one: a step is at most 1."""
    steps = constants_of(rates, clock_steps(rates))
    plain = {name: value for name, value in values.items() if name not in steps}
    (share, ghz), *others = rates.clock_ghz
    points = [(share, ghz)]
    for (share, _), (name, step) in zip(others, steps.items(), strict=True):
        ghz *= min(values.get(name, step), 1.0)
        points.append((share, ghz))
    return replace(rates, **plain, clock_ghz=tuple(points))  # type: ignore[arg-type]  # of floats, all of them


def log_ratios(launches: Sequence[MeasuredLaunch], rates: Rates, arch: Arch) -> Values:
    """log(modelled / measured) of each launch."""
    times_us = []
    for one in launches:
        tiles = tiles_of(one.problem, one.tile)
        launched = settled(one.profile, one.problem, one.launch, one.tile, arch, one.order, rates, tiles)
        times_us.append(modelled_of(launched, one.problem, arch, rates).timing.time_us)
    found: Values = np.log(np.array(times_us) / [one.time_us for one in launches])
    return found
