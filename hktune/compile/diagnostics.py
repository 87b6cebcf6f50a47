"""Turns what a compiler printed into the one line that goes into a trial, or tells that the machine is to blame."""

from __future__ import annotations

import re
from pathlib import Path

_LOCATED = re.compile(r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):\d+: (?:fatal )?error: (?P<message>.*)$")
_PLAIN = re.compile(r"^(?:[\w./+-]+: )?(?:fatal )?error: ")
_LIMIT_CHARS = 400

_MISSING = re.compile(r"'[^']+' file not found")
# What clang, lld, zig and Python say of a machine that lacks something, and what to do about it.
_MACHINE = (
    (re.compile(r"No space left on device|Disk quota exceeded|NoSpaceLeft"), "free the disk, or set TMPDIR"),
    (
        re.compile(r"Cannot allocate memory|out of memory|OutOfMemory|OUT_OF_MEMORY|bad_alloc|MemoryError"),
        "free memory, or use fewer --workers",
    ),
    (
        re.compile(r"Input/output error|Read-only file system|unable to open output file|cannot open output file"),
        "repair the disk, or set TMPDIR",
    ),
    (re.compile(r"Too many open files|No file descriptors available"), "raise the limit (ulimit -n)"),
    (re.compile(r"error while loading shared libraries|^[\w.]+(?:Error|Exception): "), "run `hktune doctor`"),
)


def first_error(stderr: str, source_name: str, headers: Path, status: int) -> str:
    """The first error of `stderr`, as `file:line: error: message`, with headers named relative to `headers`.

    An error inside a header also names the line of `source_name` that led there. When the compiler died before it could
    say anything, its exit status speaks.
    """
    lines = [line.replace(f"{headers}/", "") for line in stderr.splitlines()]
    for index, line in enumerate(lines):
        located = _LOCATED.match(line)
        if located:
            origin = "" if located["file"] == source_name else _led_from(lines[index:], source_name)
            return f"{located['file']}:{located['line']}: error: {located['message']}{origin}"[:_LIMIT_CHARS]
        if _PLAIN.match(line):
            return f"{source_name}: {line}"[:_LIMIT_CHARS]
    said = next((line.strip() for line in lines if line.strip()), "and it said nothing")
    return f"{source_name}: the compiler ended with status {status}: {said}"[:_LIMIT_CHARS]


def machine_fault(stderr: str) -> str | None:
    """What of `stderr` says that this machine lacks a header, disk, memory or the like, and the next step; None when
    the source is to blame. A source that includes what is not there would fail with every config alike."""
    for line in stderr.splitlines():
        located = _LOCATED.match(line)
        if located and _MISSING.search(located["message"]):
            return f"{located['message']}: run `hktune doctor`"[:_LIMIT_CHARS]
        if located:
            return None
        for words, remedy in _MACHINE:
            if words.search(line):
                return f"{line.strip()}: {remedy}"[:_LIMIT_CHARS]
    return None


def names_an_error(detail: str) -> bool:
    """Whether a failure's detail is the compiler's verdict, which it would repeat, and not an accident of its run or a
    lack of the machine it ran on."""
    return (
        "error: " in detail and not _MISSING.search(detail) and not any(words.search(detail) for words, _ in _MACHINE)
    )


def _led_from(lines: list[str], source_name: str) -> str:
    """` (from SOURCE:LINE)`: the first note under an error that points into the source."""
    for line in lines[1:]:
        if _LOCATED.match(line):
            break
        note = re.match(rf"{re.escape(source_name)}:(\d+):\d+: note: ", line)
        if note:
            return f" (from {source_name}:{note[1]})"
    return ""
