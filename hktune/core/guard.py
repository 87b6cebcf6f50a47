"""Children that end with this process, however it ends, and with whatever they started themselves.

Every child carries a mark in its environment, which its own children inherit. This process has a guard, in a
session of its own, that does nothing but wait for it to end; then it ends all that carry the mark. Not even kill -9 of
this process and of its group leaves a compiler running. Linux only: it reads /proc.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

if __name__ != "__main__":  # the guard itself imports nothing of hktune
    from hktune.core.errors import MachineError
    from hktune.core.interruption import held_back

_VARIABLE = "HKTUNE_OWNER"
_ROUNDS = 50
_ROUND_S = 0.1
_QUIET_ROUNDS = 3
"""A child that has not begun its own program yet cannot be recognised by its environment."""

_lock = threading.Lock()
_numbers = itertools.count()
_family = ""


def mark() -> dict[str, str]:
    """What to add to the environment of one child, and of no other. In a child that carries a mark: nothing. Raises
    MachineError where no guard can be started."""
    global _family
    if _VARIABLE in os.environ:
        return {}
    with _lock:
        if not _family:
            family = f"{os.getpid()}-{os.urandom(8).hex()}"
            _start_guard(family)
            _family = family
        return {_VARIABLE: f"{_family}-{next(_numbers)}"}


def end_marked(environment: dict[str, str]) -> None:
    """End what is left of a child, started with `environment`, that has ended: what it had started."""
    if _VARIABLE in environment:
        _end(environment[_VARIABLE], rounds=1)


def _start_guard(family: str) -> None:
    try:
        with held_back():  # in the guard for good: it ends when this process does, and not before
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, family],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            atexit.register(_dismiss, guard)
    except OSError as error:
        raise MachineError(f"cannot start {sys.executable} ({error.strerror}): free memory, or repair that") from None


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        guard.communicate(timeout=_ROUNDS * _ROUND_S)


def _end(mark_text: str, rounds: int) -> None:
    quiet = 0
    for _ in range(rounds):
        found = list(_marked(mark_text))
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if found else quiet + 1
        if quiet == _QUIET_ROUNDS or rounds == 1:
            return
        time.sleep(_ROUND_S)


def _marked(mark_text: str) -> Iterator[int]:
    """The processes that carry this mark, or one of this family."""
    wanted = f"{_VARIABLE}={mark_text}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(each == wanted or each.startswith(wanted + b"-") for each in variables):
                yield int(entry.name)


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the other end closes
    _end(sys.argv[1], _ROUNDS)
