"""The energy of a launch on a real GPU: what its counter says is a power that a board may draw, again and again."""

from __future__ import annotations

import pytest

from hktune.core.problem import Problem
from hktune.device.cuda import CudaDevice
from hktune.measure.arena import Arena
from hktune.measure.baseline import TorchBaseline
from hktune.measure.energy import EnergyMeter
from hktune.measure.timer import GraphTimer

LARGE, SMALL = Problem(4096, 4096, 4096), Problem(16, 4096, 4096)
LEAST_W, MOST_W = 60, 1300  # of an idle board, and beyond any that there is


@pytest.mark.parametrize("problem", [LARGE, SMALL], ids=str)
def test_the_same_product_takes_the_same_energy_at_a_power_that_can_be(hopper: CudaDevice, problem: Problem) -> None:
    timer = GraphTimer(hopper)
    sets = Arena([problem], "cold", hopper.last_level_cache_bytes, seed=0).sets(problem)
    enqueue = TorchBaseline("cublas").prepare(problem, sets[0], timer.stream)
    side = timer.side(lambda index: enqueue(sets[index]), len(sets))
    first, second = EnergyMeter(hopper, timer).measure([side, side], [2, 2])
    if first is None or second is None:
        pytest.skip("this GPU does not count its energy")
    launch_s = timer.launch_us(side) * 1e-6
    for energy in (first, second):
        assert energy.low <= energy.joules <= energy.high
        assert LEAST_W < energy.joules / launch_s < MOST_W
    assert max(first.low, second.low) <= min(first.high, second.high), "the intervals of one kernel meet"
