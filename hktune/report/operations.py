"""How a table of shapes shows what they compute: once where all compute the same, with each where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.report.columns import Column

_NAMED_MAX = 6  # problems in one line


def operation_names(operations: Iterable[Operation]) -> str:
    """Each of `operations` once, in order."""
    return ", ".join(map(str, sorted(set(operations))))


def shared_product(problems: Iterable[Problem]) -> str:
    """What all of `problems` compute, epilogues aside, with a space after it; nothing where they differ, or are none.

    It is what a table's heading says; `problem_columns` shows the rest.
    """
    products = {problem.operation.bare for problem in problems}
    return f"{products.pop()} " if len(products) == 1 else ""


def problem_columns(problems: Sequence[Problem]) -> list[Column]:
    """The sizes of each, and of its operation what `shared_product` does not say: the steps of its epilogue, such as
    +bias, or a column of whole operations."""
    shared = bool(shared_product(problems))
    steps = ["".join(f"+{step}" for step in problem.operation.epilogue) if shared else "" for problem in problems]
    sizes = [f"{problem.m}x{problem.n}x{problem.k}" for problem in problems]
    return [
        Column("m x n x k", [size + added for size, added in zip(sizes, steps, strict=True)]),
        Column("operation", ["" if shared else str(problem.operation) for problem in problems]),
    ]


def some_problems(problems: Sequence[Problem]) -> str:
    """The first few in words, and how many more there are."""
    more = f" and {len(problems) - _NAMED_MAX} more" if len(problems) > _NAMED_MAX else ""
    return f"{', '.join(map(str, problems[:_NAMED_MAX]))}{more}"


def given_name(name: str, problem: Problem) -> str:
    """`name` unless it is the problem's own words, which are shown anyway."""
    return "" if name == str(problem) else name
