"""Stand-ins for an executor and a stopwatch, for tests of what drives them. The contract tests run on them too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.measure.stopwatch import Attempt


def succeed(config: Config) -> None:
    """What becomes of every config where nothing else is said."""


class InstantExecutor:
    """Has whatever it is given compiled and proved by the next time it is asked; `failure` says of a config why not."""

    def __init__(self, capacity: int = 1, failure: Callable[[Config], Failure | None] = succeed) -> None:
        self.capacity = capacity
        self.notes: Sequence[str] = ()
        self.closed = False
        self.submitted: list[Config] = []
        self._failure = failure
        self._waiting: list[Candidate] = []

    @property
    def pending(self) -> int:
        return len(self._waiting)

    def submit(self, candidate: Candidate) -> None:
        assert self.pending < self.capacity
        self._waiting.append(candidate)
        self.submitted.append(candidate.config)

    def collect(self, timeout_s: float) -> list[Attempt]:
        return [self._attempt(self._waiting.pop(0)) for _ in range(self.pending)]

    def close(self) -> None:
        self._waiting.clear()
        self.closed = True

    def _attempt(self, candidate: Candidate) -> Attempt:
        failure = self._failure(candidate.config)
        sha256 = None if failure else "0" * 64
        return Attempt(candidate.config, failure, sha256, operation=candidate.operation, template=candidate.template)


class LastFirstExecutor(InstantExecutor):
    """One whose latest submission finishes first, and alone."""

    def collect(self, timeout_s: float) -> list[Attempt]:
        return [self._attempt(self._waiting.pop())] if self._waiting else []


class FormulaStopwatch:
    """A stopwatch whose times come from a formula of the config and the problem."""

    source = Source.MODELLED

    def __init__(self, time_us: Callable[[Config, Problem], float] = lambda config, problem: 11.0) -> None:
        self._time_us = time_us

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        return Timing(self.source, self._time_us(attempt.config, problem))
