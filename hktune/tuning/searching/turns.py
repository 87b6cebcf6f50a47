"""Which of a run's searches is asked next: how its trials are shared out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from hktune.tuning.searching.searches import Budget, Search

FLOOR = 0.75
"""So much of its trials every search has for itself, and all of them where its problem matters as much as the mean."""


class Turns:
    """Whose turn it is among `searches`.

    With `even` each has its own trials, and they take turns: what one asks for counts for nearly all. The one that
    fewest configs are legal for has always tried least, and would spend the others' trials.

    Otherwise the one that has tried least is next until each has its floor, or ended. From then on it is the one whose
    next trial is worth most (`Search.worth`): trials go from problems that matter less than the mean to others. Where
    all matter as much, each has its own. In all there are never more trials than with `even`. What a search leaves that
    patience ended goes to the others; what an exhausted one leaves goes to nobody.
    """

    def __init__(self, searches: Sequence[Search], budget: Budget, even: bool) -> None:
        self._searches = searches
        self._budget = budget
        self._even = even
        mean = sum(search.weight for search in searches) / max(len(searches), 1)
        shares = [min(max(search.weight / mean, FLOOR), 1.0) for search in searches]
        self._floors = [max(round(share * budget.trials), 1) for share in shares]
        # When it is each search's turn, and what its next trial is worth, each with its place; first to last. A search
        # that changes is entered anew.
        self._turns: list[tuple[int, int]] = []
        self._worths: list[tuple[float, int]] = []
        self._entered = [0] * len(searches)
        self._room = [0] * len(searches)
        self._left = 0
        for place in range(len(searches)):
            self.enter(place)

    def enter(self, place: int) -> None:
        """Say that the search at `place` was asked, has tried something, or learned that there is nothing left."""
        search = self._searches[place]
        turn = search.asked if self._even else search.begun
        room = min(self._budget.trials, search.begun) if search.exhausted else search.most(self._budget.trials)
        self._left += (room - turn) - (self._room[place] - self._entered[place])
        self._entered[place], self._room[place] = turn, room
        heapq.heappush(self._turns, (turn, place))
        if not self._even:
            heapq.heappush(self._worths, (-search.worth, place))

    def next(self, in_flight: int) -> Search | None:
        """The search that is asked next, with so many configs of all on their way; None where none wants more."""
        if self._even:
            return self._least_asked(in_flight)
        return self._below_its_floor() or self._worth_most()

    def _below_its_floor(self) -> Search | None:
        while self._turns:
            turn, place = self._turns[0]
            search = self._searches[place]
            is_due = turn == self._entered[place] and turn < self._floors[place]
            if is_due and search.goes_on(self._budget.patience):
                return search
            heapq.heappop(self._turns)
        return None

    def _worth_most(self) -> Search | None:
        while self._worths and self._left > 0:
            worth, place = self._worths[0]
            search = self._searches[place]
            if worth == -search.worth and search.goes_on(self._budget.patience):
                return search
            heapq.heappop(self._worths)
        return None

    def _least_asked(self, in_flight: int) -> Search | None:
        full: set[tuple[int, int]] = set()
        found = None
        while self._turns and found is None:
            turn, place = heapq.heappop(self._turns)
            search = self._searches[place]
            if turn != self._entered[place] or not search.goes_on(self._budget.patience):
                continue
            if len(search.tried) + in_flight < self._budget.trials:
                found = search  # whose turn changes, as it is asked
            else:  # until what is on its way turns out to be no trial of it
                full.add((turn, place))
        for entry in full:
            heapq.heappush(self._turns, entry)
        return found
