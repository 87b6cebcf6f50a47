"""The legal configs of one problem: all that a strategy sees of a search space."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import chain, islice, zip_longest
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol

from hktune.core.config import Config, Value
from hktune.core.errors import SpaceError
from hktune.core.expression import Derived
from hktune.core.problem import Problem
from hktune.space.choices import Choices
from hktune.space.foremost import ForemostRule, Group
from hktune.space.rules import Bound, Constraint, Parameter, Step, Violation, filled, passes

DESCENTS = 6
"""From so many of the seeds, the best by the estimate, what else it favours is sought."""

LOOKS_MAX = 2_000_000  # some 10 us each; the shipped spaces take at most 900
COMBINATIONS_MAX = 200_000
"""Of parameters' values, so many are gone through to list what is legal: some seconds at most."""

REPAIRS_MAX = 128
"""Of a change that constraints forbid: so many second changes are looked at, the least far ones."""

_ALL: Mapping[str, Sequence[Value]] = MappingProxyType({})
_DRAWS = 5000  # some 10 us each, most being left at their first illegal value


_Values = Callable[[Parameter], Sequence[Value]]


def _declared(parameter: Parameter) -> Sequence[Value]:
    return parameter.values


class Looks:
    """How often a search for one legal config may look: constraints that fail only once most parameters are chosen
    would have it look at everything."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._left = LOOKS_MAX

    def one_more(self) -> None:
        """Raises SpaceError when it has looked often enough."""
        self._left -= 1
        if self._left < 0:
            rule = f"{self._domain}: no legal config among {LOOKS_MAX} partly chosen ones"
            raise SpaceError(f"{rule}: loosen a constraint, or declare first the parameters that it depends on")


class Rules(Protocol):
    """What a domain asks of its search space."""

    name: str
    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...]
    derived: Derived
    estimate: Derived
    seeds: tuple[Config, ...]
    foremost: tuple[ForemostRule, ...]

    def foremost_groups(self, rule: ForemostRule) -> Sequence[Group]: ...

    def facts(self, problem: Problem | None) -> Bound: ...

    def scheduled(self, with_problem: bool) -> tuple[list[list[Step]], list[Step]]: ...


class Order(Protocol):
    """What trials of other shapes say of a shape's configs. It decides nothing: it is asked what to try first."""

    def favourites(self, domain: Domain) -> Sequence[Config]:
        """What to try first in `domain`, best first, all legal there; none where it knows nothing of it."""

    def slowness(self, domain: Domain, configs: Sequence[Config]) -> Sequence[float] | None:
        """What orders these legal configs of `domain`, less being faster; None where it knows nothing of it."""


