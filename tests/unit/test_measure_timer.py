"""The timer on a simulated device: what is queued in which order, and what comes out of the events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hktune.device.device import Clocks
from hktune.measure.timer import GRAPH_US, HEAT_US, LAUNCHES_MAX, GraphTimer


class Replay:
    """A captured list of launch times."""

    def __init__(self, times_us: list[float]) -> None:
        self.times_us = times_us


class SimulatedDevice:
    """One stream whose work takes simulated time. The host takes `host_us` a call, and the stream waits for it."""

    def __init__(self, host_us: float = 5.0) -> None:
        self.host_us = host_us
        self.host_now = self.stream_now = 0.0
        self.capturing: list[float] | None = None
        self.waited = self.clocks_read = 0

    def create_stream(self) -> int:
        return 7

    def launch_us(self, time_us: float) -> None:
        if self.capturing is not None:
            self.capturing.append(time_us)
        else:
            self._queue(time_us)

    def _queue(self, time_us: float) -> None:
        self.host_now += self.host_us
        self.stream_now = max(self.stream_now, self.host_now) + time_us

    def record(self, stream: int) -> float:
        assert stream == 7
        self._queue(0.0)
        return self.stream_now

    def elapsed_us(self, start: float, end: float) -> float:
        self.waited += 1
        self.host_now = max(self.host_now, end)
        return end - start

    def capture(self, enqueue: Callable[[], None], stream: int) -> Replay:
        self.capturing = []
        enqueue()
        captured, self.capturing = self.capturing, None
        return Replay(captured)

    def replay(self, graph: Replay, stream: int) -> None:
        self._queue(sum(graph.times_us))

    def clocks(self) -> Clocks:
        self.clocks_read += 1
        return Clocks(sm_mhz=1980, power_w=300.0)


@pytest.fixture
def device() -> SimulatedDevice:
    return SimulatedDevice()


@pytest.fixture
def timer(device: SimulatedDevice) -> GraphTimer:
    return GraphTimer(device)  # type: ignore[arg-type]


def test_a_graph_is_long_enough_and_uses_every_set_as_often(timer: GraphTimer, device: SimulatedDevice) -> None:
    sets: list[int] = []

    def enqueue(index: int) -> None:
        sets.append(index)
        device.launch_us(30.0)

    side = timer.side(enqueue, 4)
    assert side.launches * 30.0 >= GRAPH_US
    final = sets[-side.launches :]
    assert final == [0, 1, 2, 3] * (side.launches // 4)


def test_short_launches_stop_at_the_limit_and_long_ones_run_once_a_set(
    timer: GraphTimer, device: SimulatedDevice
) -> None:
    assert timer.side(lambda _: device.launch_us(0.5), 4).launches == LAUNCHES_MAX
    assert timer.side(lambda _: device.launch_us(5000.0), 2).launches == 2


def test_the_host_does_not_show_in_queued_rounds(timer: GraphTimer, device: SimulatedDevice) -> None:
    sides = [timer.side(lambda _: device.launch_us(30.0), 2), timer.side(lambda _: device.launch_us(40.0), 2)]
    played = timer.play(sides, [[0, 1], [1, 0], [1, 0], [0, 1]])
    assert played == [[pytest.approx(value) for value in row] for row in ([30, 40], [40, 30], [40, 30], [30, 40])]


@pytest.mark.parametrize("host_us", [5.0, 50.0])
def test_a_glance_does_not_see_the_host_behind_a_graph(host_us: float) -> None:
    device = SimulatedDevice(host_us)
    timer = GraphTimer(device)  # type: ignore[arg-type]
    lead = timer.side(lambda _: device.launch_us(30.0), 2)
    assert timer.glance_us(lambda _: device.launch_us(30.0), lead) == pytest.approx(30.0)


def test_a_glance_of_a_host_that_is_held_up_is_too_long_never_too_short() -> None:
    device = SimulatedDevice(host_us=1000.0)
    timer = GraphTimer(device)  # type: ignore[arg-type]
    lead = timer.side(lambda _: device.launch_us(30.0), 2)
    assert timer.glance_us(lambda _: device.launch_us(30.0), lead) >= 30.0


def test_clocks_are_read_while_the_device_is_busy(timer: GraphTimer, device: SimulatedDevice) -> None:
    side = timer.side(lambda _: device.launch_us(30.0), 2)
    assert device.clocks_read == 0, "estimates do not need them"
    waited = device.waited
    timer.play([side], [[0]])
    assert device.clocks_read == 1
    assert device.waited > waited
    assert timer.clocks.sm_mhz == 1980


def test_heating_lasts_as_long_as_it_says(timer: GraphTimer, device: SimulatedDevice) -> None:
    side = timer.side(lambda _: device.launch_us(30.0), 2)
    before = timer.busy_us
    timer.heat(side)
    assert timer.busy_us - before >= HEAT_US


def test_a_side_keeps_what_its_launches_refer_to(timer: GraphTimer, device: SimulatedDevice) -> None:
    def enqueue(_: int) -> None:
        device.launch_us(30.0)

    assert timer.side(enqueue, 2).keeps is enqueue
