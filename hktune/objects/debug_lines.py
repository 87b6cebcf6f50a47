"""A process that finds the source lines of addresses: `python -m hktune.objects.debug_lines ADDRESS...`.

The object comes on standard input. Prints, in JSON, the file that was compiled and a list of frames for each address:
the innermost call first, each as function, file and line. No frames where there are no debug lines. What it takes of
time and memory is bounded; see `hktune.objects.source_lines`.
"""

from __future__ import annotations

import bisect
import io
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.elffile import ELFFile

_CPU_S = 8
_MEMORY_BYTES = 1 << 30
_DEPTH_MAX = 64
_WITH_CODE = ("DW_TAG_subprogram", "DW_TAG_inlined_subroutine", "DW_TAG_lexical_block")

Frame = tuple[str, str, int]
"""Function, file, line."""


class _Unit:
    """One compilation unit: its line table, and the tree of its functions."""

    def __init__(self, dwarf: Any, unit: Any) -> None:
        self._dwarf, self._unit = dwarf, unit
        program = dwarf.line_program_for_CU(unit)
        self._files = program["file_entry"] if program else []
        self._first_file = 0 if program and program["version"] >= 5 else 1
        rows = [entry.state for entry in program.get_entries() if entry.state is not None] if program else []
        self._rows = sorted((row.address, row.file, row.line) for row in rows if row.line and not row.end_sequence)
        self._places = [row[0] for row in self._rows]

    def frames(self, address: int) -> tuple[int, list[Frame]]:
        """Where the line begins that `address` is in (-1: nowhere), and its frames, the innermost first."""
        at = bisect.bisect_right(self._places, address) - 1
        if at < 0:
            return -1, []
        start, file, line = self._rows[at]
        chain = self._calls(self._unit.get_top_DIE(), address, 0)
        frames: list[Frame] = []
        for die in chain:
            frames.append((self._name(die), self._file(file), line))
            if die.tag != "DW_TAG_inlined_subroutine":
                break
            file, line = (_number(die, name) for name in ("DW_AT_call_file", "DW_AT_call_line"))
        return start, frames or [("", self._file(file), line)]

    def primary(self) -> str:
        """The file that was compiled."""
        name = self._unit.get_top_DIE().attributes.get("DW_AT_name")
        return PurePosixPath(_text(name.value)).name if name else ""

    def _calls(self, parent: Any, address: int, depth: int) -> list[Any]:
        """The functions around `address`, the innermost first."""
        for die in parent.iter_children() if depth < _DEPTH_MAX else ():
            if die.tag == "DW_TAG_namespace":
                found = self._calls(die, address, depth + 1)
                if found:
                    return found
            elif die.tag in _WITH_CODE and any(low <= address < high for low, high in self._ranges(die)):
                inner = self._calls(die, address, depth + 1)
                return inner if die.tag == "DW_TAG_lexical_block" else [*inner, die]
        return []

    def _ranges(self, die: Any) -> Iterator[tuple[int, int]]:
        attributes = die.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            yield low, high.value if high.form == "DW_FORM_addr" else low + high.value
        elif "DW_AT_ranges" in attributes:
            base = self._unit.get_top_DIE().attributes.get("DW_AT_low_pc")
            start = base.value if base else 0
            where = attributes["DW_AT_ranges"].value
            for each in self._dwarf.range_lists().get_range_list_at_offset(where, self._unit):
                if isinstance(each, BaseAddressEntry):
                    start = each.base_address
                else:
                    shift = 0 if getattr(each, "is_absolute", False) else start
                    yield each.begin_offset + shift, each.end_offset + shift

    def _name(self, die: Any) -> str:
        for _ in range(8):
            for key in ("DW_AT_name", "DW_AT_linkage_name"):
                if key in die.attributes:
                    return _text(die.attributes[key].value)
            origin = next((k for k in ("DW_AT_abstract_origin", "DW_AT_specification") if k in die.attributes), None)
            if origin is None:
                break
            die = die.get_DIE_from_attribute(origin)
        return ""

    def _file(self, number: int) -> str:
        at = number - self._first_file
        return PurePosixPath(_text(self._files[at].name)).name if 0 <= at < len(self._files) else ""


def _number(die: Any, name: str) -> int:
    found = die.attributes.get(name)
    return int(found.value) if found else 0


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def places_of(data: bytes, addresses: list[int]) -> list[dict[str, Any]]:
    """For each virtual address: `primary`, the file that was compiled, and `frames`."""
    elf = ELFFile(io.BytesIO(data))
    dwarf = elf.get_dwarf_info() if elf.has_dwarf_info() else None
    units = [_Unit(dwarf, unit) for unit in dwarf.iter_CUs()] if dwarf else []
    places = []
    for address in addresses:
        found = [(*unit.frames(address), unit.primary()) for unit in units]
        _, frames, primary = max(found, key=lambda each: each[0], default=(-1, [], ""))
        places.append({"primary": primary, "frames": frames})
    return places


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    json.dump(places_of(sys.stdin.buffer.read(), [int(word) for word in sys.argv[1:]]), sys.stdout)