class Domain:
    """The configs of `space` that are legal for `problem`; if that is None, by the constraints that need no problem.

    Order is lexicographic in the space's declaration: the last parameter varies fastest.
    """

    def __init__(self, space: Rules, problem: Problem | None) -> None:
        self.space = space
        self.problem = problem
        self._fixed: Bound = space.facts(problem)
        self._levels, self._steps = space.scheduled(problem is not None)
        self._preferred: tuple[Config, ...] = ()
        self._order: Order | None = None

    def __str__(self) -> str:
        return f"{self.space.name} for {self.problem or 'any problem'}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.space.parameters

    @cached_property
    def seeds(self) -> tuple[Config, ...]:
        """What to try first, best first: what is preferred; then the space's named good configs that are legal here;
        where it has an estimate, also what else that favours, all in its order, and after the first of them what is
        foremost. An order has every other turn."""
        first = filter(self.has_values_of, self._preferred)
        usual = self._usual_seeds()
        if self._order is not None:
            turns = chain.from_iterable(zip_longest(self._order.favourites(self), usual))
            usual = [config for config in turns if config is not None]
        return tuple(dict.fromkeys(chain(filter(self.is_legal, first), usual)))

    def preferring(self, configs: Sequence[Config]) -> Domain:
        """This domain, with those of `configs` that are legal here as its first seeds, in their order."""
        other = copy(self)
        other._preferred = tuple(configs)
        other.__dict__.pop("seeds", None)
        return other

    def led_by(self, order: Order) -> Domain:
        """This domain, whose configs are tried in `order` where that knows of them."""
        other = copy(self)
        other._order = order
        other.__dict__.pop("seeds", None)
        return other

    def _usual_seeds(self) -> Iterable[Config]:
        named = tuple(dict.fromkeys(filter(self.is_legal, map(self._choices.settled, self.space.seeds))))
        if not self.has_estimate:
            return named
        in_order = sorted(dict.fromkeys(chain(named, self._suggested(named))), key=self.estimate)
        return [*in_order[:1], *self._foremost(), *in_order[1:]]

    def _foremost(self) -> Iterator[Config]:
        """What the space's rules put foremost here. The estimate has a say in the parameters that a rule does not vary,
        in those alone."""
        for rule in self.space.foremost:
            if rule.when.value(self._fixed):
                of_rule = self.space.foremost_groups(rule)
                settled = self._choices.settled
                here = [tuple(map(settled, group)) for group in of_rule] if self._choices.forced else of_rule
                groups = rule.best_first(here, self._fixed)
                legal = (next(filter(self.is_legal, group), None) for group in groups)
                for found in islice((each for each in legal if each is not None), rule.first):
                    yield self._with_most(self._descended(found, rule.held), rule.most)

    def _with_most(self, config: Config, names: Sequence[str]) -> Config:
        """`config` with the largest legal value of each of the parameters `names`, one after the other."""
        for name in names:
            values = next(parameter.values for parameter in self.parameters if parameter.name == name)
            larger = (Config({**config, name: value}) for value in reversed(values))
            config = next(filter(self.is_legal, larger), config)
        return config

    def _suggested(self, named: Sequence[Config]) -> Iterable[Config]:
        """What else the estimate favours: where descents from the best of `named` end."""
        return map(self._descended, sorted(named, key=self.estimate)[:DESCENTS])

    @property
    def has_estimate(self) -> bool:
        return self.problem is not None and bool(self.space.estimate.expressions)

    def estimate(self, config: Mapping[str, Value]) -> int:
        """About how long `config` takes by the space's estimate, which it must have: good for an order only."""
        *_, value = self.space.estimate.values({**self._fixed, **config}).values()
        return int(value)

    def in_order(self, configs: Sequence[Config]) -> list[Config]:
        """Legal configs, best first by the order that leads this domain, else by the space's estimate; without either,
        as they are given."""
        known = self._order.slowness(self, configs) if self._order is not None and configs else None
        if known is not None:
            return [config for _, config in sorted(zip(known, configs, strict=True), key=itemgetter(0))]
        return sorted(configs, key=self.estimate) if self.has_estimate else list(configs)

    def numbers(self, config: Mapping[str, Value]) -> dict[str, float]:
        """Every number and truth that the space derives from `config` for its problem, or needs for its estimate, by
        name; 0 for a word."""
        values = self._numeric.values({**self._fixed, **config})
        return {name: 0.0 if isinstance(value, str) else float(value) for name, value in values.items()}

    @cached_property
    def _numeric(self) -> Derived:
        return Derived({**self.space.derived.expressions, **self.space.estimate.expressions})

    @cached_property
    def is_empty(self) -> bool:
        """Whether no config is legal; as fast as finding the first one. Raises SpaceError where that takes too long."""
        return next(self._walk(0, len(self.parameters), dict(self._fixed), looks=Looks(self)), None) is None

    @cached_property
    def count(self) -> int:
        """How many configs are legal, exactly."""
        return self._count(0, dict(self._fixed), [{} for _ in self._levels])

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

    def derived_values(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """Everything that the space derives from `config`, the template's geometry first; what needs a problem only
        where there is one."""
        scope = {**self._fixed, **config}
        steps = [step for step in self._steps if step[0] is not None]
        passes(steps, scope)
        return {name: scope[name] for name in self.space.derived.expressions if name in scope}

    def enumerate(self) -> Iterator[Config]:
        """Every legal config, in order; a branch is left as soon as a constraint on what is chosen fails."""
        return map(self._chosen, self._walk(0, len(self.parameters), dict(self._fixed)))

    def restricted(self, among: Mapping[str, Sequence[Value]]) -> Iterator[Config]:
        """Every legal config whose parameters that `among` names have a value of its list, in order."""

        def values(parameter: Parameter) -> Sequence[Value]:
            return among.get(parameter.name, parameter.values)

        return map(self._chosen, self._walk(0, len(self.parameters), dict(self._fixed), values))

    def listed(self, most: int) -> list[Config] | None:
        """Every legal config, in order; None where they are more than `most`, or hard to find among all combinations of
        values."""
        if math.prod(len(parameter.values) for parameter in self.parameters) > COMBINATIONS_MAX:
            return None
        found = list(islice(self.enumerate(), most + 1))
        return found if len(found) <= most else None

    def sample(self, rng: random.Random) -> Config:
        """One legal config. Raises SpaceError if there is none.

        Each is equally likely, unless _DRAWS draws find none: then one is searched for in a random order of values,
        which favours configs whose neighbours are illegal but never lists the space.
        """
        descents = chain((self._descent(rng, retreats=False) for _ in range(_DRAWS)), [self._descent(rng, True)])
        scope = next((found for descent in descents for found in descent), None)
        if scope is None:
            raise SpaceError(f"{self}: no config is legal: {self._first_obstacle()}")
        return self._chosen(scope)

    def draw(self, rng: random.Random, among: Mapping[str, Sequence[Value]]) -> Config | None:
        """One legal config, each equally likely of those whose parameters that `among` names have a value of its list;
        None where none was found."""
        descents = chain.from_iterable(self._descent(rng, retreats=False, among=among) for _ in range(_DRAWS))
        return next(map(self._chosen, descents), None)

    def neighbours(self, config: Mapping[str, Value]) -> list[Config]:
        """Legal configs one step away: every single change of a parameter, in order.

        Where constraints forbid a single change, one other parameter that they depend on moves with it, by as few
        values as make the pair legal. Otherwise coupled parameters would cut the space into islands.
        """
        found: dict[Config, None] = {}
        for parameter in self.parameters:
            for value in self._choices.possible[parameter.name]:
                if value != config[parameter.name]:
                    moved = self._moved(config, parameter.name, value)
                    if moved is not None:
                        found[moved] = None
        return list(found)

    def _chosen(self, scope: Bound) -> Config:
        return Config({parameter.name: scope[parameter.name] for parameter in self.parameters})

    def _descended(self, config: Config, held: Collection[str] = ()) -> Config:
        """The last of the configs that each are the best neighbour of the one before, by the estimate. A change that is
        no gain by itself is not looked at, and none of the parameters that are `held`."""
        weighing = self.space.estimate.free_names - {*held}
        weighed = [each for each in self.parameters if each.name in weighing]
        while True:
            now = self.estimate(config)
            changes = [
                (parameter.name, value) for parameter in weighed for value in self._choices.possible[parameter.name]
            ]
            better = [change for change in changes if self.estimate({**config, change[0]: change[1]}) < now]
            moved = (self._moved(config, name, value, held) for name, value in better)
            best = min((each for each in moved if each is not None), key=self.estimate, default=config)
            if self.estimate(best) >= now:
                return config
            config = best

    def _moved(self, config: Mapping[str, Value], name: str, value: Value, held: Collection[str] = ()) -> Config | None:
        changed = {**config, name: value}
        if self.is_legal(changed):
            return Config(changed)
        involved = self._involved(changed) - {name, *held}
        repairs = [
            (abs(position - parameter.index(config[parameter.name])), order, position, parameter)
            for order, parameter in enumerate(self.parameters)
            if parameter.name in involved and len(self._choices.possible[parameter.name]) > 1
            for position in range(len(parameter.values))
        ]
        for _, _, position, parameter in heapq.nsmallest(REPAIRS_MAX, repairs, key=lambda repair: repair[:3]):
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

    def _descent(
        self, rng: random.Random, retreats: bool, among: Mapping[str, Sequence[Value]] = _ALL
    ) -> Iterator[Bound]:
        """The walk through values in random order, of what `among` names through those only; without `retreats`, only
        one value of each parameter."""

        def shuffled(parameter: Parameter) -> Sequence[Value]:
            values = among.get(parameter.name, self._choices.possible[parameter.name])
            return values if len(values) == 1 else rng.sample(values, len(values) if retreats else 1)

        last, looks = len(self.parameters), Looks(self) if retreats else None
        if self._begun is None or not among.keys().isdisjoint(parameter.name for parameter in self._choices.first):
            return self._walk(0, last, dict(self._fixed), shuffled, looks)
        return self._onward(len(self._choices.first), last, dict(self._begun), shuffled, looks)

    @cached_property
    def _choices(self) -> Choices:
        return Choices(self.parameters, self._steps, self._fixed)

    @cached_property
    def _begun(self) -> Bound | None:
        """What is bound once the first parameters are chosen that have but one possible value; None where a rule
        forbids that. Most draws end soon after, so it is worked out once for all of them."""
        one = self._choices.possible
        walk = self._walk(0, len(self._choices.first), dict(self._fixed), lambda parameter: one[parameter.name])
        return next(walk, None)

    def _count(self, level: int, scope: Bound, known: list[dict[tuple[object, ...], int]]) -> int:
        """The legal ways to choose the parameters from `level` on; `known` has those found, by all they depend on."""
        if not passes(self._levels[level], scope):
            return 0
        if level == len(self.parameters):
            return 1
        key = tuple(scope[name] for name in self._needed[level])
        if key not in known[level]:
            parameter = self.parameters[level]
            ways = (self._count(level + 1, {**scope, parameter.name: value}, known) for value in parameter.values)
            known[level][key] = sum(ways)
        return known[level][key]

    @cached_property
    def _needed(self) -> list[tuple[str, ...]]:
        """At each level, the names that have a value there and are asked for at a later one."""
        bound, needed = set(self._fixed), []
        for level, steps in enumerate(self._levels):
            bound |= {name for name, _ in steps if name is not None}
            bound |= {parameter.name for parameter in self.parameters[:level]}
            later = (expression.names for steps in self._levels[level + 1 :] for _, expression in steps)
            needed.append(tuple(sorted(bound & set().union(*later))))
        return needed

    def _walk(
        self, level: int, last: int, scope: Bound, order: _Values = _declared, looks: Looks | None = None
    ) -> Iterator[Bound]:
        """Yields `scope` with the first `last` parameters bound, for each way that breaks no rule so far."""
        if looks is not None:
            looks.one_more()
        if not passes(self._levels[level], scope):
            return
        yield from self._onward(level, last, scope, order, looks)

    def _onward(self, level: int, last: int, scope: Bound, order: _Values, looks: Looks | None) -> Iterator[Bound]:
        """`_walk` from where the first `level` parameters are chosen and judged."""
        if level == last:
            yield scope
            return
        parameter = self.parameters[level]
        for value in order(parameter):
            scope[parameter.name] = value
            yield from self._walk(level + 1, last, scope, order, looks)
