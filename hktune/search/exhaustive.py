"""Every legal config, in the domain's order."""

from __future__ import annotations

from hktune.model import Config
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain


class ExhaustiveStrategy(UniqueStrategy):
    name = "exhaustive"

    def __init__(self, domain: Domain, seed: int) -> None:
        super().__init__(domain, seed)
        self._remaining = domain.enumerate()

    def _propose(self) -> Config | None:
        return next((config for config in self._remaining if config.id not in self._seen), None)
