"""YAML from outside, read into typed structs: a part of the language in which a file says no more than it holds.

One document of mappings, lists and scalars. No anchors, aliases, tags, directives or merge keys; keys are text, each
once. A plain scalar is what YAML 1.2 makes of it in JSON's spelling: true, false and null (True and TRUE too, and ~),
decimal integers and floats as JSON writes them. All else is text: 1_6, 0x10, 010, 1:30, yes, 2026-11-29. Time is linear
in the file's size, and what a file may hold is bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from hktune.core.escaped import shown
from hktune.core.json_file import Json
from hktune.core.outside_file import FileKind

DEPTH_MAX = 32
NODES_MAX = 200_000
DIGITS_MAX = 40  # of a number: 2**64 has 20, a float's shortest spelling at most 24

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_DIRECTIVE = re.compile("(?:\\A|[\r\n\x85\u2028\u2029])\ufeff*%")  # at the start of what YAML takes for a line
# libyaml's scanner is some ten times as fast.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Malformed(ValueError):
    """What is wrong with a text, and the number of its line, counted from 1."""

    def __init__(self, rule: str, line: int) -> None:
        super().__init__(rule)
        self.line = line


def read_yaml(path: Path, kind: FileKind, struct: type[_Struct]) -> _Struct:
    """The file at `path` as a `struct`. Raises the kind's error if it cannot be read, is not YAML as above, or breaks
    the struct's schema."""
    return struct_of(kind.read(path), path, kind, struct)


def struct_of(data: bytes, path: Path, kind: FileKind, struct: type[_Struct]) -> _Struct:
    """As `read_yaml`, of the bytes of the file at `path`."""
    try:
        return msgspec.convert(value_of(data, path, kind), struct)
    except ValueError as wrong:  # a ValidationError is one
        raise kind.error(f"{path}: {str(wrong)[:200]}: fix that key") from None


def value_of(data: bytes, path: Path, kind: FileKind) -> Json:
    """What the bytes of the file at `path` say. Raises the kind's error."""
    try:
        return parsed(kind.text(data, path))
    except Malformed as wrong:
        raise kind.error(f"{path}: line {wrong.line}: {wrong}: fix that line") from None


def parsed(text: str) -> Json:
    """What `text` says. Raises Malformed."""
    directive = _DIRECTIVE.search(text)  # a parser compares each with all before it
    if directive:
        line = text.count("\n", 0, directive.start()) + 1 + (directive[0][0] == "\n")
        raise Malformed("begins with %, and directives are not supported, leave it out", line)
    try:
        return _Document(text).value()
    except yaml.MarkedYAMLError as wrong:
        line = wrong.problem_mark.line + 1 if wrong.problem_mark else 1
        raise Malformed(f"not YAML ({wrong.problem})", line) from None
    except yaml.reader.ReaderError as wrong:
        line = text.count("\n", 0, wrong.position) + 1
        raise Malformed(f"not YAML ({wrong.reason})", line) from None


class _Document:
    """The value of a text, built while it is scanned, so that what is out of bounds ends the scan."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, _LOADER)
        self._nodes = 0

    def value(self) -> Json:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._node(self._next_node(), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise _malformed(after, "a second document begins, and a file holds one")
        return value

    def _next_node(self) -> yaml.NodeEvent:
        event = next(self._events)
        assert isinstance(event, yaml.NodeEvent), "a scanner lets nothing else be here"
        return event

    def _node(self, event: yaml.NodeEvent, depth: int) -> Json:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _malformed(event, f"over {NODES_MAX} values in one file")
        if depth > DEPTH_MAX:
            raise _malformed(event, f"nested deeper than {DEPTH_MAX}")
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise _malformed(event, "anchors and aliases are not supported, write the values out")
        assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
        if event.tag:
            raise _malformed(event, f"tags such as {shown(event.tag)} are not supported, leave it out")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        return self._mapping(depth)

    def _mapping(self, depth: int) -> dict[str, Json]:
        values: dict[str, Json] = {}
        for event in self._until(yaml.MappingEndEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                raise _malformed(event, "a key must be one word")
            self._node(event, depth + 1)
            assert isinstance(event, yaml.ScalarEvent)
            if event.value == "<<":
                raise _malformed(event, "merge keys are not supported, write the values out")
            if event.value in values:
                raise _malformed(event, f"key {shown(event.value)} is repeated")
            values[event.value] = self._node(self._next_node(), depth + 1)
        return values

    def _until(self, end: type[yaml.CollectionEndEvent]) -> Iterator[yaml.NodeEvent]:
        for event in self._events:
            if isinstance(event, end):
                return
            assert isinstance(event, yaml.NodeEvent)
            yield event


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    number = _FLOAT.match(text)
    if number is None:
        return text
    if len(text) > DIGITS_MAX:
        raise _malformed(event, f"the number {shown(text)} has over {DIGITS_MAX} digits")
    if _INTEGER.match(text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise _malformed(event, f"the number {shown(text)} is beyond a float")
    return value


def _malformed(event: yaml.Event, rule: str) -> Malformed:
    return Malformed(rule, event.start_mark.line + 1 if event.start_mark else 1)
