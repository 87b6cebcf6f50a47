"""What a machine's numbers say is to be tried among the first, whatever the estimate says of it.

An estimate orders configs by all that it knows, and where it is wrong it hides what is plain: that one tile needs one
wave of blocks and another two. A rule here goes through all combinations of a few parameters, say all tiles, and takes
the one whose numbers are least.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hktune.core.config import Config, Value
from hktune.core.expression import Derived, Expression
from hktune.space.rules import Bound

Group = tuple[Config, ...]
"""Configs of one combination of the varied parameters, in the order of the bases that they have the rest from."""


@dataclass(frozen=True)
class ForemostRule:
    """Of all combinations of `varied` for which `require` holds, the `first` ones with the least `least` are tried,
    these compared one after the other. `bases` have the other parameters, the first that is legal counts; then the
    estimate has its say in all but those that are `held`, and those of `most` are made as large as may be. It is for
    problems for which `when` holds."""

    varied: tuple[str, ...]
    bases: tuple[Config, ...]
    when: Expression
    require: Derived
    least: Derived
    least_names: tuple[str, ...]
    held: tuple[str, ...]
    most: tuple[str, ...]
    first: int

    def groups(self, legal: Iterable[Config]) -> list[Group]:
        """`legal` configs by their combination, in their order."""
        found: dict[tuple[Value, ...], list[Config]] = {}
        for config in legal:
            found.setdefault(tuple(config[name] for name in self.varied), []).append(config)
        return [tuple(group) for group in found.values()]

    def among(self, base: Mapping[str, Value]) -> dict[str, Sequence[Value]]:
        """The values that a config with the rest of `base` may have of each parameter that is not varied."""
        return {name: (value,) for name, value in base.items() if name not in self.varied}

    def best_first(self, groups: Iterable[Group], facts: Bound) -> Iterator[Group]:
        """Those for which `require` holds, by `least` over `facts` of a problem."""
        scopes = (({**facts, **group[0]}, group) for group in groups)
        ranked = [(self._key(scope), group) for scope, group in scopes if self._holds(scope)]
        ranked.sort(key=lambda each: each[0])
        return (group for _, group in ranked)

    def _holds(self, scope: Bound) -> bool:
        *_, holds = self.require.values(scope).values()
        return bool(holds)

    def _key(self, scope: Bound) -> tuple[Value, ...]:
        values = self.least.values(scope)
        return tuple(values[name] for name in self.least_names)
