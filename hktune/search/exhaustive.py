"""Every legal config, in the domain's order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from hktune.core.config import Config
from hktune.search.unique import UniqueStrategy


class ExhaustiveStrategy(UniqueStrategy):
    name = "exhaustive"

    @cached_property
    def _remaining(self) -> Iterator[Config]:
        """Begun when first asked: a strategy can be pickled until then, an iterator cannot."""
        return self.domain.enumerate()

    def _propose(self) -> Config | None:
        return next((config for config in self._remaining if config.id not in self._seen), None)
