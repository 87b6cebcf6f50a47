"""Kernel Tuner's cache files, of all its versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from hktune.core.escaped import shown
from hktune.core.outcome import Status
from hktune.store.recordings.document import typed
from hktune.store.recordings.objective import NO_TIME, TIME, cost
from hktune.store.recordings.recording import BrokenRecording, Result

_MILLISECOND_US = 1e3
_ERROR = "__error__"
_STATUS_OF = {
    "CompilationFailedConfig": Status.COMPILE_ERROR,
    "RuntimeFailedConfig": Status.CRASHED,
    "InvalidConfig": Status.OVER_BUDGET,  # it was asked for, and the device could not take it
    "ErrorConfig": Status.CRASHED,
}
Entry = dict[str, Any]


class CacheFile(msgspec.Struct, frozen=True):
    """What is read of one. Old files have no objective, and some have no list of parameters."""

    cache: dict[str, Entry]
    tune_params_keys: list[str] = []
    tune_params: dict[str, Any] = {}
    objective: str | list[str] | None = None


def cached_results(document: dict[str, object]) -> Iterator[Result]:
    """What is in the cache file `document`. Raises BrokenRecording for what is no such file."""
    file = typed(document, CacheFile, "cache file of Kernel Tuner")
    if not file.cache:
        raise BrokenRecording("has no config in its cache")
    names = file.tune_params_keys or list(file.tune_params) or _named_by_keys(file.cache)
    failures = {key: _failure(entry, names) for key, entry in file.cache.items()}
    objective = _objective(file, failures)
    for key, entry in file.cache.items():
        values = _values(key, entry, names, file.tune_params)
        yield _result(key, entry, values, objective, failures[key])


def _result(key: str, entry: Entry, values: Entry, objective: str, failure: Status | None) -> Result:
    value = entry.get(objective)
    if failure is None and isinstance(value, str):
        failure = Status.CRASHED  # an error of a name that is not known here
    if failure is None and objective == TIME and value == NO_TIME:
        failure = Status.CRASHED
    if failure is not None:
        return Result(values, failure)
    if objective not in entry:
        raise BrokenRecording(f"config {shown(key)} has neither {shown(objective)} nor an error")
    return Result(values, Status.OK, cost(objective, value, _MILLISECOND_US, key))


def _failure(entry: Entry, names: list[str]) -> Status | None:
    """How the config of an entry failed: it has an error by name somewhere, in place of the objective as a rule."""
    if isinstance(error := entry.get(_ERROR), str):
        return _STATUS_OF.get(error, Status.CRASHED)
    words = (value for name, value in entry.items() if isinstance(value, str) and name not in names)
    return next((_STATUS_OF[word] for word in words if word in _STATUS_OF), None)


def _objective(file: CacheFile, failures: Mapping[str, Status | None]) -> str:
    """The one that the file names, the first of several; the time where no config has that."""
    named = file.objective if isinstance(file.objective, str) else next(iter(file.objective or []), TIME)
    timed = (entry for key, entry in file.cache.items() if failures[key] is None)
    return named if any(named in entry for entry in timed) else TIME


def _named_by_keys(cache: Mapping[str, Entry]) -> list[str]:
    """The parameters where a file has no list of them: an entry begins with them, and its key is their values."""
    key, entry = next(iter(cache.items()))
    count = key.count(",") + 1
    names = list(entry)[:count]
    if ",".join(str(entry[name]) for name in names) != key:
        raise BrokenRecording("names no parameters: tune_params_keys is missing")
    return names


def _values(key: str, entry: Entry, names: list[str], tune_params: Mapping[str, Any]) -> Entry:
    """The parameters of an entry. What it lacks is in its key."""
    if all(name in entry for name in names):
        return {name: entry[name] for name in names}
    parts = key.split(",")
    if len(parts) != len(names):
        absent = next(name for name in names if name not in entry)
        raise BrokenRecording(f"config {shown(key)} has no {shown(absent)}")
    written = dict(zip(names, parts, strict=True))
    return {name: entry[name] if name in entry else _meant(written[name], tune_params.get(name)) for name in names}


def _meant(text: str, values: object) -> object:
    """What `text`, a part of a key, stands for: one of `values`, else a number, else a word."""
    for value in values if isinstance(values, list) else []:
        if str(value) == text:
            found: object = value
            return found
    try:
        number: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return number if isinstance(number, int | float) else text
