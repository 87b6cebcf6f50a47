"""The loop: ask every problem's strategy, prove what it names, time it, write it down, tell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hktune.measure.stopwatch import Attempt, Stopwatch
from hktune.model import Config, Failure, Problem, Timing, Trial
from hktune.search.strategy import Outcome, Strategy
from hktune.workers import Executor

POLL_S = 0.5
LOOKAHEAD = 8


@dataclass(frozen=True)
class Budget:
    """When to stop: trials per problem, and wall-clock seconds for the whole run (None: no limit)."""

    trials: int
    time_s: float | None = None


@dataclass
class Search:
    """One problem's search: its strategy, which configs are legal for it, and the ids it has an outcome for."""

    problem: Problem
    strategy: Strategy
    legal: Callable[[Config], bool]
    tried: set[str] = field(default_factory=set)
    exhausted: bool = False


class Listener(Protocol):
    """Told what the loop does, as it does it; `variants` are the configs being compiled and proved."""

    def working(self, variants: int) -> None: ...

    def recorded(self, trial: Trial) -> None: ...


Record = Callable[[Attempt, Problem, Timing | Failure], Trial]
"""Writes one outcome down for good and returns the row."""


class Tuner:
    """Searches several problems at once over one pool of variants: each is compiled and proved once, whoever asked.

    With `share`, its time on every other problem that it is legal for is told to that problem's strategy too: right
    where proving costs seconds and a modelled time microseconds, wrong where a time is measured. Outcomes are told in
    the order in which their configs were asked for, and always as many asks ahead of them, so equal seeds give equal
    runs however long each variant takes (with up to LOOKAHEAD workers, on any machine).
    """

    def __init__(
        self,
        searches: Sequence[Search],
        executor: Executor,
        stopwatch: Stopwatch,
        record: Record,
        budget: Budget,
        listener: Listener,
        share: bool = True,
    ) -> None:
        self._searches = searches
        self._executor = executor
        self._stopwatch = stopwatch
        self._record = record
        self._budget = budget
        self._listener = listener
        self._share = share
        self._asked_by: dict[str, list[Search]] = {}
        self._lookahead = max(LOOKAHEAD, executor.capacity)
        self._in_order: deque[Config] = deque()
        self._unsubmitted: deque[Config] = deque()
        self._attempts: dict[str, Attempt] = {}
        self._until = time.monotonic() + budget.time_s if budget.time_s is not None else None

    def replay(self, trials: Sequence[Trial]) -> None:
        """Tell the strategies what an earlier run of the same directory found, without running it again."""
        for search in self._searches:
            own = [trial for trial in trials if trial.problem == search.problem and trial.config_id not in search.tried]
            search.tried.update(trial.config_id for trial in own)
            search.strategy.tell([Outcome(Config.from_json(row.config), row.status, cost(row)) for row in own])

    def run(self) -> None:
        """Search until every budget is spent or every space exhausted. KeyboardInterrupt passes through: all that
        was found is written down by then."""
        self._look_ahead()
        while self._in_order:
            while self._unsubmitted and self._executor.pending < self._executor.capacity:
                self._executor.submit(self._unsubmitted.popleft())
            self._listener.working(self._executor.pending)
            for attempt in self._executor.collect(POLL_S):
                self._attempts[attempt.config.id] = attempt
            while self._in_order and self._in_order[0].id in self._attempts:
                attempt = self._attempts[self._in_order.popleft().id]
                asked_by = self._asked_by.pop(attempt.config.id)
                for search in self._searches if self._share else asked_by:
                    self._settle(search, attempt)
                self._look_ahead()

    def _look_ahead(self) -> None:
        """Ask until enough configs are on their way, nothing is left to ask for, or time is up."""
        while len(self._in_order) < self._lookahead and not self._time_is_up():
            open_searches = [search for search in self._searches if self._wants_more(search)]
            if not open_searches:
                return
            self._ask(min(open_searches, key=lambda search: len(search.tried)))

    def _time_is_up(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _wants_more(self, search: Search) -> bool:
        return not search.exhausted and len(search.tried) + len(self._in_order) < self._budget.trials

    def _ask(self, search: Search) -> None:
        configs = search.strategy.ask(1)
        search.exhausted = not configs
        for config in configs:
            if config.id in self._asked_by:
                self._asked_by[config.id].append(search)
            elif config.id in self._attempts:
                self._settle(search, self._attempts[config.id])
            else:
                self._asked_by[config.id] = [search]
                self._in_order.append(config)
                self._unsubmitted.append(config)

    def _settle(self, search: Search, attempt: Attempt) -> None:
        """Give `search` the outcome of `attempt`, if it has room for it and the config is legal for its problem."""
        config = attempt.config
        if config.id in search.tried or len(search.tried) >= self._budget.trials or not search.legal(config):
            return
        outcome = attempt.failure or self._stopwatch.time(attempt, search.problem)
        trial = self._record(attempt, search.problem, outcome)
        search.tried.add(config.id)
        search.strategy.tell([Outcome(config, trial.status, cost(trial))])
        self._listener.recorded(trial)


def cost(trial: Trial) -> float | None:
    """What a strategy is told of a time: relative to a baseline's in the same rounds, if there is one: clocks drift."""
    return trial.time_us / (trial.baseline_us or 1.0) if trial.time_us is not None else None
