"""Source lines of a code object's instructions, with the calls that were inlined there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from hktune.objects.elf import Elf

_DEBUG_LINES = ".debug_line"
_DEADLINE_S = 10.0
_NAME_CHARACTERS_MAX = 300
_ADDRESSES_MAX = 4096


@dataclass(frozen=True)
class Frame:
    """One call on the way to an instruction: a line of `function`."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class SourcePlace:
    """Where an instruction comes from: `frames` with the innermost call first. `own` is the innermost that is in the
    file that was compiled, or else the outermost: a header's line says little to who calls it."""

    frames: tuple[Frame, ...]
    own: Frame


class _Found(msgspec.Struct):
    primary: str
    frames: list[tuple[str, str, int]]


def source_places(data: bytes, addresses: Iterable[int]) -> dict[int, SourcePlace]:
    """The places of those virtual addresses that the object's debug lines know.

    They are read in a process of its own, whose time and memory are bounded: DWARF's counts and compressed sections
    lead a general reader anywhere."""
    wanted = list(addresses)[:_ADDRESSES_MAX]
    if not wanted or all(section.name != _DEBUG_LINES for section in Elf(data).sections):
        return {}
    command = [sys.executable, "-m", "hktune.objects.debug_lines", *map(str, wanted)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_DEADLINE_S, check=True)
        found = msgspec.json.decode(done.stdout, type=list[_Found])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return {}
    places = {address: _place(each) for address, each in zip(wanted, found, strict=False) if each.frames}
    return {address: place for address, place in places.items() if place.own.line}


def _place(found: _Found) -> SourcePlace:
    cut = _NAME_CHARACTERS_MAX
    frames = tuple(Frame(function[:cut], file[:cut], line) for function, file, line in found.frames)
    own = next((frame for frame in frames if found.primary and frame.file == found.primary[:cut]), frames[-1])
    return SourcePlace(frames, own)
