"""Hill climbing with restarts."""

from __future__ import annotations

from hktune.core.config import Config
from hktune.search.strategy import Outcome
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain


class HillClimbStrategy(UniqueStrategy):
    """First-improvement descent from the best config of this climb.

    Its neighbours are asked best first by the domain's order, at random where it has none, and the first faster one
    becomes the new centre. Once all are known, or illegal, and none is faster, the climb is over. The next one starts
    from a uniform draw. Any outcome with a cost starts a climb, seeds and foreign ones too. Draws also fill a batch
    while the last neighbours are in flight.
    """

    name = "hillclimb"

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._best: tuple[float, Config] | None = None
        self._to_try: list[Config] = []
        self._in_flight: set[str] = set()

    def _propose(self) -> Config | None:
        while self._to_try:
            config = self._to_try.pop()
            if self._is_new(config):
                self._in_flight.add(config.id)
                return config
        if not self._in_flight:
            self._best = None
        return None

    def _learn(self, outcome: Outcome) -> None:
        self._in_flight.discard(outcome.config.id)
        if outcome.cost is not None and (self._best is None or outcome.cost.value < self._best[0]):
            self._best = (outcome.cost.value, outcome.config)
            neighbours = self.domain.neighbours(outcome.config)
            self.rng.shuffle(neighbours)
            self._to_try = self.domain.in_order(neighbours[::-1])[::-1]  # the last is asked first
