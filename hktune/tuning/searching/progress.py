"""Who hears what a run does: a terminal, a log, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tuning.searching.loop import Listener


class Silent:
    """A Listener that nobody looks at."""

    def working(self, variants: int) -> None:
        pass

    def recorded(self, trial: Trial) -> None:
        pass


SILENT = Silent()


class Progress(Protocol):
    """Told what a run does, as it does it. All but `listener` is called from the run's own thread."""

    def phase(self, what: str) -> None:
        """What the run does now, in a few words."""

    def expect(self, names: Mapping[Problem, str], total: int) -> None:
        """What is tuned, each problem with its name in the shapes file, and the most trials that can be recorded."""

    def skipped(self, trials: int) -> None:
        """So many trials were made by an earlier run."""

    def listener(self) -> Listener:
        """For one more tuner, in whichever thread it runs."""
