"""Several loops at once, one thread each; an error or Ctrl-C ends them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait


def side_by_side(tasks: Sequence[Callable[[], None]], interrupts: Sequence[Callable[[], None]]) -> bool:
    """Run `tasks` to their end; whether Ctrl-C ended them before it. A single task runs in the calling thread.

    Each of `interrupts` makes a task raise KeyboardInterrupt soon. When a task raises anything else, all are
    interrupted and what it raised is raised here.
    """
    if len(tasks) == 1:
        try:
            tasks[0]()
        except KeyboardInterrupt:
            return True
        return False
    interrupted, futures = False, []
    with ThreadPoolExecutor(len(tasks), thread_name_prefix="gpu") as pool:
        try:
            futures += [pool.submit(task) for task in tasks]
            wait(futures, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            interrupted = True
        finally:  # where all have ended, nobody hears it
            for interrupt in interrupts:
                interrupt()
    for future in futures:
        error = future.exception()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise error
    return interrupted
