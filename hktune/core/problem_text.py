"""A problem as a person writes it in one word: MxNxK, MxNxK+bias, MxNxK:f16.nt; or in two, as it is printed."""

from __future__ import annotations

import re

from hktune.core.errors import InputError, ShapesError
from hktune.core.escaped import shown
from hktune.core.operation import BF16_NT, STEPS_PATTERN, problem_operation
from hktune.core.problem import Problem
from hktune.core.shapes import DIMENSION_MAX, matrices_fit

_SIZES = r"(?P<m>[-+]?[0-9]{1,18})x(?P<n>[-+]?[0-9]{1,18})x(?P<k>[-+]?[0-9]{1,18})"
_PROBLEM = re.compile(rf"{_SIZES}(?:[: ](?P<operation>.+)|{STEPS_PATTERN})\Z")
_OPERATION_FIRST = re.compile(rf"(?P<operation>[^ ]+) {_SIZES}(?P<steps>)\Z")


def is_problem_text(text: str) -> bool:
    """Whether `text` has the form of a problem, legal or not."""
    return bool(_PROBLEM.match(text) or _OPERATION_FIRST.match(text))


def problem_of(text: str) -> Problem:
    """The problem that `text` names: MxNxK and MxNxK+STEP (of bf16.nt), MxNxK:OPERATION, and with a space between
    MxNxK and OPERATION, in either order. Raises ShapesError for what a shapes file may not ask for."""
    parts = _PROBLEM.match(text) or _OPERATION_FIRST.match(text)
    if parts is None:
        raise ShapesError(f"must be MxNxK or MxNxK:OPERATION, such as 4096x4096x4096:f16.nt, got {shown(text)}")
    try:
        operation = problem_operation(parts["operation"] or f"{BF16_NT}{parts['steps']}")
    except InputError as unknown:
        raise ShapesError(f"{unknown}, got {shown(text)}") from None
    problem = Problem(_size(parts["m"]), _size(parts["n"]), _size(parts["k"]), operation)
    matrices_fit(problem, shown(text))
    return problem


def _size(text: str) -> int:
    if not 1 <= int(text) <= DIMENSION_MAX:
        raise ShapesError(f"must be an integer from 1 to {DIMENSION_MAX}, got {shown(text)}")
    return int(text)
