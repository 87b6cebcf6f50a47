"""What a model chooses from: every legal config, or where those are too many, a pool that is renewed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hktune.core.config import Config, Value
from hktune.search.coordinates import Coordinates, Points
from hktune.space import Domain

Key = tuple[Value, ...]

LISTED_MAX = 20_000
"""So many legal configs are all looked at for each choice, which takes some 5 ms where 150 are known."""
TRIES = 60
"""So many changes of good configs are looked at for each choice, at some 40 us each, whether they are legal or not."""
POOL_MAX = 3000
POOL_KEPT = 1000
"""A pool that has grown beyond the first is cut to the second, those that are worth most."""

DRAWN_EVERY = 4
"""One choice in so many has a uniform draw added, which takes some 15 ms in the shipped spaces."""


class Candidates:
    """Legal configs and their points; a place is an index of both. `taken` are those that are not to be asked."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._names = [parameter.name for parameter in domain.parameters]
        self.coordinates = Coordinates(domain)
        listed = domain.listed(LISTED_MAX)
        self.complete = listed is not None
        self.configs: list[Mapping[str, Value]] = list(listed or ())
        self.points = self.coordinates.of(self.configs)
        self._place_of = {self._key(config): place for place, config in enumerate(self.configs)}
        self.taken = np.zeros(len(self.configs), dtype=bool)
        self._taken: set[Key] = set()
        self._renewals = 0

    def take(self, config: Mapping[str, Value]) -> None:
        """It is not asked any more."""
        key = self._key(config)
        self._taken.add(key)
        place = self._place_of.get(key)
        if place is not None:
            self.taken[place] = True

    def renew(self, good: Sequence[Config], rng: random.Random) -> Points:
        """Add changes of `good` configs, best first, that were not taken; the points that are new."""
        if self.complete or not good:
            return self.points[:0]
        found: dict[Key, Mapping[str, Value]] = {}
        for config in self._proposed(good, rng):
            key = self._key(config)
            if key not in self._place_of and key not in self._taken and self._domain.is_legal(config):
                found[key] = config
        points = self.coordinates.of(found.values())
        self._place_of.update((key, len(self.configs) + place) for place, key in enumerate(found))
        self.configs += found.values()
        self.points = np.vstack([self.points, points])
        self.taken = np.append(self.taken, np.zeros(len(found), dtype=bool))
        return points

    def near(self, config: Mapping[str, Value]) -> list[int]:
        """Places of what may be asked and differs from `config` in one parameter."""
        places = (
            self._place_of.get(self._key({**config, parameter.name: value}))
            for parameter in self._domain.parameters
            for value in parameter.values
        )
        return [place for place in places if place is not None and not self.taken[place]]

    def shrink(self, worth: npt.NDArray[np.float64]) -> None:
        """Of a pool, keep what is worth most."""
        kept = np.sort(np.argsort(-np.where(self.taken, -np.inf, worth))[:POOL_KEPT])
        self.configs = [self.configs[place] for place in kept]
        self.points, self.taken = self.points[kept], self.taken[kept]
        self._place_of = {self._key(config): place for place, config in enumerate(self.configs)}

    @property
    def too_many(self) -> bool:
        """Whether they are a pool that is to be cut."""
        return not self.complete and len(self.configs) > POOL_MAX

    def _proposed(self, good: Sequence[Config], rng: random.Random) -> list[Mapping[str, Value]]:
        proposed: list[Mapping[str, Value]] = [_changed(good, self._domain, rng) for _ in range(TRIES)]
        if self._renewals % DRAWN_EVERY == 0:
            proposed.append(self._domain.sample(rng))
        self._renewals += 1
        return proposed

    def _key(self, config: Mapping[str, Value]) -> Key:
        return tuple(config[name] for name in self._names)


def _changed(good: Sequence[Config], domain: Domain, rng: random.Random) -> dict[str, Value]:
    """One of `good`, the better the likelier, with one to three parameters changed, or mixed with another of them."""
    first = good[min(int(rng.expovariate(0.5)), len(good) - 1)]
    if rng.random() < 0.2:
        second = good[min(int(rng.expovariate(0.25)), len(good) - 1)]
        return {name: (first if rng.random() < 0.5 else second)[name] for name in first}
    changed = dict(first)
    for parameter in rng.sample(domain.parameters, min(rng.choice((1, 1, 2, 3)), len(domain.parameters))):
        changed[parameter.name] = rng.choice(parameter.values)
    return changed
