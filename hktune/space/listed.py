"""A domain narrowed to a list of configs: what was built before, say."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

from hktune.errors import SpaceError
from hktune.model import Config, Problem, Value
from hktune.space.domain import Domain
from hktune.space.space import SearchSpace


class ListedDomain(Domain):
    """Those of `configs` that are legal for `problem`, in the list's order.

    Judging, neighbours and reasons are those of `Domain`; nothing off the list is legal here.
    """

    def __init__(self, space: SearchSpace, problem: Problem | None, configs: Iterable[Config]) -> None:
        super().__init__(space, problem)
        self._listed = {config.id: config for config in configs if Domain.is_legal(self, config)}

    def is_legal(self, config: Mapping[str, Value]) -> bool:
        """Whether `config` is on the list, and legal."""
        return (config if isinstance(config, Config) else Config(config)).id in self._listed

    def enumerate(self) -> Iterator[Config]:
        """The list."""
        return iter(self._listed.values())

    def sample(self, rng: random.Random) -> Config:
        """One of the list, each equally likely. Raises SpaceError if there is none."""
        if not self._listed:
            raise SpaceError(f"{self}: no listed config is legal: build some with hktune build")
        return rng.choice(list(self._listed.values()))
