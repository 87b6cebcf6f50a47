"""What a run has measured of its other shapes says what to try on a shape."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from hktune.core.config import Config
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tuning.cost import timed_slowness
from hktune.tuning.searches import Search

FIRST = int(os.environ.get("X_FIRST", 16))
EVERY = int(os.environ.get("X_EVERY", 0))
TOP = int(os.environ.get("X_TOP", 1))
NEAREST = int(os.environ.get("X_NEAR", 15))


class Lessons:
    def __init__(self, searches: Sequence[Search]) -> None:
        self._searches = searches
        self._fastest: list[list[tuple[float, str]]] = [[] for _ in searches]
        self._given = [set() for _ in searches]
        self.given = 0
        self._nearest = [
            sorted((o for o in range(len(searches)) if o != p), key=lambda o: (distance(searches[p].problem, searches[o].problem), o))[:NEAREST]
            for p in range(len(searches))
        ] if EVERY else []

    def heard(self, place: int, rows: Sequence[Trial]) -> None:
        mine = self._fastest[place]
        for row in rows:
            if row.time_us is not None:
                mine.append((timed_slowness(row), row.config))
        mine.sort()

    def next_for(self, place: int) -> Config | None:
        search = self._searches[place]
        n = search.asked
        if not EVERY or n < FIRST or n % EVERY:
            return None
        for top in range(TOP):
            for other in self._nearest[place]:
                mine = self._fastest[other]
                if len(mine) <= top or math.isinf(mine[top][0]):
                    continue
                config = Config.from_json(mine[top][1])
                if config.id not in search.tried and config.id not in self._given[place] and search.legal(config):
                    self._given[place].add(config.id)
                    self.given += 1
                    return config
        return None


def distance(a: Problem, b: Problem) -> float:
    return sum((math.log2(x) - math.log2(y)) ** 2 for x, y in ((a.m, b.m), (a.n, b.n), (a.k, b.k)))
