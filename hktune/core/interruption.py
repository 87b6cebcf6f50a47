"""Being asked to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes. All are heard alike."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here: nothing is heard meanwhile
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    _Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAME_REQUEST_S = 1.0
"""`timeout` and closing terminals signal a process twice, by its number and by its group, within milliseconds."""

INTERRUPTED = 130
"""The exit code of what was asked to end, by whichever signal."""

INTERRUPTED_LINE = "hktune: interrupted"


class Interruption:
    """Hears SIGINT, SIGTERM and SIGHUP, in the main thread. The first raises KeyboardInterrupt there, or after `defer`
    is only noted; one that comes later than SAME_REQUEST_S ends the process at once, by that signal."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._at_s = 0.0

    @contextmanager
    def heard(self, then_ignored: bool = False) -> Iterator[None]:
        """Within the block; what is heard in an inner one counts in the outer ones too. Afterwards signals do what they
        did before, or with `then_ignored` nothing more: that is for a process whose exit code is decided.

        SIGINT is heard also where a shell started this process deaf to it, as it does with jobs in the background of a
        script; SIGHUP is not where it is ignored, which is what nohup is for.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = _handlers()
        try:
            for number in before:
                signal.signal(number, self._hear)
            yield
        finally:
            outer = getattr(before[signal.SIGINT], "__self__", None)
            if isinstance(outer, Interruption) and self.requested:
                outer.requested, outer._at_s = True, self._at_s
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if then_ignored else handler)

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


def end_when_asked() -> None:
    """Until `Interruption.heard` the first signal ends this process, in one line: it has not begun with anything."""
    for number in _handlers():
        signal.signal(number, _end)


@contextmanager
def held_back() -> Iterator[None]:
    """Within the block this thread is sent none of the signals; nor is a process that it starts there, ever, or until
    that one says `ignore_from_now_on`. In a process of several threads another one may say it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_from_now_on() -> None:
    """For a child whose parent ends it. What was held back goes too, and what the child starts holds nothing back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _handlers() -> dict[signal.Signals, _Handler]:
    """What the signals that are to be heard do now."""
    now = {number: signal.getsignal(number) for number in SIGNALS}
    if now[signal.SIGHUP] is signal.SIG_IGN:
        del now[signal.SIGHUP]
    return now


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, f"{INTERRUPTED_LINE}\n".encode())
    os._exit(INTERRUPTED)
