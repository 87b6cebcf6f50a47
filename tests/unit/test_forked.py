"""Calls in copies of this process: what they return comes back, and one that has no outcome stops nobody."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from hktune.core import attended
from hktune.core.attended import attended_s
from hktune.core.forked import Beat, Outcome, can_fork, side_by_side, usable_cores

pytestmark = pytest.mark.skipif(not can_fork(), reason="nothing forks here")


def of(number: int) -> object:
    def call(beat: Beat) -> tuple[int, int, int]:
        beat()
        return number, os.getpid(), int(np.arange(number).sum())

    return call


def test_outcomes_come_in_the_order_of_the_calls_and_from_processes_of_their_own() -> None:
    outcomes = side_by_side([of(number) for number in range(5)], 2, 60.0)  # type: ignore[misc]
    values = [each.value for each in outcomes if each is not None]
    assert [(number, total) for number, _, total in values] == [(n, n * (n - 1) // 2) for n in range(5)]
    pids = {pid for _, pid, _ in values}
    assert len(pids) == 5
    assert os.getpid() not in pids


def test_a_call_without_an_outcome_is_none_and_the_others_have_theirs() -> None:
    def raises(_beat: Beat) -> int:
        raise ValueError("no")

    def dies(_beat: Beat) -> int:
        os._exit(0)

    def hangs(_beat: Beat) -> int:
        time.sleep(600)
        return 1

    def cannot_be_sent(_beat: Beat) -> object:
        return lambda: 1

    def right(beat: Beat) -> int:
        for _ in range(4):
            time.sleep(0.1)
            beat()
        return 7

    assert side_by_side([raises, dies, hangs, cannot_be_sent, right], 5, 1.5) == [None] * 4 + [Outcome(7)]


def test_calls_that_have_not_begun_in_time_are_left_out() -> None:
    assert side_by_side([lambda _beat: 1, lambda _beat: 2], 2, 60.0, attended_s() - 1.0) == []
    slow = [lambda _beat: time.sleep(0.5)] * 3
    assert side_by_side(slow, 1, 60.0, attended_s() + 0.3) == [Outcome(None)]


def test_no_child_is_left_when_the_parent_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fork = os.fork

    def noted() -> int:
        started.append(fork())
        return started[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fork", noted)
    monkeypatch.setattr("hktune.core.forked.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side([lambda _beat: time.sleep(600), lambda _beat: time.sleep(600)], 2, 60.0)
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_can_ask_for_the_time_whatever_other_threads_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks at the clock may hold its lock at any moment: here, while the child begins."""
    attended_s()
    clock = attended._clock
    assert clock is not None
    lock, fork = clock._lock, os.fork

    def forked() -> int:
        lock.acquire()
        pid = fork()
        if pid:
            lock.release()  # in this process; the child has none who could
        return pid

    monkeypatch.setattr(os, "fork", forked)
    assert side_by_side([lambda _beat: attended_s() > 0], 1, 20.0) == [Outcome(True)]


def test_the_cores_that_may_be_used_are_counted() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
