"""JSON of other tuners: plain, in gzip or in a zip; without its last brackets; with Python's words for no number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import msgspec

from hktune.core.errors import StoreError
from hktune.core.escaped import escaped
from hktune.core.outside_file import FileKind
from hktune.core.packed_file import unpacked
from hktune.store.recordings.recording import BrokenRecording

BYTES_MAX = 256 << 20  # of JSON; the largest known, 11,130 configs with 32 samples each, has 18 MiB
RECORDING = FileKind(
    "a recording",
    BYTES_MAX,
    StoreError,
    "pass a results directory, its trials.csv, or a file of Kernel Tuner (cache), KTT, or T4 (results)",
)
_Kind = TypeVar("_Kind")
_SAID_MAX = 200


def read_document(path: Path) -> dict[str, object]:
    """The JSON object in the file at `path`. Raises StoreError for a file that cannot be read, and BrokenRecording for
    one that holds none, is nested too deep, or has a key twice in one object."""
    text = RECORDING.text(_unpacked(RECORDING.read(path)), path)
    if not text.strip():
        raise BrokenRecording("is empty")
    document = _parsed(text)
    if not isinstance(document, dict):
        raise BrokenRecording("is JSON, but not of an object")
    return document


def typed(document: dict[str, object], kind: type[_Kind], what: str) -> _Kind:
    """`document` as a `kind`. Raises BrokenRecording, which says that it is no such `what`, where it breaks the type or
    holds half of a surrogate pair."""
    try:
        return msgspec.convert(document, kind)
    except ValueError as wrong:
        raise BrokenRecording(f"is no {what} ({_on_a_line(wrong)})") from None


def _unpacked(data: bytes) -> bytes:
    try:
        return unpacked(data, BYTES_MAX)
    except ValueError as wrong:
        raise BrokenRecording(str(wrong)) from None


def _parsed(text: str) -> object:
    """`text` as JSON. Kernel Tuner appends to its file line by line and closes it at its end: where it was ended
    before, a comma and what closes are put right, and a last line that was torn is left out."""
    try:
        return _loaded(text)
    except json.JSONDecodeError as wrong:
        if '"cache"' not in text:
            raise BrokenRecording(f"is no JSON ({_on_a_line(wrong)})") from None
        closed = _closed(text) or _closed(text.rpartition("\n")[0])
        if closed is None:
            raise BrokenRecording(f"is no JSON, closed or not ({_on_a_line(wrong)})") from None
        return closed


def _closed(text: str) -> object:
    """The open cache file `text`; None where it is no such file."""
    try:
        return _loaded(text.rstrip().removesuffix(",") + "}}")
    except json.JSONDecodeError:
        return None


def _loaded(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise BrokenRecording("is nested too deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError as wrong:  # a number of thousands of digits
        raise BrokenRecording(_on_a_line(wrong)) from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise BrokenRecording(f"has the key {escaped(twice)[:_SAID_MAX]!r} twice in one object")
    return found


def _on_a_line(wrong: Exception) -> str:
    return escaped(" ".join(str(wrong).split()))[:_SAID_MAX]
