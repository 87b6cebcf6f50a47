"""A domain narrowed to a list of configs: what was built before, or recorded."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from hktune.core.config import Config, Value
from hktune.core.errors import SpaceError
from hktune.core.problem import Problem
from hktune.space.domain import Domain, Rules
from hktune.space.rules import Parameter

SUGGESTED = 16
"""So many of a list are tried first for the estimate alone."""


class ListedDomain(Domain):
    """Those of `configs` that are legal for `problem`, in the order of the space's estimate; without one, the list's.

    Judging and reasons are those of `Domain`; nothing off the list is legal here.
    """

    def __init__(self, space: Rules, problem: Problem | None, configs: Iterable[Config]) -> None:
        super().__init__(space, problem)
        listed = [config for config in configs if Domain.is_legal(self, config)]
        in_order = sorted(listed, key=self.estimate) if self.has_estimate else listed
        self._listed = {config.id: config for config in in_order}

    def is_legal(self, config: Mapping[str, Value]) -> bool:
        """Whether `config` is on the list, and legal."""
        return (config if isinstance(config, Config) else Config(config)).id in self._listed

    def _suggested(self, named: Sequence[Config]) -> Iterable[Config]:
        """The best of the list."""
        del named
        return islice(self._listed.values(), SUGGESTED)

    @cached_property
    def is_empty(self) -> bool:
        """Whether nothing on the list is legal."""
        return not self._listed

    @cached_property
    def count(self) -> int:
        """How many of the list are legal."""
        return len(self._listed)

    def enumerate(self) -> Iterator[Config]:
        """The list."""
        return iter(self._listed.values())

    def listed(self, most: int) -> list[Config] | None:
        """The list; None where it has more than `most`."""
        return list(self._listed.values()) if len(self._listed) <= most else None

    def neighbours(self, config: Mapping[str, Value]) -> list[Config]:
        """What on the list differs from `config` in one parameter, then what differs in two."""
        own = [parameter.index(config[parameter.name]) for parameter in self.parameters]
        differing = (self._positions != own).sum(axis=1)
        return [self._in_order[at] for count in (1, 2) for at in (differing == count).nonzero()[0]]

    def sample(self, rng: random.Random) -> Config:
        """One of the list, each equally likely. Raises SpaceError if there is none."""
        if not self._listed:
            raise SpaceError(f"{self}: no listed config is legal: build some with hktune build")
        return rng.choice(self._in_order)

    def draw(self, rng: random.Random, among: Mapping[str, Sequence[Value]]) -> Config | None:
        """One of the list, each equally likely of those whose parameters that `among` names have a value of its list;
        None if there is none."""
        found = [config for config in self._in_order if all(config[name] in among[name] for name in among)]
        return rng.choice(found) if found else None

    @cached_property
    def _in_order(self) -> tuple[Config, ...]:
        return tuple(self._listed.values())

    @cached_property
    def _positions(self) -> Any:
        """Of each config of the list, a row: for each parameter, the position of its value. As a list of thousands may
        be, it is compared at once."""
        import numpy as np

        places = [(parameter.name, _place_of(parameter)) for parameter in self.parameters]
        rows = [[place[config[name]] for name, place in places] for config in self._in_order]
        return np.array(rows, np.int32).reshape(len(rows), len(places))


def _place_of(parameter: Parameter) -> dict[Value, int]:
    return {value: place for place, value in enumerate(parameter.values)}
