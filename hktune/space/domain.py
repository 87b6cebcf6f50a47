"""The legal configs of one problem: all that a strategy sees of a search space."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from hktune.errors import SpaceError
from hktune.model import Config, Problem, Value
from hktune.space.rules import Constraint, Parameter, Step, Violation, filled, passes, schedule

if TYPE_CHECKING:
    from hktune.space.space import SearchSpace

_DRAWS = 20_000  # of rejection sampling, about 10 us each: enough where one in 2,000 is legal; then a walk over all


class Domain:
    """The configs of `space` that are legal for `problem`; if that is None, by the constraints that need no problem.

    Order is lexicographic in the space's declaration: the last parameter varies fastest.
    """

    def __init__(self, space: SearchSpace, problem: Problem | None) -> None:
        self.space = space
        self.problem = problem
        self._fixed: dict[str, Any] = {"arch": space.arch}
        if problem is not None:
            self._fixed |= {"m": problem.m, "n": problem.n, "k": problem.k}
        self._levels = schedule(space.parameters, space.derived, space.constraints, problem is not None)
        self._steps: list[Step] = [step for level in self._levels for step in level]

    def __str__(self) -> str:
        return f"{self.space.name} for {self.problem or 'any problem'}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.space.parameters

    @cached_property
    def seeds(self) -> tuple[Config, ...]:
        """The space's named good configs that are legal here, best first."""
        return tuple(seed for seed in self.space.seeds if self.is_legal(seed))

    @cached_property
    def count(self) -> int:
        """How many configs are legal, exactly."""
        judged = max((level for level, steps in enumerate(self._levels) if steps), default=0)
        free = math.prod(len(parameter.values) for parameter in self.parameters[judged:])
        return free * sum(1 for _ in self._walk(0, judged, dict(self._fixed)))

    def has_values_of(self, config: Mapping[str, Value]) -> bool:
        """Whether `config` is a point of the space at all, legal or not: its parameters, each at one of its values."""
        return len(config) == len(self.parameters) and all(p.has(config.get(p.name)) for p in self.parameters)

    def is_legal(self, config: Mapping[str, Value]) -> bool:
        """Whether every constraint holds. `config` must have a value for each parameter."""
        return passes(self._steps, {**self._fixed, **config})

    def violations(self, config: Mapping[str, Value]) -> tuple[Violation, ...]:
        """Every constraint that `config` breaks, in the space's order, with its reason."""
        scope = {**self._fixed, **config}
        passes([step for step in self._steps if step[0] is not None], scope)
        return tuple(filled(constraint, scope) for constraint in self._judged() if not constraint.require.value(scope))

    def enumerate(self) -> Iterator[Config]:
        """Every legal config, in order; a branch is left as soon as a constraint on what is chosen fails."""
        names = [parameter.name for parameter in self.parameters]
        for scope in self._walk(0, len(names), dict(self._fixed)):
            yield Config({name: scope[name] for name in names})

    def sample(self, rng: random.Random) -> Config:
        """One legal config, each equally likely. Raises SpaceError if there is none."""
        for _ in range(_DRAWS):
            values = {parameter.name: rng.choice(parameter.values) for parameter in self.parameters}
            if self.is_legal(values):
                return Config(values)
        if not self.count:
            raise SpaceError(f"{self}: no config is legal: {self._first_obstacle()}")
        return next(islice(self.enumerate(), rng.randrange(self.count), None))

    def neighbours(self, config: Mapping[str, Value]) -> list[Config]:
        """Legal configs one step away: every single change of a parameter, in order.

        Where constraints forbid a single change, one other parameter that they depend on moves with it, the least
        far along its values that makes the pair legal; coupled parameters would cut the space into islands otherwise.
        """
        found: dict[Config, None] = {}
        for parameter in self.parameters:
            for value in parameter.values:
                if value != config[parameter.name]:
                    moved = self._moved(config, parameter.name, value)
                    if moved is not None:
                        found[moved] = None
        return list(found)

    def _moved(self, config: Mapping[str, Value], name: str, value: Value) -> Config | None:
        changed = {**config, name: value}
        if self.is_legal(changed):
            return Config(changed)
        involved = self._involved(changed) - {name}
        repairs = [
            (abs(position - parameter.index(config[parameter.name])), order, position, parameter)
            for order, parameter in enumerate(self.parameters)
            if parameter.name in involved
            for position in range(len(parameter.values))
        ]
        for _, _, position, parameter in sorted(repairs, key=lambda repair: repair[:3]):
            repaired = {**changed, parameter.name: parameter.values[position]}
            if self.is_legal(repaired):
                return Config(repaired)
        return None

    def _involved(self, values: Mapping[str, Value]) -> frozenset[str]:
        broken = {violation.name for violation in self.violations(values)}
        return frozenset().union(*(rule.parameters for rule in self.space.constraints if rule.name in broken))

    def _judged(self) -> Iterator[Constraint]:
        return (rule for rule in self.space.constraints if self.problem is not None or not rule.per_problem)

    def _first_obstacle(self) -> str:
        default = {parameter.name: parameter.default for parameter in self.parameters}
        return f"the default one breaks {self.violations(default)[0]}"

    def _walk(self, level: int, last: int, scope: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields `scope` with the first `last` parameters bound, for each way that breaks no rule so far."""
        if not passes(self._levels[level], scope):
            return
        if level == last:
            yield scope
            return
        parameter = self.parameters[level]
        for value in parameter.values:
            scope[parameter.name] = value
            yield from self._walk(level + 1, last, scope)
