"""Signs of life: in a file or a pipe nobody should wonder whether a command hangs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from hktune.core.escaped import escaped
from hktune.report.console import make_console

LINE_EVERY_S = 8.0  # at most 10 s apart, also on a busy machine


@contextmanager
def heartbeat(console: Console, line: Callable[[], str]) -> Iterator[None]:
    """Meanwhile print what `line` says every few seconds, from a thread of its own. Not on a terminal."""
    if console.is_terminal:
        yield
        return
    with repeated(lambda: console.print(escaped(line()), soft_wrap=True, highlight=False, markup=False), LINE_EVERY_S):
        yield


@contextmanager
def repeated(beat: Callable[[], None], every_s: float) -> Iterator[None]:
    """Meanwhile call `beat` every so many seconds, from a thread of its own; never again when the block is left."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every_s):
            beat()

    thread = threading.Thread(target=go_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def working(what: Callable[[], str]) -> Iterator[None]:
    """Say on standard error what goes on: on a terminal while it does, elsewhere every few seconds."""
    console, started = make_console(sys.stderr), time.monotonic()
    with heartbeat(console, lambda: f"{what()}, {time.monotonic() - started:.0f} s so far"):
        if not console.is_terminal:
            yield
            return
        with Live(console=console, get_renderable=lambda: Spinner("dots", escaped(what())), transient=True):
            yield
