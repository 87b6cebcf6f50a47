"""Which values parameters may have for a problem at all, as far as rules say so of each alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from hktune.core.config import Config, Value
from hktune.space.rules import Bound, Parameter, Step, passes


class Choices:
    """Of each parameter, the values that no rule of `steps` forbids which needs no other parameter but those that have
    one such value alone; where there is none, all. Legal configs have no others."""

    def __init__(self, parameters: Sequence[Parameter], steps: Sequence[Step], fixed: Bound) -> None:
        self._parameters, self._steps = parameters, steps
        declared: dict[str, Sequence[Value]] = {parameter.name: parameter.values for parameter in parameters}
        alone = self._possible(declared, fixed)
        self.possible = self._possible(alone, {**fixed, **_single(alone)})
        """By parameter, in its order."""
        single = _single(self.possible)
        self.first = tuple(takewhile(lambda parameter: parameter.name in single, parameters))
        """The first parameters, as many as have but one possible value."""
        usual = {parameter.name: parameter.default for parameter in parameters}
        self.forced = {name: value for name, value in single.items() if value != usual[name]}
        """The values of those that have but one, where that is not the default."""

    def settled(self, config: Config) -> Config:
        """`config` with the values that are forced instead of its own: what it comes to here."""
        return Config({**config, **self.forced}) if self.forced else config

    def _possible(self, values: dict[str, Sequence[Value]], known: Bound) -> dict[str, Sequence[Value]]:
        found = {name: [each for each in values[name] if self._may_be(known, name, each)] for name in values}
        return {name: found[name] or values[name] for name in values}

    def _may_be(self, known: Bound, name: str, value: Value) -> bool:
        scope = {**known, name: value}
        return all(passes([step], scope) for step in self._steps if step[1].names <= scope.keys())


def _single(values: dict[str, Sequence[Value]]) -> dict[str, Value]:
    return {name: among[0] for name, among in values.items() if len(among) == 1}
