"""Parameters, constraints, and the order in which a partly chosen config can be judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hktune.core.config import Value
from hktune.core.errors import SpaceError
from hktune.core.escaped import shown
from hktune.core.expression import RECORDS, Derived, Expression, Message, Scope
from hktune.template.template import PROBLEM_NAMES

_WORD = re.compile(r"[A-Za-z0-9_]{1,64}\Z", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """One knob: its legal values, all of one type, in the order that makes neighbours of similar values."""

    name: str
    values: tuple[Value, ...]
    default: Value
    help: str

    def __post_init__(self) -> None:
        where = f"parameter {self.name}"
        if self.name in PROBLEM_NAMES | RECORDS or not (self.name.isidentifier() and self.name.isascii()):
            taken = "m, n, k, groups, arch, operation are taken"
            raise SpaceError(f"{where}: not a free name: {taken}; use letters, digits and _")
        if not self.values or len({(type(value), value) for value in self.values}) < len(self.values):
            raise SpaceError(f"{where}: values {list(self.values)} must be a list without repeats")
        if len({type(value) for value in self.values}) > 1:
            raise SpaceError(f"{where}: values {list(self.values)} mix types: use integers, strings or booleans only")
        if any(isinstance(value, str) and not _WORD.match(value) for value in self.values):
            raise SpaceError(f"{where}: values {list(self.values)}: text goes into source: use letters, digits and _")
        self.index(self.default)

    @cached_property
    def by_text(self) -> Mapping[str, Value]:
        """The legal values by how a person writes them, in small letters; of equal ones the first."""
        return {str(value).lower(): value for value in reversed(self.values)}

    def has(self, value: object) -> bool:
        """Whether `value` is a legal value; true is not 1."""
        return type(value) is type(self.values[0]) and value in self.values

    def index(self, value: object) -> int:
        """The position of `value` among the legal values. Raises SpaceError, naming them, if it is not there."""
        if self.has(value):
            return self.values.index(value)
        legal = ", ".join(map(str, self.values))
        raise SpaceError(f"{self.name}={shown(value)} is not a legal value: legal are {legal}")


@dataclass(frozen=True)
class Constraint:
    """A named rule and the reason to give when it is broken.

    `parameters` are those it depends on, through derived names too. A `per_problem` one needs a problem.
    """

    name: str
    require: Expression
    reason: Message
    parameters: frozenset[str]
    per_problem: bool


@dataclass(frozen=True)
class Violation:
    """A constraint that a config breaks, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


Bound = dict[str, Any]
"""Values by name, of what is fixed, chosen and derived so far, and the records that expressions may name."""
Step = tuple[str | None, Expression]  # a derived value to bind under its name, or (None) a condition that must hold


def schedule(
    parameters: Sequence[Parameter], derived: Derived, constraints: Sequence[Constraint], with_problem: bool
) -> list[list[Step]]:
    """What can be computed or judged once the first i parameters are chosen, for i from 0 to all of them.

    Without a problem, whatever depends on one is left out.
    """
    level_of: dict[str, int] = {parameter.name: level for level, parameter in enumerate(parameters, start=1)}
    level_of |= dict.fromkeys(PROBLEM_NAMES, 0) if with_problem else {}
    level_of |= dict.fromkeys(RECORDS, 0)
    steps: list[list[Step]] = [[] for _ in range(len(parameters) + 1)]

    def place(name: str | None, expression: Expression) -> None:
        if expression.names <= level_of.keys():
            level = max((level_of[needed] for needed in expression.names), default=0)
            steps[level].append((name, expression))
            if name is not None:
                level_of[name] = level

    for name, expression in derived.expressions.items():
        place(name, expression)
    for constraint in constraints:
        place(None, constraint.require)
    return steps


def passes(steps: Sequence[Step], scope: Bound) -> bool:
    """Binds the derived values of `steps` in `scope`; false as soon as a condition does not hold."""
    for name, expression in steps:
        value = expression.value(scope)
        if name is not None:
            scope[name] = value
        elif not value:
            return False
    return True


def roots(names: Iterable[str], derived: Derived) -> frozenset[str]:
    """The names that `names` come from once derived ones are traced back."""
    seen: set[str] = set()
    pending = set(names)
    while pending:
        name = pending.pop()
        seen.add(name)
        if name in derived.expressions:
            pending |= derived.expressions[name].names - seen
    return frozenset(seen - derived.expressions.keys())


def filled(constraint: Constraint, scope: Scope) -> Violation:
    """The violation of `constraint` by the config in `scope`."""
    return Violation(constraint.name, constraint.reason.filled(scope))
