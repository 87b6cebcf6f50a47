"""A choice that was fixed without tuning: what a run says its gain over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hktune.core.config import Config, Value
from hktune.core.expression import Expression
from hktune.core.problem import Problem
from hktune.space.space_schema import FixedChoiceDescription
from hktune.template.template import PROBLEM_NAMES


@dataclass(frozen=True)
class FixedChoice:
    """One config for each kind of problem, by conditions on its sizes. `name` is what it is reported as."""

    name: str
    cases: tuple[tuple[Expression, Config], ...]

    def of(self, problem: Problem) -> Config | None:
        """The config of the first case that `problem` meets, legal for it or not; None where it meets none."""
        scope = {**problem.sizes, "groups": problem.groups}
        return next((config for when, config in self.cases if when.value(scope)), None)


def fixed_choice(description: FixedChoiceDescription, legal: Callable[[Mapping[str, Value]], Config]) -> FixedChoice:
    """What `description` says; `legal` makes a config of values. Raises SpaceError for a condition or a config that is
    no good."""
    cases = []
    for case in description.cases:
        when = Expression(case.when, f"fixed_choice {description.name}, when")
        when.check_names(PROBLEM_NAMES)
        cases.append((when, legal(case.config)))
    return FixedChoice(description.name, tuple(cases))
