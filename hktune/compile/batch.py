"""Many compiles at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from hktune.compile.compiler import Compiler
from hktune.core.outcome import Failure
from hktune.core.variant import CodeObject, Variant


def compile_many(
    compiler: Compiler, variants: Iterable[Variant], deadline_s: float, workers: int | None = None
) -> Iterator[tuple[Variant, CodeObject | Failure]]:
    """Yield each variant with what became of it, in the order in which they finish.

    `deadline_s` holds for each compile; `workers` defaults to the cores this process may use. Closing the iterator
    early drops what has not started. Raises what `compiler` raises.
    """
    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers, thread_name_prefix="compile") as pool:
        pending = {pool.submit(compiler.compile, variant, deadline_s): variant for variant in variants}
        try:
            for done in as_completed(pending):
                yield pending[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
