"""The loop: ask every problem's strategy, prove what it names, time it, write it down, tell."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hktune.measure.stopwatch import Attempt, Stopwatch
from hktune.model import Config, Failure, Problem, Timing, Trial, by_problem
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
    """One problem's search: its strategy, which configs are legal for it, and the ids it has an outcome for.

    A strategy hears of outcomes when it is next asked: of thousands of shapes most are not asked for long, and those
    whose budget is spent never are. `untold` are the rows that it has not heard of.
    """

    problem: Problem
    strategy: Strategy
    legal: Callable[[Config], bool]
    tried: set[str] = field(default_factory=set)
    untold: list[Trial] = field(default_factory=list)
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
        self._configs: dict[str, Config] = {}
        # How much each search has tried and its place, least first; a search that has tried more since stands anew.
        self._least: list[tuple[int, int]] = [(len(search.tried), place) for place, search in enumerate(searches)]
        heapq.heapify(self._least)
        self._place_of = {search.problem: place for place, search in enumerate(searches)}
        self._until = time.monotonic() + budget.time_s if budget.time_s is not None else None

    def replay(self, trials: Iterable[Trial]) -> None:
        """Take in what an earlier run of the same directory found, without running it again."""
        for problem, rows in by_problem(trials).items():
            place = self._place_of.get(problem)
            if place is None:
                continue
            search = self._searches[place]
            own = [row for row in rows if row.config_id not in search.tried]
            search.untold += own
            search.tried.update(row.config_id for row in own)
            heapq.heappush(self._least, (len(search.tried), place))

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
            search = self._least_tried()
            if search is None:
                return
            self._ask(search)

    def _least_tried(self) -> Search | None:
        """The search that has tried least, the first of several, if it wants more."""
        while self._least:
            tried, place = self._least[0]
            search = self._searches[place]
            if not search.exhausted and tried == len(search.tried):
                return search if tried + len(self._in_order) < self._budget.trials else None
            heapq.heappop(self._least)
        return None

    def _time_is_up(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _ask(self, search: Search) -> None:
        search.strategy.tell([Outcome(self._config(row), row.status, cost(row)) for row in search.untold])
        search.untold.clear()
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
        search.untold.append(trial)
        heapq.heappush(self._least, (len(search.tried), self._place_of[search.problem]))
        self._listener.recorded(trial)

    def _config(self, row: Trial) -> Config:
        """The config of a row, made once for all rows of it."""
        if row.config not in self._configs:
            self._configs[row.config] = Config.from_json(row.config)
        return self._configs[row.config]


def cost(trial: Trial) -> float | None:
    """What a strategy is told of a time: relative to a baseline's in the same rounds, if there is one: clocks drift."""
    return trial.time_us / (trial.baseline_us or 1.0) if trial.time_us is not None else None
