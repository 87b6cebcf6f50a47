"""The space of a recording: no rules, but the configs that were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hktune.core.config import Config, Value
from hktune.core.expression import Derived
from hktune.core.problem import Problem
from hktune.space.foremost import ForemostRule, Group
from hktune.space.listed import ListedDomain
from hktune.space.rules import Bound, Constraint, Parameter, Step


class RecordedParameter(Parameter):
    """A knob of others' kernels: its name and its values go into no source and no expression, and may be any text."""

    def __post_init__(self) -> None:
        """Nothing is to be checked."""


@dataclass
class RecordedSpace:
    """The parameters of a recording. Any combination of their values that is not on its list is illegal."""

    name: str
    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...] = ()
    derived: Derived = field(default_factory=lambda: Derived({}))
    estimate: Derived = field(default_factory=lambda: Derived({}))
    seeds: tuple[Config, ...] = ()
    foremost: tuple[ForemostRule, ...] = ()

    def facts(self, problem: Problem | None) -> Bound:
        """There are no rules to name any."""
        del problem
        return {}

    def foremost_groups(self, rule: ForemostRule) -> Sequence[Group]:
        """There are no rules that go through any."""
        del rule
        return []

    def scheduled(self, with_problem: bool) -> tuple[list[list[Step]], list[Step]]:
        """There are no rules to judge."""
        del with_problem
        return [[] for _ in range(len(self.parameters) + 1)], []


def recorded_domain(name: str, configs: Sequence[Config]) -> ListedDomain:
    """The domain of these configs, all of the same parameters, each of whose values are of one type.

    Numbers are in ascending order, so that neighbours are alike; words in the order in which they first come.
    """
    space = RecordedSpace(name, tuple(_parameter(each, configs) for each in configs[0]))
    return ListedDomain(space, None, configs)


def _parameter(name: str, configs: Sequence[Config]) -> RecordedParameter:
    found: list[Value] = list(dict.fromkeys(config[name] for config in configs))
    values = found if isinstance(found[0], str) else sorted(found)
    return RecordedParameter(name, tuple(values), values[0], "")
