"""The parts of a 64-bit little-endian ELF file that code objects are read by: a total function of any bytes.

Layouts follow the System V ABI (gABI 4.1, chapters 4 and 5). Nothing is trusted: every offset is checked, every count
is bounded, names end within NAME_BYTES_MAX, sections must not overlap, and what is wrong is one TableError line. Time
and memory are linear in the file's size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from hktune.core.errors import TableError

PT_LOAD, PT_NOTE = 1, 4
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
STT_OBJECT, STT_FUNC = 1, 2

# What no kernel comes near: a Triton kernel has 20 sections, 9 segments and a handful of symbols.
SECTIONS_MAX = 16384
SEGMENTS_MAX = 64
SYMBOLS_MAX = 16384
NAME_BYTES_MAX = 4096
NOTES_MAX = 1024

_ABI_VERSION = 8  # where in the identification
_IDENTITY = b"\x7fELF\x02\x01\x01"  # 64-bit, little-endian, version 1
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_NOTE = struct.Struct("<III")
_WRITABLE = 2  # PF_W of a program header


class Segment(NamedTuple):
    """One program header; `data` is what the file holds of it."""

    kind: int
    address: int
    memory_bytes: int
    data: memoryview
    writable: bool = False


class Section(NamedTuple):
    """One section header. `data` is empty where the file holds none of its `size_bytes`."""

    name: str
    kind: int
    link: int
    size_bytes: int
    data: memoryview


class Symbol(NamedTuple):
    name: str
    kind: int
    section: int
    value: int
    size_bytes: int


class Elf:
    """The headers of an ELF image. Every method raises TableError where the bytes do not bear out what they say."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        if len(data) < _HEADER.size or not data.startswith(_IDENTITY):
            raise TableError("not a 64-bit little-endian ELF file; rebuild it")
        header = _HEADER.unpack_from(data)
        self.machine, self.flags, self.abi_version = header[2], header[7], header[0][_ABI_VERSION]
        segments_at, sections_at = header[5], header[6]
        segment_bytes, segments, section_bytes, sections, names_at = header[9:14]
        self.segments = tuple(self._segments(segments_at, segment_bytes, segments))
        self.sections = tuple(self._sections(sections_at, section_bytes, sections, names_at))
        self._by_name = {section.name: section for section in reversed(self.sections)}

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return self._by_name.get(name)

    def symbols(self, kind: int) -> list[Symbol] | None:
        """The symbols of the first section of `kind` (SHT_SYMTAB or SHT_DYNSYM); None without one."""
        table = next((section for section in self.sections if section.kind == kind), None)
        if table is None:
            return None
        if table.link >= len(self.sections):
            raise TableError("a symbol table names no string table; rebuild it")
        count = len(table.data) // _SYMBOL.size
        if count > SYMBOLS_MAX:
            raise TableError(f"{count} symbols are no kernel's; rebuild it")
        names = self._names(self.sections[table.link].data)
        return [
            Symbol(names.at(name_at), info & 0xF, section, value, size_bytes)
            for name_at, info, _, section, value, size_bytes in _SYMBOL.iter_unpack(table.data[: count * _SYMBOL.size])
        ]

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and content of every note."""
        notes = [segment.data for segment in self.segments if segment.kind == PT_NOTE]
        self._check_total("notes", notes)
        for number, note in enumerate(chain.from_iterable(map(_notes, notes))):
            if number == NOTES_MAX:
                raise TableError(f"over {NOTES_MAX} notes are no kernel's; rebuild it")
            yield note

    def _segments(self, at: int, stride: int, count: int) -> Iterator[Segment]:
        if count and (stride != _SEGMENT.size or count > SEGMENTS_MAX):
            raise TableError(f"{count} program headers of {stride} bytes are no kernel's; rebuild it")
        for kind, flags, offset, address, _, file_bytes, memory_bytes, _ in _SEGMENT.iter_unpack(
            self._slice(at, count * stride)
        ):
            yield Segment(kind, address, memory_bytes, self._slice(offset, file_bytes), bool(flags & _WRITABLE))

    def _sections(self, at: int, stride: int, count: int, names_at: int) -> Iterator[Section]:
        if count and (stride != _SECTION.size or count > SECTIONS_MAX or names_at >= count):
            raise TableError(f"{count} section headers of {stride} bytes are no kernel's; rebuild it")
        headers = list(_SECTION.iter_unpack(self._slice(at, count * stride)))
        contents = [self._slice(header[4], 0 if header[1] in (0, SHT_NOBITS) else header[5]) for header in headers]
        self._check_total("sections", contents)
        names = self._names(contents[names_at]) if headers else None
        for header, content in zip(headers, contents, strict=True):
            assert names is not None, "there are headers"
            yield Section(names.at(header[0]), header[1], header[6], header[5], content)

    def _names(self, table: memoryview) -> _Names:
        return _Names(table, len(self._data))

    def _check_total(self, what: str, parts: list[memoryview]) -> None:
        """Parts that overlap would make reading them all cost the square of the file's size."""
        if sum(map(len, parts)) > len(self._data):
            raise TableError(f"its {what} overlap; rebuild it")

    def _slice(self, at: int, size: int) -> memoryview:
        if at + size > len(self._data) and size:
            raise TableError(f"{size} bytes at {at} lie outside the file's {len(self._data)}; rebuild it")
        return self._data[at : at + size] if size else self._data[:0]


class _Names:
    """A table of names, by where they begin in it. One that many have is one text; all that differ, which may be ends
    of one another, have at most `bytes_max` bytes."""

    def __init__(self, table: memoryview, bytes_max: int) -> None:
        self._table = bytes(table)
        self._bytes_left = bytes_max
        self._known: dict[int, str] = {}

    def at(self, offset: int) -> str:
        """The name that begins at `offset`. Raises TableError where none ends within NAME_BYTES_MAX."""
        if offset not in self._known:
            end = self._table.find(b"\0", offset, offset + NAME_BYTES_MAX)
            if end < 0:
                raise TableError("a name in the file has no end; rebuild it")
            self._bytes_left -= end - offset
            if self._bytes_left < 0:
                raise TableError("its names overlap; rebuild it")
            self._known[offset] = self._table[offset:end].decode(errors="replace")
        return self._known[offset]


def _notes(data: memoryview) -> Iterator[tuple[bytes, int, bytes]]:
    at = 0
    while at + _NOTE.size <= len(data):
        name_bytes, content_bytes, kind = _NOTE.unpack_from(data, at)
        content_at = at + _NOTE.size + (name_bytes + 3) // 4 * 4
        if content_at + content_bytes > len(data):
            raise TableError("a note runs past its segment; rebuild it")
        name = bytes(data[at + _NOTE.size : at + _NOTE.size + name_bytes]).rstrip(b"\0")
        yield name, kind, bytes(data[content_at : content_at + content_bytes])
        at = content_at + (content_bytes + 3) // 4 * 4
