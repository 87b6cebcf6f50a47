"""The code that a command is about: a config is compiled for one operation, and problems may ask for several."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.core.errors import InputError
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.space import SearchSpace


def space_for(space: SearchSpace, operation: Operation | None, problems: Sequence[Problem]) -> SearchSpace:
    """`space` with its template for `operation`, else for that of `problems`, else for its first. Raises InputError for
    an operation that the template cannot do, and where one needs other code than another."""
    asked = [*([operation] if operation else []), *(problem.operation for problem in problems)]
    codes = {space.template.code_operation(each): each for each in reversed(asked)}
    if len(codes) > 1:
        first, other, *_ = reversed(codes.values())
        raise InputError(f"{first} and {other} need different code: give them to one command each")
    return space.for_operation(asked[0]) if asked else space
