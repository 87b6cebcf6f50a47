"""The timer on a simulated device: what is queued in which order, and what comes out of the events."""

from __future__ import annotations

import math

import pytest
from simulated_gpu import SimulatedGpu, Work

from hktune.measure.timer import GRAPH_US, HEAT_US, LAUNCHES_MAX, GraphTimer


@pytest.fixture
def device() -> SimulatedGpu:
    return SimulatedGpu(host_us=5.0)


@pytest.fixture
def timer(device: SimulatedGpu) -> GraphTimer:
    return GraphTimer(device)  # type: ignore[arg-type]


def test_a_graph_is_long_enough_and_uses_every_set_as_often(timer: GraphTimer, device: SimulatedGpu) -> None:
    sets: list[int] = []

    def enqueue(index: int) -> None:
        sets.append(index)
        device.queue(30.0)

    side = timer.side(enqueue, 4)
    assert side.launches * 30.0 >= GRAPH_US
    final = sets[-side.launches :]
    assert final == [0, 1, 2, 3] * (side.launches // 4)


def test_short_launches_stop_at_the_limit_and_long_ones_run_once_a_set(timer: GraphTimer, device: SimulatedGpu) -> None:
    assert timer.side(lambda _: device.queue(0.5), 4).launches == LAUNCHES_MAX
    assert timer.side(lambda _: device.queue(5000.0), 2).launches == 2


def test_the_host_does_not_show_in_queued_rounds(timer: GraphTimer, device: SimulatedGpu) -> None:
    sides = [timer.side(lambda _: device.queue(30.0), 2), timer.side(lambda _: device.queue(40.0), 2)]
    played = timer.play(sides, [[0, 1], [1, 0], [1, 0], [0, 1]])
    assert played == [[pytest.approx(value) for value in row] for row in ([30, 40], [40, 30], [40, 30], [30, 40])]


@pytest.mark.parametrize("host_us", [5.0, 50.0])
def test_a_glance_does_not_see_the_host_behind_a_graph(host_us: float) -> None:
    device = SimulatedGpu(host_us)
    timer = GraphTimer(device)  # type: ignore[arg-type]
    lead = timer.side(lambda _: device.queue(30.0), 2)
    assert timer.glance_us(lambda _: device.queue(30.0), lead) == pytest.approx(30.0)


def test_a_glance_of_a_host_that_is_held_up_is_too_long_never_too_short() -> None:
    device = SimulatedGpu(host_us=1000.0)
    timer = GraphTimer(device)  # type: ignore[arg-type]
    lead = timer.side(lambda _: device.queue(30.0), 2)
    assert timer.glance_us(lambda _: device.queue(30.0), lead) >= 30.0


def test_clocks_are_read_while_the_device_is_busy(timer: GraphTimer, device: SimulatedGpu) -> None:
    side = timer.side(lambda _: device.queue(30.0), 2)
    assert device.clocks_read == 0, "estimates do not need them"
    waited = device.waited
    timer.play([side], [[0]])
    assert device.clocks_read == 1
    assert device.waited > waited
    assert timer.clocks.sm_mhz == 1980


class CappedGpu(SimulatedGpu):
    """Its clock follows what the board drew lately, down to where that is LIMIT_W: it forgets within LAG_US."""

    LIMIT_W, LAG_US = 700.0, 30_000.0
    seen_w = 700.0

    def replay(self, graph: list[Work], stream: int) -> None:
        slower = max(self.seen_w / self.LIMIT_W, 1.0)
        super().replay([(time_us * slower, run, more_w) for time_us, run, more_w in graph], stream)
        [drawn_w] = {self.idle_w + more_w for _, _, more_w in graph}
        lasted_us = slower * sum(time_us for time_us, _, _ in graph)
        self.seen_w += (drawn_w - self.seen_w) * (1 - math.exp(-lasted_us / self.LAG_US))


def test_a_kernel_that_slows_itself_by_its_power_is_seen_to_in_turns_alone() -> None:
    """One takes 30 us where nothing holds the clock, but wants 800 W of 700; the other takes 31 us and 700 W."""
    device = CappedGpu(host_us=5.0)
    timer = GraphTimer(device)  # type: ignore[arg-type]
    hungry = timer.side(lambda _: device.queue(30.0, more_w=800.0 - device.idle_w), 2)
    frugal = timer.side(lambda _: device.queue(31.0, more_w=700.0 - device.idle_w), 2)
    orders = [[0, 1], [1, 0]] * 4
    shared = timer.play([hungry, frugal], orders)
    ratios = [times[order.index(0)] / times[order.index(1)] for order, times in zip(orders, shared, strict=True)]
    assert all(ratio == pytest.approx(30 / 31, abs=0.005) for ratio in ratios)
    in_turns = timer.take_turns([hungry, frugal], orders)
    own_us = {0: 30.0 * 800 / 700, 1: 31.0}
    assert in_turns == [[pytest.approx(own_us[side], rel=0.01) for side in order] for order in orders]


def test_heating_lasts_as_long_as_it_says(timer: GraphTimer, device: SimulatedGpu) -> None:
    side = timer.side(lambda _: device.queue(30.0), 2)
    before = timer.busy_us
    timer.heat(side)
    assert timer.busy_us - before >= HEAT_US


def test_a_side_keeps_what_its_launches_refer_to(timer: GraphTimer, device: SimulatedGpu) -> None:
    def enqueue(_: int) -> None:
        device.queue(30.0)

    assert timer.side(enqueue, 2).keeps is enqueue
