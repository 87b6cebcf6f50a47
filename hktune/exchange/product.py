"""One matrix product that another tool's file names, and whether a table can serve it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hktune.core.errors import InputError, ShapesError
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.shapes import DIMENSION_MAX, matrices_fit
from hktune.dispatch.calls import CALL_OPERATIONS

CALLS_MAX = 1e9  # of one line; a year of calls of 30 us each is 1e12
_SIZE = re.compile(r"\+?([0-9]{1,18})(?:\.0*)?", re.ASCII).fullmatch
_NUMBER = re.compile(r"[-+]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][-+]?[0-9]{1,4})?", re.ASCII).fullmatch

NO_SIZES = f"sizes that are not whole numbers from 1 to {DIMENSION_MAX}"
NO_CALLS = f"a count of calls that is not from 1 to {CALLS_MAX:g}"
NO_FORMATS = "without the format of its operands (hktune shapes --operation says it)"
BATCHED = "batched"
TOO_LARGE = "an operand with too many elements"


@dataclass(frozen=True)
class Product:
    """One product of a file. `said` is what the file calls it, `line` where, counted from 1 (0: it has no lines).

    `problem` is None where hktune cannot serve it, and `why_not` says why, in words that other products share. `calls`
    is how often it was called, None where the file does not count. `time_us` is what `way` took, on a GPU of `arch`
    with `compute_units`, as far as the file says (empty, and 0).
    """

    said: str
    line: int = 0
    problem: Problem | None = None
    why_not: str = ""
    calls: float | None = None
    time_us: float | None = None
    way: str = ""
    arch: str = ""
    compute_units: int = 0

    @property
    def board(self) -> str:
        """Where it was timed, for a person."""
        units = f"{self.compute_units} compute units" if self.compute_units else ""
        return ", ".join(filter(None, (self.arch, units))) or "a board that the file does not name"


class NotServed(ValueError):
    """Why a table cannot serve a product; the text is for a person, and names no value of this product alone."""


def served_problem(m: object, n: object, k: object, operation: Operation) -> Problem:
    """The problem of these sizes, as a file says them. Raises NotServed where no call could ask a table for it."""
    rows, columns, inner = (size_of(each) for each in (m, n, k))
    if operation not in CALL_OPERATIONS:
        raise NotServed(f"{operation}, which no call asks a table for")
    problem = Problem(rows, columns, inner, operation)
    try:
        matrices_fit(problem, "")
    except ShapesError:
        raise NotServed(TOO_LARGE) from None
    return problem


def operation_named(a: str, b: str, c: str, *, layout: str = "nt", has_bias: bool = False) -> Operation:
    """The operation of operands of these formats, by hktune's names of them. Raises NotServed where there is none."""
    try:
        return Operation(a, layout, b, c, ("bias",) if has_bias else ())
    except InputError:
        raise NotServed(f"operands of {a}, {b} and {c}" if len({a, b, c}) > 1 else f"operands of {a}") from None


def size_of(value: object) -> int:
    """A size, as text or as a number; some tools write 8192.000000. Raises NotServed for anything else."""
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, str):
        found = _SIZE(value.strip())
        value = int(found[1]) if found else None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= DIMENSION_MAX:
        raise NotServed(NO_SIZES)
    return value


def number_of(value: object) -> float | None:
    """A finite number, as text or as one; None for anything else."""
    if isinstance(value, str):
        value = float(value) if _NUMBER(value.strip()) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def time_of(value: object, unit_us: float = 1.0) -> float | None:
    """A time in us; None for what is none, as the 0, -1, inf and nan that tuners write where they measured nothing."""
    number = number_of(value)
    time_us = number * unit_us if number is not None else 0.0
    return time_us if 0 < time_us < 1e12 else None


def calls_of(value: object) -> float:
    """How often something was called. Raises NotServed for what is no such number."""
    number = number_of(value)
    if number is None or not 1 <= number <= CALLS_MAX:
        raise NotServed(NO_CALLS)
    return number


def truth_of(value: object) -> bool:
    """What a file means by true, True, TRUE or 1."""
    return value is True or str(value).strip().lower() in ("true", "1")


def text_of(row: Mapping[str, object], name: str) -> str:
    """What `row` says under `name`, trimmed; nothing where it has no such key."""
    value = row.get(name)
    return "" if value is None else str(value).strip()
