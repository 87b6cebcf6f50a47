"""JSON from outside, read straight into typed values, so that nothing is built that its type does not ask for."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from hktune.escaped import escaped

_T = TypeVar("_T")
_BOM = b"\xef\xbb\xbf"
_SAID_MAX = 200  # characters of what is wrong: a file's own words may be part of it


def decoded(data: bytes, kind: type[_T]) -> _T:
    """The JSON text `data` (UTF-8, a byte order mark left out) as a `kind` that msgspec knows. Raises ValueError, one
    line, where it is no JSON, breaks the type, is nested too deep, or holds a key twice in one object."""
    data = data.removeprefix(_BOM)
    try:
        value = msgspec.json.decode(data, type=kind)
        # msgspec keeps the last of equal keys. What the type has let through is of a known size.
        json.loads(data, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as wrong:  # a ValidationError is one, and what half a surrogate raises
        raise ValueError(escaped(" ".join(str(wrong).split()))[:_SAID_MAX]) from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in one object")
