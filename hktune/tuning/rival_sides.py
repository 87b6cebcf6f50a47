"""Kernels of rivals on a GPU: sides of the confirming rounds, next to the vendor's library."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.core.candidate import Candidate
from hktune.core.command_words import words_of
from hktune.core.config import Config
from hktune.core.errors import HktuneError
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.measure.stopwatch import Attempt, Side
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.rivals import Rival, proposed
from hktune.tuning.searching.loop import POLL_S


class RivalSides:
    """What of `rivals` is measured with the finalists of a problem: their best few by the spaces' estimates, each
    proved on the device first, once. Left out is what computes another product, a C of float32 included. So is what
    adds to C, or takes operands in another storage: both would need launches before it, and their time.

    `trouble` says what could not be had. One thread at a time.
    """

    def __init__(self, rivals: Sequence[Rival], work: OpenBench, settings: Settings) -> None:
        self._spaces = [(rival.name, load_space(path)) for rival in rivals for path in rival.spaces]
        self._work, self._settings = work, settings
        self._attempts: dict[Candidate, Attempt] = {}
        self.trouble: list[str] = []

    def of(self, problem: Problem) -> list[Side]:
        """The sides of `problem`: none where no rival computes it."""
        named = {
            candidate: f"{name}: {' '.join(words_of(candidate.config))}"
            for name, space in self._spaces
            for candidate in _candidates(space, problem, self._settings)
        }
        try:
            self._prove([candidate for candidate in named if candidate not in self._attempts])
        except HktuneError as error:
            self.trouble.append(f"kernels of rivals could not be proved: {error}")
            return []
        return [
            (name, self._attempts[candidate]) for candidate, name in named.items() if self._is_right(candidate, name)
        ]

    def _is_right(self, candidate: Candidate, name: str) -> bool:
        failure = self._attempts[candidate].failure
        if failure:
            self.trouble.append(f"{name} is not raced: {failure.status}: {failure.detail}")
        return failure is None

    def _prove(self, candidates: list[Candidate]) -> None:
        executor = self._work.executor
        while candidates or executor.pending:
            while candidates and executor.pending < executor.capacity:
                executor.submit(candidates.pop())
            self._attempts |= {attempt.candidate: attempt for attempt in executor.collect(POLL_S)}


def _candidates(space: SearchSpace, problem: Problem, settings: Settings) -> list[Candidate]:
    """What of a space is measured on `problem`."""
    if not space.template.does(problem.operation):
        return []
    own = space.for_operation(problem.operation)
    operation, sha256 = own.template.operation, space.template.sha256

    def fits(config: Config) -> bool:
        launch = own.template.launch(config, problem)
        return not launch.adds_to_c and not launch.storage

    return [Candidate(config, operation, sha256) for config in proposed(own, problem, settings, fits)]
