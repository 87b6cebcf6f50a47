"""Loops in threads of their own: what ends one leaves the others at work, Ctrl-C ends all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from hktune.core.errors import DeviceError, StoreError
from hktune.tuning.side_by_side import side_by_side


class Loop:
    """A task that goes on until it is interrupted."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.thread = ""
        self._interrupted = threading.Event()

    def __call__(self) -> None:
        self.thread = threading.current_thread().name
        self.running.set()
        assert self._interrupted.wait(60)
        raise KeyboardInterrupt

    def interrupt(self) -> None:
        self._interrupted.set()


def test_all_run_at_once_to_their_end() -> None:
    meeting = threading.Barrier(3, timeout=60)
    met: list[int] = []
    assert side_by_side([lambda: met.append(meeting.wait())] * 3, []) == []
    assert sorted(met) == [0, 1, 2]


def test_one_runs_in_the_calling_thread() -> None:
    seen: list[threading.Thread] = []
    assert side_by_side([lambda: seen.append(threading.current_thread())], []) == []
    assert seen == [threading.current_thread()]


def test_an_error_of_hktune_ends_its_task_alone() -> None:
    broke, went_on = threading.Event(), threading.Event()
    lost = DeviceError("GPU 1 fell off the bus")

    def fail() -> None:
        broke.set()
        raise lost

    def go_on() -> None:
        assert broke.wait(60)
        went_on.set()

    assert side_by_side([fail, go_on], []) == [lost]
    assert went_on.is_set()
    assert side_by_side([fail], []) == [lost]


def test_all_errors_are_told() -> None:
    errors = [DeviceError("GPU 0"), StoreError("disk")]

    def raising(error: Exception) -> Callable[[], None]:
        def task() -> None:
            raise error

        return task

    assert side_by_side([raising(error) for error in errors], []) == errors


def test_what_hktune_does_not_raise_on_purpose_ends_all_and_is_raised() -> None:
    loops = [Loop(), Loop()]

    def fail() -> None:
        assert all(loop.running.wait(60) for loop in loops)
        raise IndexError("a defect")

    with pytest.raises(IndexError, match="a defect"):
        side_by_side([*loops, fail], [loop.interrupt for loop in loops])


def test_ctrl_c_ends_all(ctrl_c: Callable[[], None]) -> None:
    loops = [Loop(), Loop()]

    def press() -> None:
        assert all(loop.running.wait(60) for loop in loops)
        ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        side_by_side([*loops, press], [loop.interrupt for loop in loops])
    assert all(loop.thread.startswith("gpu") for loop in loops)


def test_ctrl_c_ends_one(ctrl_c: Callable[[], None]) -> None:
    def press() -> None:
        ctrl_c()
        signal.pause()

    with pytest.raises(KeyboardInterrupt):
        side_by_side([press], [])
