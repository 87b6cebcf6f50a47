"""The clock of every deadline: it stops while this process does not run.

A process that is stopped (Ctrl-Z, kill -STOP), a container that is frozen and a laptop that sleeps look, to who wakes
up, like a compiler that has not answered for an hour. So a thread looks at the time over and over; what passed between
two looks that are far apart is not counted, and no config is blamed for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

LOOK_EACH_S = 0.25
"""Who waits for a deadline looks as often, so that what it waits for is not overdue by more."""

GAP_S = 2.0
"""Between two looks of a process that runs less passes, on a machine that has more to do than it can, too."""


class AttendedClock:
    """Seconds in which this process has run, by `monotonic_s`. Safe to read from several threads."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._seen_s = monotonic_s()
        self._missed_s = 0.0

    def begin_again(self) -> None:
        """In a copy of the process, which lacks the thread that may have held the lock."""
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """The time by this clock; its differences mean something. To ask is to look."""
        with self._lock:
            now_s = self._monotonic_s()
            if now_s - self._seen_s > GAP_S:
                self._missed_s += now_s - self._seen_s
            self._seen_s = now_s
            return now_s - self._missed_s


_clock: AttendedClock | None = None
_starting = threading.Lock()


def attended_s() -> float:
    """The time by this process's clock, which somebody looks at from the first call on."""
    global _clock
    if _clock is None:
        with _starting:
            if _clock is None:
                clock = AttendedClock()
                threading.Thread(target=_look_at, args=(clock,), name="attended clock", daemon=True).start()
                _clock = clock
    return _clock.now_s()


def _in_child() -> None:
    """Nobody looks but who asks."""
    global _starting
    _starting = threading.Lock()
    if _clock is not None:
        _clock.begin_again()


os.register_at_fork(after_in_child=_in_child)


def _look_at(clock: AttendedClock) -> None:
    while True:
        time.sleep(LOOK_EACH_S)
        clock.now_s()
