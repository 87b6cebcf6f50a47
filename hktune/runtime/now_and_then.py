"""Something done every so often while a program runs, and where its process ends."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

EVERY_S = 30.0


class NowAndThen:
    """Calls `act` every EVERY_S seconds in a thread of its own, from `begin` to `end`, and once where the process ends
    before that. Whoever else runs waits for nothing. A process that was forked from this one acts never."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._own_process = os.getpid()

    def begin(self) -> None:
        """After an `end` it may begin again."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hktune now and then", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def end(self) -> None:
        """When this returns `act` is not running, and is not called any more."""
        atexit.unregister(self._at_exit)
        self._is_over.set()
        if os.getpid() == self._own_process:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self._act()

    def _at_exit(self) -> None:
        if os.getpid() == self._own_process:
            self.end()
            self._act()
