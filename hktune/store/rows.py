"""How a trial is one line of trials.csv.

The columns are `format`, whose every cell is the version of this format, and the fields of `trial.Trial`, in order. So
a row says itself what its cells mean, wherever it was merged or appended to; the format comes first, where a reader
finds it whatever columns a later one has. Absent is an empty cell. A text cell writes backslash and control characters
as escapes (a newline is backslash n, others backslash u and four hex digits). So every row is exactly one physical
line, and a torn line can be recognised. `config` is JSON already and unchanged. Floats are written as `repr` does,
which reads back exactly.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_type_hints

from hktune.core.bounded_text import PLAIN
from hktune.core.bounded_text import TEXT_MAX as LINE_MAX
from hktune.core.config import Config
from hktune.core.errors import InputError, StoreError
from hktune.core.escaped import shown
from hktune.core.operation import Operation, problem_operation
from hktune.core.outcome import Source, Stage, Status
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm

FORMAT = 5
FIELDS = tuple(field.name for field in fields(Trial))
COLUMNS = ("format", *FIELDS)
HEADER = (",".join(COLUMNS) + "\n").encode()
NUMBER_AT = COLUMNS.index("trial")

# Column -> the type of its values (int, float, str, bool, Operation, Status, Stage or Source), with None where a cell
# may be empty.
_ALTERNATIVES = {"format": (int,)} | {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Trial).items()}
TYPES: dict[str, type] = {name: kinds[0] for name, kinds in _ALTERNATIVES.items()}
_REQUIRED = {name for name, kinds in _ALTERNATIVES.items() if type(None) not in kinds}

# Six characters an escape at worst, and Python's csv reads cells of at most 131072.
TEXT_MAX = 20_000
TRIAL_MAX = 10**15  # of a row's number: those that follow still fit 64 bits

_FORMAT_CELL = str(FORMAT)
_Word = TypeVar("_Word", Status, Stage, Source)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# Equal cells are decoded once and become one object; of a column whose cells differ, no more than these are remembered.
_REMEMBERED_MAX = 50_000
_ENERGIES = {"energy_j", "energy_j_low", "energy_j_high", "baseline_energy_j"}
_TIMES = {"time_us", "time_us_low", "time_us_high", "baseline_us", "vendor_best_us"}
_ALIKE = set(FIELDS) - {"trial", "tflops", *_TIMES, *_ENERGIES}

# Where runs of columns begin, and those whose cells come again together, in every row of a problem, a config, a kernel:
# they are looked up at once.
_RUNS = ("trial", "m", "config_id", "detail", "vendor_best", "relative_error", "started_at")
_RUNS_ALIKE = {"m", "config_id", "vendor_best", "relative_error"}
_RUNS_REMEMBERED_MAX = 10_000  # of each

# Control characters, and the halves of surrogate pairs, which UTF-8 cannot carry.
# What a spreadsheet would take for a formula's beginning is escaped with them.
_UNPRINTABLE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\A[=+@-]")
_UNWRITTEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPE = re.compile(r"\\(\\|n|u[0-9a-f]{4})")
# What Python's int and float take and no writer of CSV means: underscores, spaces, other scripts' digits, nan.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII).fullmatch
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
_ABOVE_0 = _TIMES | _ENERGIES
_FROM_0 = {name for name, kind in TYPES.items() if kind in (int, float)} - _ABOVE_0 - {"trial", "m", "n", "k", "seed"}
_LIMITED = _ABOVE_0 | _FROM_0
_values_of: Callable[[Trial], tuple[object, ...]] = attrgetter(*FIELDS)


class CellError(ValueError):
    """A cell of a row breaks a rule. `column` is None where it is the row as a whole."""

    def __init__(self, column: str | None, rule: str) -> None:
        super().__init__(f"column {column}: {rule}" if column else rule)


class NewerCellError(CellError):
    """A cell says what this version of hktune does not know, and a later one may."""


class Encoder:
    """Trials become rows; of equal values the cell is made once."""

    def __init__(self) -> None:
        self._cells = [
            _cell_of(name) if TYPES[name] is float else _remembering(name, _cell_of(name)) for name in FIELDS
        ]

    def line(self, trial: Trial) -> bytes:
        """One line, newline included. Raises StoreError for a trial that breaks a rule."""
        try:
            cells = [cell(value) for cell, value in zip(self._cells, _values_of(trial), strict=True)]
            _check_row(trial)
            _check_config(trial.config, trial.config_id)
            _check_algorithm(trial)
        except CellError as broken:
            raise StoreError(f"trial of {trial.problem} config {trial.config_id} not stored: {broken}") from None
        line: str = csv.writer(_Written(), lineterminator="\n").writerow([FORMAT, *cells])
        return line.encode()


class Decoder:
    """Rows become trials, and equal cells one object: a million rows, 0.9 GB of text, are 0.5 GB."""

    def __init__(self) -> None:
        begins = [*map(COLUMNS.index, _RUNS), len(COLUMNS)]
        self._runs = [(begin, end, _values_of_run(COLUMNS[begin:end])) for begin, end in pairwise(begins)]

    def trial(self, cells: Sequence[str]) -> Trial:
        """The trial of one row. Raises CellError."""
        if len(cells) != len(COLUMNS):
            raise CellError(None, f"{len(cells)} cells, not {len(COLUMNS)}")
        if cells[0] != _FORMAT_CELL:
            raise of_another_format(cells[0], FORMAT)
        row = tuple(cells)
        values: list[Any] = []
        for begin, end, values_of in self._runs:
            values += values_of(row[begin:end])
        trial = Trial(*values)
        _check_row(trial)
        _check_config(trial.config, trial.config_id)
        _check_algorithm(trial)
        return trial


def of_another_format(cell: str, own: int) -> CellError:
    """What is wrong with the `format` cell of a row under the columns of format `own`. Only a number above today's is a
    later version's."""
    kind = NewerCellError if _INTEGER(cell) and int(cell) > FORMAT else CellError
    return kind("format", f"{shown(cell)} is another than {own}, which the columns are of" if cell else "is empty")


