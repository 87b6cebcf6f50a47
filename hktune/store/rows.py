"""How a trial is one line of trials.csv.

The columns are the fields of `model.Trial`, in order. Absent is an empty cell. A text cell writes backslash and control
characters as escapes (a newline is backslash n, others backslash u and four hex digits), so that every row is exactly
one physical line and a torn line can be told from a whole one; `config` is JSON already and stands as it is. Floats are
written as `repr` does, which reads back exactly.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from hktune.errors import StoreError
from hktune.model import Source, Status, Trial

COLUMNS = tuple(field.name for field in fields(Trial))
HEADER = (",".join(COLUMNS) + "\n").encode()

# Column -> the type of its values (int, float, str, Status or Source), with None where a cell may be empty.
_ALTERNATIVES = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Trial).items()}
TYPES: dict[str, type] = {name: kinds[0] for name, kinds in _ALTERNATIVES.items()}
_REQUIRED = {name for name, kinds in _ALTERNATIVES.items() if type(None) not in kinds}

# Six characters an escape at worst, and Python's csv reads cells of at most 131072.
TEXT_MAX = 20_000

# Control characters, and the halves of surrogate pairs, which UTF-8 cannot carry.
_UNPRINTABLE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(\\|n|u[0-9a-f]{4})")


def encode(trial: Trial) -> bytes:
    """One line, newline included. Raises StoreError for a trial that breaks a rule."""
    broken = _broken_rule(trial)
    if broken:
        raise StoreError(f"trial of {trial.problem} config {trial.config_id} not stored: {broken}")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_cell(name, getattr(trial, name)) for name in COLUMNS])
    return out.getvalue().encode()


def decode(line: bytes) -> Trial:
    """The trial of one line. Raises ValueError saying what is wrong with it."""
    try:
        cells = next(csv.reader([line.decode()], strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} cells, not {len(COLUMNS)}")
    trial = Trial(**{name: _value(name, cell) for name, cell in zip(COLUMNS, cells, strict=True)})
    broken = _broken_rule(trial)
    if broken:
        raise ValueError(broken)
    return trial


def _broken_rule(trial: Trial) -> str | None:
    """A time never loses its word, an ok trial has both, and numbers are finite."""
    if trial.status is Status.OK and (trial.source is None or trial.time_us is None):
        return "status ok needs both source and time_us"
    if trial.time_us is not None and trial.source is None:
        return f"time_us={trial.time_us} needs a source, measured or modelled"
    if trial.time_us is not None and not trial.time_us > 0:
        return f"time_us must be above 0, got {trial.time_us}"
    for name in COLUMNS:
        value = getattr(trial, name)
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name}={value} is not finite, leave it absent"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{name}={value} does not fit 64 bits, as readers hold it"
        if isinstance(value, str) and len(value) > TEXT_MAX:
            return f"{name} has {len(value)} characters, at most {TEXT_MAX} are kept"
        if name in _REQUIRED and value == "":
            return f"{name} is empty"
    return None if trial.config.isprintable() else "config must be JSON on one line"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if TYPES[name] is str and name != "config":
        return _UNPRINTABLE.sub(_escaped, value)
    return repr(float(value)) if TYPES[name] is float else str(value)


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return {"\\": "\\\\", "\n": "\\n"}.get(character, f"\\u{ord(character):04x}")


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1)
    return {"\\": "\\", "n": "\n"}.get(code) or chr(int(code[1:], 16))


def _value(name: str, cell: str) -> Any:
    if cell == "":
        if name in _REQUIRED:
            raise ValueError(f"{name} is empty")
        return None
    kind: Callable[[str], Any] = TYPES[name]
    if kind is str:
        return cell if name == "config" else _ESCAPE.sub(_unescaped, cell)
    try:
        return kind(cell)
    except ValueError:
        words = f" (one of {', '.join(kind)})" if kind in (Status, Source) else ""
        raise ValueError(f"{name} is {cell[:40]!r}, not {kind.__name__}{words}") from None
