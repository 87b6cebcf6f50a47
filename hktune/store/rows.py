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
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.escaped import shown
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.store.cells import (
    ENERGIES,
    FIELDS,
    REQUIRED,
    TIMES,
    TYPES,
    CellError,
    NewerCellError,
    cell_of,
    is_integer,
    value_of,
)

FORMAT = 5
COLUMNS = ("format", *FIELDS)
HEADER = (",".join(COLUMNS) + "\n").encode()
NUMBER_AT = COLUMNS.index("trial")

TRIAL_MAX = 10**15  # of a row's number: those that follow still fit 64 bits


_FORMAT_CELL = str(FORMAT)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# Equal cells are decoded once and become one object; of a column whose cells differ, no more than these are remembered.
_REMEMBERED_MAX = 50_000
_ALIKE = set(FIELDS) - {"trial", "tflops", *TIMES, *ENERGIES}

# Where runs of columns begin, and those whose cells come again together, in every row of a problem, a config, a kernel:
# they are looked up at once.
_RUNS = ("trial", "m", "config_id", "detail", "vendor_best", "relative_error", "started_at")
_RUNS_ALIKE = {"m", "config_id", "vendor_best", "relative_error"}
_RUNS_REMEMBERED_MAX = 10_000  # of each

_values_of: Callable[[Trial], tuple[object, ...]] = attrgetter(*FIELDS)


class Encoder:
    """Trials become rows; of equal values the cell is made once."""

    def __init__(self) -> None:
        self._cells = [cell_of(name) if TYPES[name] is float else _remembering(name, cell_of(name)) for name in FIELDS]

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
    kind = NewerCellError if is_integer(cell) and int(cell) > FORMAT else CellError
    return kind("format", f"{shown(cell)} is another than {own}, which the columns are of" if cell else "is empty")


class _Written:
    """What a csv.writer writes to when its line is wanted as text: `writerow` returns what this does."""

    def write(self, text: str) -> str:
        return text


def _check_row(trial: Trial) -> None:
    """A row has a number, a problem a size, a time its word and its place in its interval, and an ok trial has both and
    may run again."""
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
    if time_us is None:
        return
    if trial.source is None:
        raise CellError("time_us", f"time_us={time_us} needs a source, measured or modelled")
    low_us, high_us = trial.time_us_low, trial.time_us_high
    if (low_us is not None and low_us > time_us) or (high_us is not None and high_us < time_us):
        raise CellError("time_us", f"time_us={time_us} is not within its interval, {low_us} to {high_us}")


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


def _values_of_run(names: Sequence[str]) -> Callable[[tuple[str, ...]], Sequence[object]]:
    """How the cells of neighbouring columns become values."""
    each = [_remembering(name, value_of(name)) for name in names]
    if len(each) == 1:
        return lambda cells: (each[0](cells[0]),)

    def values(cells: tuple[str, ...]) -> Sequence[object]:
        return [value(cell) for value, cell in zip(each, cells, strict=True)]

    def optional_values(cells: tuple[str, ...]) -> Sequence[object]:
        return [value(cell) if cell else None for value, cell in zip(each, cells, strict=True)]

    if names[0] in _RUNS_ALIKE:
        return _Remembered(values, _RUNS_REMEMBERED_MAX).__getitem__
    return values if REQUIRED & set(names) else optional_values


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
