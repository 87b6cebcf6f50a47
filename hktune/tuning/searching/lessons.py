"""What a run has measured of its other shapes says what to try on a shape."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import product

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tuning.searching.cost import timed_slowness
from hktune.tuning.searching.searches import Search

FIRST, EVERY = 12, 4
"""From its so manieth ask on, every so manieth ask of a search is for what was fast elsewhere."""

NEAREST, FASTEST = 5, 3
"""Of so many shapes, the nearest, so many configs each, the fastest."""


class Lessons:
    """For each of `searches`, the configs that were fastest on the nearest other shapes of its template and that it has
    not tried: first the fastest of each shape, from the nearest to the farthest, then the second, and so on. A bound
    counts for nothing.

    When one is due depends on how often a search was asked, and which one on what the loop knows by then.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        self._searches = searches
        self._fastest: list[list[tuple[float, str, str]]] = [[] for _ in searches]
        self._given: list[set[str]] = [set() for _ in searches]
        self._nearest: dict[int, list[int]] = {}

    def heard(self, place: int, rows: Sequence[Trial]) -> None:
        """Take in rows of the search at `place`."""
        timed = [(timed_slowness(row), row.config_id, row.config) for row in rows if row.has_time]
        self._fastest[place] = heapq.nsmallest(FASTEST, [*self._fastest[place], *timed])

    def next_for(self, place: int) -> Config | None:
        """What the search at `place` is to try now; None where its strategy is to be asked."""
        search = self._searches[place]
        if search.asked < FIRST or search.asked % EVERY:
            return None
        for rank, other in product(range(FASTEST), self._others(place)):
            if rank < len(self._fastest[other]):
                _, config_id, text = self._fastest[other][rank]
                config = Config.from_json(text)
                if config_id not in search.tried | self._given[place] and search.legal(config):
                    self._given[place].add(config_id)
                    return config
        return None

    def _others(self, place: int) -> list[int]:
        """The places of the nearest shapes, nearest first."""
        if place not in self._nearest:
            own = self._searches[place]
            alike = [
                (_distance(own.problem, other.problem), at)
                for at, other in enumerate(self._searches)
                if at != place and other.template == own.template
            ]
            self._nearest[place] = [at for _, at in heapq.nsmallest(NEAREST, alike)]
        return self._nearest[place]


def _distance(one: Problem, other: Problem) -> float:
    """How far apart two shapes are: by the ratios of their sizes."""
    return math.dist(*([math.log(size) for size in (each.m, each.n, each.k)] for each in (one, other)))
