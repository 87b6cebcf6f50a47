"""Several loops at once, one thread each. What ends one, other than Ctrl-C, leaves the others at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from hktune.core.errors import HktuneError


def side_by_side(tasks: Sequence[Callable[[], None]], interrupts: Sequence[Callable[[], None]]) -> list[HktuneError]:
    """Run `tasks` to their end; the errors of hktune that ended some of them. A single task runs in the calling thread.

    Each of `interrupts` makes a task raise KeyboardInterrupt soon. On Ctrl-C, and when a task raises what hktune does
    not raise on purpose, all are interrupted, and that is raised here once they have ended.
    """
    if len(tasks) == 1:
        try:
            tasks[0]()
        except HktuneError as error:
            return [error]
        return []
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(len(tasks), thread_name_prefix="gpu") as pool:
        try:
            futures += [pool.submit(task) for task in tasks]
            _wait_for(futures)
        finally:  # where all have ended, nobody hears it
            for interrupt in interrupts:
                interrupt()
    ended_by = [future.exception() for future in futures]
    for raised in ended_by:
        if raised is not None and not isinstance(raised, HktuneError | KeyboardInterrupt):
            raise raised
    return [raised for raised in ended_by if isinstance(raised, HktuneError)]


def _wait_for(futures: Sequence[Future[None]]) -> None:
    """Until all have ended, or one by something else than an error of hktune."""
    left = set(futures)
    while left:
        done, left = wait(left, return_when=FIRST_EXCEPTION)
        if any(not isinstance(future.exception(), HktuneError | None) for future in done):
            return
