"""Functions of the caller's that hear of every row as it is stored, and may end the search."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from hktune.core.trial import Trial

Callback = Callable[[Trial], object]


class StopTuning(Exception):
    """Raised by a callback: the run asks for no more trials, finishes those on their way, confirms the best, and
    writes its table, as it does when its time is up."""


class Callbacks:
    """Calls each of `functions` with every row, one at a time, in whichever thread stored it.

    StopTuning ends the search. So does what else one raises: it is kept in `failed`, to be raised once the table is
    written, and no function is called any more.
    """

    def __init__(self, functions: Iterable[Callback] = ()) -> None:
        self.failed: Exception | None = None
        self._functions = tuple(functions)
        self._stopped = False
        self._lock = threading.Lock()

    def also(self, function: Callback) -> None:
        """Call `function` too, and before the others: it hears of the row that one of them stops at."""
        self._functions = (function, *self._functions)

    @property
    def enough(self) -> bool:
        """Whether the search is to end."""
        return self._stopped

    def __call__(self, trial: Trial) -> None:
        with self._lock:
            for function in self._functions if self.failed is None else ():
                self._call(function, trial)

    def _call(self, function: Callback, trial: Trial) -> None:
        try:
            function(trial)
        except StopTuning:
            self._stopped = True
        except Exception as error:  # a defect of the caller's must not cost the table
            self.failed = self.failed or error
            self._stopped = True
