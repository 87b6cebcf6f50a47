"""The loop: ask every problem's strategy, prove what it names, time it, write it down, tell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import ge
from typing import Protocol

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import Attempt, Stopwatch
from hktune.search.strategy import Outcome
from hktune.tuning.searching.cost import cost_of, timed_slowness
from hktune.tuning.searching.lessons import Lessons
from hktune.tuning.searching.peers import Alone, Peers
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.searching.turns import Turns
from hktune.workers.executor import Executor

POLL_S = 0.5
LOOKAHEAD = 8

PEER_POLL_S = 0.1
PEER_PATIENCE_S = 300.0
"""For what another run is working on: that run may be suspended. Then it is done twice, and recorded once."""


class Listener(Protocol):
    """Told what the loop does, as it does it; `variants` are the candidates being compiled and proved."""

    def working(self, variants: int) -> None: ...

    def recorded(self, trial: Trial) -> None: ...


RecordAll = Callable[[Attempt, Sequence[tuple[Problem, Timing | Failure]]], Sequence[Trial | None]]
"""Stores the outcomes of one attempt on several problems, at the price of one, and returns their rows. Each is as
`Record` has it, or None where others have written as many as are wanted."""

Record = Callable[[Attempt, Problem, Timing | Failure], Trial]
"""Stores one outcome and returns its row, which another run may have written before."""


class Tuner:
    """Searches several problems at once over one pool of variants: each is compiled and proved once, whichever asked.
    A problem may have several searches, each of another template.

    With `share`, a variant is also timed on every other problem that it is legal for, and that problem's strategy
    learns of it. This is right where proving costs seconds and a modelled time microseconds, and wrong where a time is
    measured. Without it, what was fast on other problems is tried now and then (`Lessons`), and `Turns` shares out the
    trials by what they are worth.

    Strategies learn of outcomes in the order in which the configs were asked for, and always so many asks later:
    `in_flight` of them are on their way, more only where there are more workers. `Lessons` and `Turns` know what
    strategies know by then. So equal seeds give equal runs, however long each variant takes (on any machine with
    as few workers).

    Nothing more is asked for once the time is up, or `enough` says so.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        executor: Executor,
        stopwatch: Stopwatch,
        record: RecordAll,
        budget: Budget,
        listener: Listener,
        share: bool = True,
        peers: Peers | None = None,
        in_flight: int = LOOKAHEAD,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._searches = searches
        self._executor = executor
        self._stopwatch = stopwatch
        self._record = record
        self._budget = budget
        self._listener = listener
        self._share = share
        self._peers = peers or Alone()
        self._enough = enough
        self._asked_by: dict[Candidate, list[Search]] = {}
        self._lookahead = max(in_flight, executor.capacity)
        self._in_order: deque[Candidate] = deque()
        self._unsubmitted: deque[Candidate] = deque()
        self._in_hand: set[Candidate] = set()
        self._asked_at_s: dict[Candidate, float] = {}
        self._attempts: dict[Candidate, Attempt] = {}
        self._configs: dict[str, Config] = {}
        self._turns = Turns(searches, budget, even=share)
        self._lessons = Lessons(searches)
        self._place_of = {(search.problem, search.template): place for place, search in enumerate(searches)}
        self._most = budget.trials if share else budget.trials * len(searches)
        self._until = time.monotonic() + budget.time_s if budget.time_s is not None else None

    def replay(self, trials: Iterable[Trial]) -> None:
        """Go on from what an earlier run of the same directory found, without running it again.

        This run asks as the earlier one did. Where a config that is asked for has a row, that is its outcome. So each
        strategy is asked and told what it was before, in the same order, and goes on as if never stopped. The first
        time that a search asks for something else, the rest of its rows is told at once. Where there are as many rows
        as are wanted, no strategy is asked.
        """
        for whose, rows in self._by_search(trials):
            if whose in self._place_of:
                recorded = self._searches[self._place_of[whose]].recorded
                for row in rows:
                    recorded.setdefault(row.config_id, row)
        if self._budget.patience is not None:
            return  # how many rows are wanted of each is found by asking
        wanted = [search.most(self._budget.trials) for search in self._searches]
        found = [len(search.recorded) for search in self._searches]
        if all(map(ge, found, wanted)) if self._share else sum(found) >= sum(wanted):
            for place in range(len(self._searches)):
                self._take_in_rest(place)

    def _take_in(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those of `trials` that were news."""
        news: list[Trial] = []
        for whose, rows in self._by_search(trials):
            place = self._place_of.get(whose)
            if place is None:
                continue
            search = self._searches[place]
            own = [row for row in rows if row.config_id not in search.tried and row.config_id not in search.recorded]
            self._add(place, own)
            news += own
        return news

    def _take_in_rest(self, place: int) -> None:
        """All rows of an earlier run but those that are about to be closed."""
        search = self._searches[place]
        waiting = {candidate.config.id for candidate in self._in_order}
        rest = [row for id_, row in search.recorded.items() if id_ not in waiting]
        self._add(place, rest)
        for row in rest:
            del search.recorded[row.config_id]

    def _add(self, place: int, rows: Sequence[Trial]) -> None:
        search = self._searches[place]
        went_on = search.goes_on(self._budget.patience)
        search.untold += rows
        search.tried.update(row.config_id for row in rows)
        self._lessons.heard(place, rows)
        search.curve.extend(map(timed_slowness, rows))
        if not self._share or (search.goes_on(self._budget.patience) and not went_on):
            self._turns.enter(place)

    def _by_search(self, trials: Iterable[Trial]) -> Iterator[tuple[tuple[Problem, str | None], list[Trial]]]:
        """The trials of each problem and template. Where searches name no template, all are theirs. Algorithms of the
        vendor's libraries are no search's."""
        for problem, rows in by_problem(trial for trial in trials if trial.is_kernel).items():
            for template, own in groupby(sorted(rows, key=_template), key=_template):
                named = (problem, template)
                yield named if named in self._place_of else (problem, None), list(own)

    def run(self) -> None:
        """Search until every budget is spent or every space exhausted. KeyboardInterrupt passes through: all that
        was found is written down by then."""
        self._hear()
        self._look_ahead()
        while self._in_order:
            self._submit()
            self._listener.working(self._executor.pending)
            self._collect()
            self._hear()
            while self._in_order and self._is_decided(self._in_order[0]):
                self._close(self._in_order.popleft())
                self._look_ahead()
        for place in range(len(self._searches)):
            self._take_in_rest(place)

    def _hear(self) -> None:
        """Take in what other runs have recorded."""
        for trial in self._take_in(self._peers.news()):
            self._listener.recorded(trial)

    def _submit(self) -> None:
        """Give the executor what nobody else is working on, in the order in which it was asked for."""
        for candidate in list(self._unsubmitted):
            if self._executor.pending >= self._executor.capacity:
                return
            if not self._is_wanted(candidate):
                continue  # unless another search asks for it before it is closed
            if not self._peers.claim(candidate) and time.monotonic() < self._asked_at_s[candidate] + PEER_PATIENCE_S:
                continue
            self._hear()  # the run that had it before may have recorded it
            self._unsubmitted.remove(candidate)
            if self._is_wanted(candidate):
                self._executor.submit(candidate)
                self._in_hand.add(candidate)

    def _collect(self) -> None:
        if not self._executor.pending:
            time.sleep(PEER_POLL_S)  # all that is left is in others' hands
        for attempt in self._executor.collect(POLL_S):
            self._attempts[attempt.candidate] = attempt
            self._in_hand.discard(attempt.candidate)

    def _is_decided(self, candidate: Candidate) -> bool:
        """Whether there is an outcome, or none is wanted any more: others have recorded what was."""
        return candidate in self._attempts or (candidate not in self._in_hand and not self._is_wanted(candidate))

    def _is_wanted(self, candidate: Candidate) -> bool:
        """Whether a search takes it that has no row of it."""
        id_ = candidate.config.id
        return any(id_ not in each.recorded and self._takes(each, candidate) for each in self._concerned(candidate))

    def _concerned(self, candidate: Candidate) -> Sequence[Search]:
        return self._searches if self._share else self._asked_by[candidate]

    def _close(self, candidate: Candidate) -> None:
        """Settle with a candidate that was asked for."""
        concerned = self._concerned(candidate)
        self._settle_recorded(concerned, candidate)
        if candidate in self._attempts:
            # A measured outcome took a GPU's time: it is written down before the next is measured.
            for searches in [concerned] if self._share else [[search] for search in concerned]:
                self._settle(searches, self._attempts[candidate])
        elif candidate in self._unsubmitted:
            self._unsubmitted.remove(candidate)
        self._peers.release(candidate)
        for search in self._asked_by.pop(candidate):
            search.in_flight -= 1
            if not self._share:
                self._turns.enter(self._place(search))
        del self._asked_at_s[candidate]

    def _look_ahead(self) -> None:
        """Ask until enough configs are on their way, nothing is left to ask for, or time is up."""
        while len(self._in_order) < self._lookahead and not self._time_is_up():
            search = self._turns.next(len(self._in_order))
            if search is None:
                return
            self._ask(search)

    def _place(self, search: Search) -> int:
        return self._place_of[search.problem, search.template]

    def _time_is_up(self) -> bool:
        return self._enough() or (self._until is not None and time.monotonic() >= self._until)

    def _ask(self, search: Search) -> None:
        search.strategy.tell([Outcome(self._config(row), row.status, cost_of(row)) for row in search.untold])
        search.untold.clear()
        place = self._place(search)
        lesson = self._lessons.next_for(place)
        configs = [lesson] if lesson is not None else search.strategy.ask(1)
        search.exhausted = not configs
        search.asked += 1
        search.in_flight += len(configs)
        self._turns.enter(place)
        if not any(config.id in search.recorded for config in configs):
            self._take_in_rest(place)
        for candidate in (Candidate(config, search.operation, search.template) for config in configs):
            if candidate in self._asked_by:
                self._asked_by[candidate].append(search)
                continue
            self._asked_by[candidate] = [search]
            self._asked_at_s[candidate] = time.monotonic()
            self._in_order.append(candidate)
            if candidate not in self._attempts:  # of another search
                self._unsubmitted.append(candidate)

    def _settle_recorded(self, searches: Sequence[Search], candidate: Candidate) -> None:
        """Give `searches` the rows that an earlier run recorded of `candidate`."""
        for search in searches:
            if candidate.config.id in search.recorded and self._takes(search, candidate):
                self._add(self._place(search), [search.recorded.pop(candidate.config.id)])

    def _settle(self, searches: Sequence[Search], attempt: Attempt) -> None:
        """Give `searches` the outcome of `attempt`: those that have room for it, and for whose problem it is legal."""
        takers = [search for search in searches if self._takes(search, attempt.candidate)]
        if not takers:
            return
        problems = [search.problem for search in takers]
        outcomes = [(each, attempt.failure or self._stopwatch.time(attempt, each)) for each in problems]
        for search, trial in zip(takers, self._record(attempt, outcomes), strict=True):
            if trial is None:
                continue
            self._add(self._place(search), [trial])
            self._listener.recorded(trial)

    def _takes(self, search: Search, candidate: Candidate) -> bool:
        """Whether `search` has room for the candidate, no outcome of it yet, and it is legal for its problem."""
        if candidate.config.id in search.tried or len(search.tried) >= self._most:
            return False
        whose = (candidate.operation, candidate.template)
        return whose == (search.operation, search.template) and search.legal(candidate.config)

    def _config(self, row: Trial) -> Config:
        """The config of a row, made once for all rows of it."""
        if row.config not in self._configs:
            self._configs[row.config] = Config.from_json(row.config)
        return self._configs[row.config]


def _template(row: Trial) -> str:
    return row.template_sha256 or ""
