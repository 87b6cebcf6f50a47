"""The energy of a launch on a simulated board, whose counter moves in steps and whose power is known exactly."""

from __future__ import annotations

import pytest
from simulated_gpu import SimulatedGpu

from hktune.measure.energy import RESOLUTION, WINDOW_S, EnergyMeter
from hktune.measure.timer import GraphTimer, Side

IDLE_W = 100.0


class Board:
    """A simulated board whose counter moves every `update_ms`; its host has the time that it keeps itself."""

    def __init__(self, update_ms: float, host_us: float = 5.0, reading_us: float = 0.0) -> None:
        self.gpu = SimulatedGpu(host_us, update_us=update_ms * 1000, idle_w=IDLE_W, reading_us=reading_us)
        self.timer = GraphTimer(self.gpu)  # type: ignore[arg-type]
        self.meter = EnergyMeter(self.gpu, self.timer, self.now_s, self.pause)  # type: ignore[arg-type]

    def now_s(self) -> float:
        return self.gpu.host_now_us * 1e-6

    def pause(self, seconds: float) -> None:
        self.gpu.host_now_us += seconds * 1e6

    def side(self, time_us: float, power_w: float) -> Side:
        """A kernel that takes `time_us`, during which the whole board draws `power_w`."""
        return self.timer.side(lambda _: self.gpu.queue(time_us, more_w=power_w - IDLE_W), 2)


@pytest.mark.parametrize("update_ms", [1.0, 20.0, 100.0])
@pytest.mark.parametrize(("time_us", "power_w"), [(11.0, 450.0), (800.0, 700.0), (9000.0, 690.0)])
def test_the_steps_of_the_counter_do_not_show(update_ms: float, time_us: float, power_w: float) -> None:
    """Naively, between two readings 180 ms apart, a counter of 100 ms would be off by half."""
    board = Board(update_ms)
    (found,) = board.meter.measure([board.side(time_us, power_w)], [2])
    assert found is not None
    truth = power_w * time_us * 1e-6
    assert found.low <= truth <= found.high
    assert found.joules == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize(("update_ms", "reading_us"), [(100.0, 4283.0), (20.0, 4283.0), (100.0, 900.0)])
def test_a_slow_reading_does_not_show_where_steps_are_even(update_ms: float, reading_us: float) -> None:
    """An H200's counter moves every 100 ms, and a reading of it took 4.3 ms."""
    board = Board(update_ms, reading_us=reading_us)
    sides = [board.side(time_us, power_w) for time_us, power_w in ((37.0, 450.0), (1900.0, 705.0), (4200.0, 690.0))]
    found = board.meter.measure(sides, [1, 2, 2])
    for energy, truth in zip(found, (450.0 * 37e-6, 705.0 * 1900e-6, 690.0 * 4200e-6), strict=True):
        assert energy is not None
        assert energy.low <= truth <= energy.high
        assert energy.joules == pytest.approx(truth, rel=0.01)
        assert (energy.high - energy.low) / energy.joules < 0.04


def test_a_step_that_was_not_seen_is_counted_all_the_same() -> None:
    board = Board(100.0, reading_us=4283.0)
    side = board.side(40.0, 500.0)
    board.meter.measure([side], [1])
    pauses = iter([0.0005] * 25 + [0.12] + [0.0005] * 1000)
    board.meter._pause = lambda _: board.pause(next(pauses))
    window = board.meter.window(side)
    assert window is not None
    assert window.joules == pytest.approx(500.0 * 40e-6, rel=0.02)


def test_what_is_apart_by_more_than_its_noise_is_told_apart_and_a_twin_is_not() -> None:
    board = Board(20.0)
    powers = (500.0, 500.0, 560.0)
    thrifty, twin, wasteful = board.meter.measure([board.side(40.0, power_w) for power_w in powers], [2, 2, 2])
    assert thrifty is not None
    assert twin is not None
    assert wasteful is not None
    assert thrifty.high < wasteful.low
    assert max(thrifty.low, twin.low) <= min(thrifty.high, twin.high)


def test_an_interval_never_claims_more_than_the_resolution() -> None:
    board = Board(20.0)
    (found,) = board.meter.measure([board.side(40.0, 500.0)], [1])
    assert found is not None
    assert found.low <= found.joules * (1 - RESOLUTION)
    assert found.high >= found.joules * (1 + RESOLUTION)


def test_a_window_takes_as_long_as_it_says_and_leaves_nothing_queued() -> None:
    board = Board(100.0)
    began_us = board.gpu.host_now_us
    window = board.meter.window(board.side(40.0, 500.0))
    assert window is not None
    assert window.seconds >= WINDOW_S
    assert window.steps == 2
    assert (board.gpu.host_now_us - began_us) * 1e-6 < 0.5, "the counter is watched where sides are measured"
    assert board.gpu.now_us <= board.gpu.host_now_us


def test_the_board_is_kept_busy_while_the_host_is_slow() -> None:
    """Each call takes the host 100 us, and the idle board would draw a fifth: the energy would show it."""
    board = Board(20.0, host_us=100.0)
    (found,) = board.meter.measure([board.side(40.0, 500.0)], [2])
    assert found is not None
    assert found.low <= 500.0 * 40e-6 <= found.high


def test_without_a_counter_nothing_is_run_and_nothing_is_known() -> None:
    board = Board(0.0)
    sides = [board.side(40.0, 500.0)] * 2
    before = board.gpu.now_us
    assert board.meter.measure(sides, [2, 1]) == [None, None]
    assert board.gpu.now_us == before


def test_a_counter_that_stands_still_is_given_up() -> None:
    board = Board(5_000_000.0)
    assert board.meter.measure([board.side(40.0, 500.0)], [1]) == [None]
    assert board.gpu.host_now_us < 3e6
