"""Turns what a compiler printed into the one line that goes into a trial."""

from __future__ import annotations

import re
from pathlib import Path

_LOCATED = re.compile(r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):\d+: (?:fatal )?error: (?P<message>.*)$")
_PLAIN = re.compile(r"^(?:[\w./+-]+: )?(?:fatal )?error: ")
_LIMIT_CHARS = 400


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


def names_an_error(detail: str) -> bool:
    """Whether a failure's detail is the compiler's verdict, which it would repeat, and not an accident of its run."""
    return "error: " in detail


def _led_from(lines: list[str], source_name: str) -> str:
    """` (from SOURCE:LINE)`: the first note under an error that points into the source."""
    for line in lines[1:]:
        if _LOCATED.match(line):
            break
        note = re.match(rf"{re.escape(source_name)}:(\d+):\d+: note: ", line)
        if note:
            return f" (from {source_name}:{note[1]})"
    return ""
