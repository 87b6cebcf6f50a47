"""Being asked to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes. All are heard alike."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAME_REQUEST_S = 1.0
"""`timeout` and closing terminals signal a process twice, by its number and by its group, within milliseconds."""


class Interruption:
    """Hears SIGINT, SIGTERM and SIGHUP, in the main thread. The first raises KeyboardInterrupt there, or after `defer`
    is only noted; one that comes later than SAME_REQUEST_S ends the process at once, by that signal."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._at_s = 0.0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within the block. SIGINT is heard also where a shell started this process deaf to it, as it does with jobs in
        the background of a script; SIGHUP is not where it is ignored, which is what nohup is for."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        if before[signal.SIGHUP] is signal.SIG_IGN:
            del before[signal.SIGHUP]
        try:
            for number in before:
                signal.signal(number, self._hear)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def defer(self) -> None:
        """From here on a first signal does not raise: what is left is quick, and must be whole."""
        self._deferred = True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.requested:
            if time.monotonic() - self._at_s > SAME_REQUEST_S:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.requested, self._at_s = True, time.monotonic()
        if not self._deferred:
            raise KeyboardInterrupt
