"""JSON from outside, read straight into typed values, so that nothing is built that its type does not ask for."""

from __future__ import annotations

import json
from typing import TypeAlias, TypeVar

import msgspec

from hktune.core.escaped import escaped

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""What JSON says, and YAML as it is read here."""

_T = TypeVar("_T")
_BOM = b"\xef\xbb\xbf"
_SAID_MAX = 200  # characters of what is wrong: a file's own words may be part of it


def decoded(data: bytes, kind: type[_T]) -> _T:
    """The JSON text `data` (UTF-8, a byte order mark left out) as a `kind` that msgspec knows. Raises ValueError, one
    line, where it is no JSON, breaks the type, is nested too deep, or holds a key twice in one object."""
    value = typed(data, kind)
    check_keys(data)
    return value


def typed(data: bytes, kind: type[_T]) -> _T:
    """`decoded`, but of equal keys the last one counts."""
    try:
        return msgspec.json.decode(data.removeprefix(_BOM), type=kind)
    except (ValueError, RecursionError) as wrong:  # a ValidationError is one, and what half a surrogate raises
        raise _one_line(wrong) from None


def check_keys(data: bytes) -> None:
    """Raises ValueError where an object of `data` holds a key twice. What a type has let through is of a known size."""
    try:
        json.loads(data.removeprefix(_BOM), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as wrong:
        raise _one_line(wrong) from None


def _one_line(wrong: Exception) -> ValueError:
    if isinstance(wrong, RecursionError):
        return ValueError("nested too deep")
    return ValueError(escaped(" ".join(str(wrong).split()))[:_SAID_MAX])


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key is twice in one object")
