"""The lines of a text from outside."""

from __future__ import annotations

from collections.abc import Iterator

CHARACTERS_MAX = 20_000  # of a line, some ten times what any tool writes


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines, numbered from 1, without their ends; of one that is too long, what it begins with."""
    for number, line in enumerate(text.split("\n"), 1):
        yield number, line[:CHARACTERS_MAX].rstrip("\r")
