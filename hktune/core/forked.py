"""Calls in copies of this process, side by side on several cores.

A child begins with everything that the process has in memory, so nothing is sent to it; what it computes is sent back.
It has no other thread, and a lock that another thread held when it began stays locked in it. So a call should compute,
and neither print nor wait. Who asks must be able to do without: a child that dies or hangs has no outcome.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NoReturn, TypeVar

from hktune.core.attended import LOOK_EACH_S, attended_s

Beat = Callable[[], None]
"""Says that a call goes on."""
T = TypeVar("T")
Call = Callable[[Beat], T]

_ALIVE = b""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a call returned."""

    value: T


def can_fork() -> bool:
    """Whether copies of this process may compute: elsewhere the system's libraries forbid it."""
    return sys.platform == "linux"


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def side_by_side(
    calls: Sequence[Call[T]], workers: int, patience_s: float, until: float = math.inf
) -> list[Outcome[T] | None]:
    """Make the calls, at most `workers` at once, each in a child of its own; what each returned, in their order.

    None for a call without an outcome: it raised, its child died, or it gave no beat for `patience_s`. Calls that have
    not begun by `until` (attended_s) are left out, the last ones. What a call returns is pickled; what it does to this
    process's memory is lost."""
    outcomes: list[Outcome[T] | None] = []
    waiting, running = deque(enumerate(calls)), dict[Connection, _Child]()
    try:
        while waiting or running:
            if waiting and attended_s() > until:
                waiting.clear()
            while waiting and len(running) < workers:
                number, call = waiting.popleft()
                outcomes.append(None)
                child = _begun(call, number, list(running))
                running[child.receiver] = child
            for receiver in wait(list(running), LOOK_EACH_S):
                assert isinstance(receiver, Connection)
                child = running[receiver]
                message = child.message()
                if message == _ALIVE:
                    continue
                if message is not None:
                    outcomes[child.number] = Outcome(pickle.loads(message))
                running.pop(receiver).end()
            for receiver, child in list(running.items()):
                if attended_s() - child.heard_s > patience_s:
                    running.pop(receiver).end()
    finally:
        for child in running.values():
            child.end()
    return outcomes


@dataclass
class _Child:
    """One of them, which makes call `number`; `heard_s` is when it last gave a sign of life."""

    pid: int
    receiver: Connection
    number: int
    heard_s: float

    def message(self) -> bytes | None:
        """What it sends; None where it has died."""
        self.heard_s = attended_s()
        try:
            return self.receiver.recv_bytes()
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """It has said all, or is given up."""
        self.receiver.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _begun(call: Call[Any], number: int, others: list[Connection]) -> _Child:
    """A child that makes the call. `others` are the pipes of its siblings, which would never break if it held them."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of the locks that this module is about
        pid = os.fork()
    if pid == 0:
        _compute(call, sender, [receiver, *others])
    sender.close()
    return _Child(pid, receiver, number, attended_s())


def _compute(call: Call[Any], sender: Connection, unused: list[Connection]) -> NoReturn:
    """What a child does. It leaves without the interpreter's end: buffers and exit handlers are its parent's."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent hears it, and ends its children
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.freeze()  # what it has inherited is its parent's to finalise
        for each in unused:
            each.close()
        sender.send_bytes(pickle.dumps(call(lambda: sender.send_bytes(_ALIVE)), pickle.HIGHEST_PROTOCOL))
        status = 0
    except BaseException:
        pass
    finally:
        os._exit(status)
