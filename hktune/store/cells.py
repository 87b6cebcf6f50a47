"""How one value of a trial is a cell of trials.csv, column by column, and which values a cell may have."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

from hktune.core.bounded_text import PLAIN
from hktune.core.bounded_text import TEXT_MAX as LINE_MAX
from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.operation import Operation, problem_operation
from hktune.core.outcome import Source, Stage, Status
from hktune.core.trial import Trial

FIELDS = tuple(field.name for field in fields(Trial))
"""The columns that are fields of a trial, in their order."""

# Column -> the type of its values (int, float, str, bool, Operation, Status, Stage or Source), with None where a cell
# may be empty.
_ALTERNATIVES = {"format": (int,)} | {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Trial).items()}
TYPES: dict[str, type] = {name: kinds[0] for name, kinds in _ALTERNATIVES.items()}
REQUIRED = {name for name, kinds in _ALTERNATIVES.items() if type(None) not in kinds}

# Six characters an escape at worst, and Python's csv reads cells of at most 131072.
TEXT_MAX = 20_000

_Word = TypeVar("_Word", Status, Stage, Source)
ENERGIES = {"energy_j", "energy_j_low", "energy_j_high", "baseline_energy_j"}
TIMES = {"time_us", "time_us_low", "time_us_high", "baseline_us", "vendor_best_us"}

# Control characters, and the halves of surrogate pairs, which UTF-8 cannot carry.
# What a spreadsheet would take for a formula's beginning is escaped with them.
_UNPRINTABLE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\A[=+@-]")
_UNWRITTEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPE = re.compile(r"\\(\\|n|u[0-9a-f]{4})")
# What Python's int and float take and no writer of CSV means: underscores, spaces, other scripts' digits, nan.
is_integer = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII).fullmatch
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?", re.ASCII).fullmatch

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch
_ORIGIN = re.compile(r"[0-9a-f]{12}(?:\+[0-9a-f]{12}){0,299}", re.ASCII).fullmatch
_PLAIN = re.compile(PLAIN).match


def _line(text: str) -> object:
    return len(text) <= LINE_MAX and _PLAIN(text)


_PATTERNS: dict[str, tuple[Callable[[str], object], str]] = {
    "object_sha256": (_SHA256, "64 hex digits"),
    "template_sha256": (_SHA256, "64 hex digits"),
    "origin": (_ORIGIN, "one to 300 ids of 12 hex digits, with + between them"),
    # Names, which reports and notes print within a line. Only a detail may have several.
    **dict.fromkeys(
        (
            *("cache", "baseline", "vendor_best", "throttled", "template", "library", "compiler", "target", "device"),
            *("strategy", "started_at"),
        ),
        (_line, f"text of 1 to {LINE_MAX} printable characters on one line"),
    ),
}
_ABOVE_0 = TIMES | ENERGIES
_FROM_0 = {name for name, kind in TYPES.items() if kind in (int, float)} - _ABOVE_0 - {"trial", "m", "n", "k", "seed"}
_LIMITED = _ABOVE_0 | _FROM_0


class CellError(ValueError):
    """A cell of a row breaks a rule. `column` is None where it is the row as a whole."""

    def __init__(self, column: str | None, rule: str) -> None:
        super().__init__(f"column {column}: {rule}" if column else rule)


class NewerCellError(CellError):
    """A cell says what this version of hktune does not know, and a later one may."""


def _bounded(text: str) -> str:
    if len(text) > TEXT_MAX:
        raise ValueError(f"has {len(text)} characters, at most {TEXT_MAX} are kept")
    return text


def _text_cell(text: str) -> str:
    return _UNPRINTABLE.sub(_escaped, _bounded(text))


def _float_cell(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite, leave it absent")
    return repr(float(value))


def _int_cell(value: int) -> str:
    return str(_in_64_bits(int(value)))


def _in_64_bits(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} does not fit 64 bits, as readers hold it")
    return value


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return {"\\": "\\\\", "\n": "\\n"}.get(character, f"\\u{ord(character):04x}")


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1)
    return {"\\": "\\", "n": "\n"}.get(code) or chr(int(code[1:], 16))


def _text_value(cell: str) -> str:
    raw = _UNWRITTEN.search(cell)
    if raw:
        raise ValueError(f"{shown(cell)} holds the character U+{ord(raw.group()):04X}, which is written as an escape")
    return _bounded(_ESCAPE.sub(_unescaped, cell) if "\\" in cell else cell)


def _float_value(cell: str) -> float:
    if _NUMBER(cell) and math.isfinite(value := float(cell)):
        return value
    raise ValueError(f"{shown(cell)} is not a finite number")


def _int_value(cell: str) -> int:
    if not is_integer(cell):
        raise ValueError(f"{shown(cell)} is not an integer of 64 bits in plain digits")
    return int(cell) if len(cell) < 19 else _in_64_bits(int(cell))


def _word_value(kind: type[_Word], cell: str) -> _Word:
    try:
        return kind(cell)
    except ValueError:
        raise ValueError(f"{shown(cell)} is none of {', '.join(kind)}") from None


def _bool_cell(value: bool) -> str:
    return "true" if value else "false"


def _bool_value(cell: str) -> bool:
    if cell not in ("true", "false"):
        raise ValueError(f"{shown(cell)} is neither true nor false")
    return cell == "true"


def _operation_value(cell: str) -> Operation:
    try:
        return problem_operation(cell)
    except InputError as unknown:
        raise NewerCellError("operation", str(unknown)) from None


_ToCell = Callable[[Any], str]  # of a column's own type
_ToValue = Callable[[str], object]
_CELL_OF: dict[type, _ToCell] = {
    int: _int_cell,
    float: _float_cell,
    str: _text_cell,
    bool: _bool_cell,
}
_VALUE_OF: dict[type, _ToValue] = {
    int: _int_value,
    float: _float_value,
    str: _text_value,
    bool: _bool_value,
    Operation: _operation_value,
    Status: functools.partial(_word_value, Status),
    Stage: functools.partial(_word_value, Stage),
    Source: functools.partial(_word_value, Source),
}


def cell_of(name: str) -> _ToCell:
    """How a value of a column becomes a cell."""
    plain: _ToCell = _bounded if name == "config" else _CELL_OF.get(TYPES[name], str)
    is_limited = name in _PATTERNS or name in _LIMITED

    def cell(value: object) -> str:
        if value is None or value == "":
            return _absent(name)
        try:
            return plain(_fitting(name, value) if is_limited else value)
        except ValueError as broken:
            raise CellError(name, str(broken)) from None

    return cell


def value_of(name: str) -> _ToValue:
    """How a cell of a column becomes a value."""
    plain = _bounded if name == "config" else _VALUE_OF[TYPES[name]]
    is_limited = name in _PATTERNS or name in _LIMITED

    def value(cell: str) -> object:
        if not cell:
            return _absent(name) or None
        try:
            return _fitting(name, plain(cell)) if is_limited else plain(cell)
        except CellError:
            raise
        except ValueError as broken:
            raise CellError(name, str(broken)) from None

    return value


def _absent(name: str) -> str:
    if name in REQUIRED:
        raise CellError(name, "is empty")
    return ""


def _fitting(name: str, value: Any) -> object:
    if name in _LIMITED:
        if value < 0 or (value == 0 and name in _ABOVE_0):
            raise ValueError(f"{name} must be {'above 0' if name in _ABOVE_0 else '0 or more'}, got {value}")
        return value
    fits, what = _PATTERNS[name]
    if not (isinstance(value, str) and fits(value)):
        raise ValueError(f"{shown(value)} is not {what}")
    return value
