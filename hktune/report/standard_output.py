"""Standard output that may close, fill up, or know no other letters than ASCII, without ending what prints to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast


class Output:
    """`stream`, until it cannot be written any more; then nothing. `lost` says why. Everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                self._write(text)
            except OSError as error:
                self.lost = error
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.lost = error

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def standard_output() -> Iterator[Output]:
    """Within the block, sys.stdout is an Output."""
    output = Output(sys.stdout)
    with redirect_stdout(cast("TextIO", output)):
        try:
            yield output
        finally:
            output.flush()
    if output.lost is not None:
        _let_go(sys.stdout)


def _let_go(stream: TextIO) -> None:
    """What Python still holds for a stream that is lost goes nowhere, instead of failing again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