class _Written:
    """What a csv.writer writes to when its line is wanted as text: `writerow` returns what this does."""

    def write(self, text: str) -> str:
        return text


def _check_row(trial: Trial) -> None:
    """A row has a number, a problem a size, a time never loses its word, and an ok trial has both and may run again."""
    time_us = trial.time_us
    if not 0 <= trial.trial <= TRIAL_MAX:
        raise CellError("trial", f"{trial.trial} numbers no row: rows count from 0 to {TRIAL_MAX}")
    if trial.m < 1 or trial.n < 1 or trial.k < 1:
        raise CellError("m", f"{trial.m} x {trial.n} x {trial.k} is no size: m, n and k are at least 1")
    if trial.status is Status.OK and (time_us is None or trial.source is None):
        raise CellError("status", "status ok needs both source and time_us")
    if trial.left_early and time_us is None:
        raise CellError("left_early", "a trial without a time_us was not left early")
    if trial.status is Status.OK and trial.quarantined:
        raise CellError("quarantined", "a trial with status ok is not quarantined")
    if time_us is not None and trial.source is None:
        raise CellError("time_us", f"time_us={time_us} needs a source, measured or modelled")


@functools.lru_cache(maxsize=_REMEMBERED_MAX)
def _check_config(config: str, config_id: str) -> None:
    """A config is one object of plain values in its one spelling, and its id is the hash of that."""
    try:
        read = Config.from_json(config)
        plain = all(isinstance(value, int | str) for value in read.values())
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise CellError("config", f"{shown(config)} is not a config as JSON") from None
    if not plain or read.json != config:
        raise CellError("config", f"{shown(config)} is not sorted compact JSON of integers, words and true or false")
    if read.id != config_id:
        raise CellError("config_id", f"{shown(config_id)} is not the id of the row's config, which is {read.id}")


def _check_algorithm(trial: Trial) -> None:
    """A row with a library has the config of one of its algorithms, and nothing of a kernel."""
    if trial.library is None:
        return
    if trial.template or trial.template_sha256 or trial.object_sha256:
        raise CellError("library", f"{shown(trial.library)} has no template and no code object")
    named = _library_of(trial.config)
    if named != trial.library:
        raise CellError("library", f"saved={shown(trial.library)}, and its config is of {shown(named)}")


@functools.lru_cache(maxsize=_REMEMBERED_MAX)
def _library_of(config: str) -> str:
    """The library whose algorithm a config names. Raises CellError."""
    try:
        return VendorAlgorithm.of_config(Config.from_json(config)).library
    except ValueError as broken:
        raise CellError("config", str(broken)) from None


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
    if not _INTEGER(cell):
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


def _cell_of(name: str) -> _ToCell:
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


def _value_of(name: str) -> _ToValue:
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
    if name in _REQUIRED:
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


def _values_of_run(names: Sequence[str]) -> Callable[[tuple[str, ...]], Sequence[object]]:
    """How the cells of neighbouring columns become values."""
    each = [_remembering(name, _value_of(name)) for name in names]
    if len(each) == 1:
        return lambda cells: (each[0](cells[0]),)

    def values(cells: tuple[str, ...]) -> Sequence[object]:
        return [value(cell) for value, cell in zip(each, cells, strict=True)]

    def optional_values(cells: tuple[str, ...]) -> Sequence[object]:
        return [value(cell) if cell else None for value, cell in zip(each, cells, strict=True)]

    if names[0] in _RUNS_ALIKE:
        return _Remembered(values, _RUNS_REMEMBERED_MAX).__getitem__
    return values if _REQUIRED & set(names) else optional_values


class _Remembered(dict[_Key, _Value]):
    """What a function gives for each argument, worked out once; no more than `most` are kept."""

    def __init__(self, function: Callable[[_Key], _Value], most: int = _REMEMBERED_MAX) -> None:
        self._function = function
        self._most = most

    def __missing__(self, key: _Key) -> _Value:
        value = self._function(key)
        if len(self) < self._most:
            self[key] = value
        return value


def _remembering(name: str, function: Callable[[_Key], _Value]) -> Callable[[_Key], _Value]:
    return _Remembered(function).__getitem__ if name in _ALIKE else function
