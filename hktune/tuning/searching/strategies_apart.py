"""Strategies in a process of their own: one that computes long keeps no other loop of this process waiting.

With TPE a trial costs the loops' process 16.1 ms, with TPE elsewhere 2.2 (benchmarks/several_gpus.py, 96 trials a
shape, a 2-core x86-64, 2026-11-23); of its GPU it takes some 25. So one process could feed two GPUs, and can feed ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hktune.core.config import Config
from hktune.core.errors import MachineError
from hktune.search import Outcome, Strategy
from hktune.tuning.searching.searches import Search
from hktune.workers.processes import Worker, WorkerDied, start_worker

_Question = tuple[int, int | list[Outcome]]
"""Which strategy, and either how many configs it is asked for or what it learns."""


class StrategiesApart:
    """The strategies of `searches` in one new process; `self.searches` are the same searches with these instead.

    None of them has been asked or told anything yet. One thread at a time. A process that dies is replaced by one that
    is asked and told the same again: strategies repeat themselves.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        self._served = _Served(tuple(search.strategy for search in searches))
        self._answered: list[_Question] = []
        self._worker = start_worker(self._served)
        self.searches = [
            replace(search, strategy=_StrategyApart(search.strategy.name, index, self))
            for index, search in enumerate(searches)
        ]

    def answer(self, question: _Question) -> list[Config]:
        """What the strategy asked for, nothing when it was told. Raises MachineError when it dies of this question."""
        try:
            answer = _asked(self._worker, question)
        except WorkerDied:
            answer = self._once_more(question)
        self._answered.append(question)
        return answer

    @property
    def pid(self) -> int:
        """The process of now."""
        return self._worker.pid

    def close(self) -> None:
        """End the process."""
        self._worker.stop()

    def _once_more(self, question: _Question) -> list[Config]:
        self._worker.stop()
        self._worker = start_worker(self._served)
        try:
            for earlier in self._answered:
                _asked(self._worker, earlier)
            return _asked(self._worker, question)
        except WorkerDied as died:
            raise MachineError(f"the strategies' process died twice ({died}): see what it printed") from None


def _asked(worker: Worker[_Question, list[Config]], question: _Question) -> list[Config]:
    worker.send(question)
    while not worker.heard(timeout_s=60.0):
        continue
    return worker.receive()


class _StrategyApart:
    """One of them; see Strategy."""

    def __init__(self, name: str, index: int, process: StrategiesApart) -> None:
        self.name = name
        self._index = index
        self._process = process

    def ask(self, n: int) -> list[Config]:
        return self._process.answer((self._index, n))

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self._process.answer((self._index, list(outcomes)))


@dataclass(frozen=True)
class _Served:
    """What goes to the process."""

    strategies: tuple[Strategy, ...]

    def __call__(self) -> Callable[[_Question], list[Config]]:
        return self._answer

    def _answer(self, question: _Question) -> list[Config]:
        index, what = question
        if isinstance(what, int):
            return self.strategies[index].ask(what)
        self.strategies[index].tell(what)
        return []
