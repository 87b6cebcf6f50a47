"""Hill climbing with restarts."""

from __future__ import annotations

from hktune.core.config import Config
from hktune.search.strategy import Outcome
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain


class HillClimbStrategy(UniqueStrategy):
    """First-improvement descent from the best config of this climb.

    Its neighbours are asked best first by the domain's order, at random where it has none, and the first faster one
    becomes the new centre. While its last neighbours are in flight, those of the climb's next best are asked. Once all
    its neighbours are known, or illegal, and none is faster, the climb is over. The next one starts from a uniform
    draw. Any outcome with a cost starts a climb, seeds and foreign ones too.
    """

    name = "hillclimb"

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._climb: dict[str, tuple[float, Config]] = {}
        self._centres: set[str] = set()
        self._to_try: list[Config] = []
        self._in_flight: set[str] = set()
        self._others_to_try: list[Config] = []
        self._others: set[str] = set()

    def _propose(self) -> Config | None:
        config = self._next_of(self._to_try)
        if config is not None:
            self._in_flight.add(config.id)
            return config
        if not self._in_flight:
            self._climb.clear()
            return None
        return self._next_of_others()

    def _learn(self, outcome: Outcome) -> None:
        id_ = outcome.config.id
        self._in_flight.discard(id_)
        if outcome.cost is None or (id_ in self._others and not self._climb):
            return  # nothing, or of a climb that is over
        cost = outcome.cost.value
        if all(cost < other for other, _ in self._climb.values()):
            self._to_try = self._around(outcome.config)
            self._others_to_try = []
        self._climb[id_] = (cost, outcome.config)

    def _next_of(self, waiting: list[Config]) -> Config | None:
        while waiting:
            config = waiting.pop()
            if self._is_new(config):
                return config
        return None

    def _next_of_others(self) -> Config | None:
        """A neighbour of the best of this climb that was no centre yet."""
        config = self._next_of(self._others_to_try)
        while config is None:
            left = [(cost, id_) for id_, (cost, _) in self._climb.items() if id_ not in self._centres]
            if not left:
                return None
            self._others_to_try = self._around(self._climb[min(left)[1]][1])
            config = self._next_of(self._others_to_try)
        self._others.add(config.id)
        return config

    def _around(self, config: Config) -> list[Config]:
        """Its neighbours, those to be asked first last."""
        self._centres.add(config.id)
        neighbours = self.domain.neighbours(config)
        self.rng.shuffle(neighbours)
        return self.domain.in_order(neighbours[::-1])[::-1]
