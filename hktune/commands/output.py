"""What commands print on: a file's text reaches a terminal escaped, any encoding will do, and a stream that is full or
closed ends no work that it was to tell of."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO, cast

from hktune.core.escaped import escaped_lines


class Stream:
    """A text stream whose failures are kept in `lost`, the first one; what is written after that is dropped.

    Characters that its encoding does not have are written as escapes. All else is the wrapped stream's.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        self._unless_lost(lambda: self.stream.write(shown))
        return len(text)

    def flush(self) -> None:
        self._unless_lost(self.stream.flush)

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self.stream, name)
        return found

    def _unless_lost(self, act: Callable[[], object]) -> None:
        if self.lost is None:
            try:
                act()
            except OSError as failed:
                self.lost = failed
                self._let_go()

    def _let_go(self) -> None:
        """What the stream still holds goes nowhere: the interpreter would try it again as it ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


class Printed:
    """A stream as `print` uses it: what does not print as itself is escaped, newlines apart. `unescaped` is for who
    escapes text itself and writes a terminal's codes."""

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = Stream(stream)

    def write(self, text: str) -> int:
        self.unescaped.write(escaped_lines(text))
        return len(text)

    def flush(self) -> None:
        self.unescaped.flush()

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self.unescaped, name)
        return found


@contextlib.contextmanager
def printing() -> Iterator[Printed]:
    """Standard output and error as `Printed` while it lasts; yields the former, flushed at the end."""
    before = sys.stdout, sys.stderr
    output, errors = (Printed(stream or _nowhere()) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    """For a stream that was closed before the process began. It takes that one's number, so that no file gets it."""
    return Path(os.devnull).open("w", encoding="utf-8")


def why_lost(output: Printed) -> str | None:
    """Why not all of the output was written; None where it was, or where its reader had enough of it."""
    lost = output.unescaped.lost
    if lost is None or lost.errno == errno.EPIPE:
        return None
    return f"standard output cannot be written ({lost.strerror}): send it elsewhere"
