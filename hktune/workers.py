"""Worker processes: each takes one config at a time, and may die or hang without taking anything else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Status

Prove = Callable[[Config], Attempt]
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Starting a process changes the environment for a moment, and reaps whatever other child has died.
_PROCESSES = threading.Lock()


class Executor(Protocol):
    """Where variants are compiled and proved.

    `submit` never blocks and takes at most `capacity` configs at once; `collect` returns what has finished, waiting up
    to `timeout_s` for a first one. A config whose worker died or overran its deadline comes back as a failed Attempt.
    """

    capacity: int

    @property
    def pending(self) -> int: ...

    def submit(self, config: Config) -> None: ...

    def collect(self, timeout_s: float) -> list[Attempt]: ...

    def close(self) -> None: ...


@dataclass
class Worker:
    """A child process that applies one function to what comes through its pipe."""

    process: SpawnProcess
    pipe: connection.Connection
    config: Config | None = None
    deadline: float = 0.0


class LocalExecutor:
    """Executor over this machine's processes, one single-threaded worker each.

    `make_prove` is called once in every worker, so it must be picklable; it returns the function that the worker
    applies to configs. `deadline_s` bounds one config from submission to result; a worker past it is killed.
    """

    def __init__(self, make_prove: Callable[[], Prove], workers: int, deadline_s: float) -> None:
        self.capacity = workers
        self._make_prove = make_prove
        self._deadline_s = deadline_s
        self._workers = [start_worker(self._make_prove) for _ in range(workers)]

    @property
    def pending(self) -> int:
        return sum(worker.config is not None for worker in self._workers)

    def submit(self, config: Config) -> None:
        worker = next(worker for worker in self._workers if worker.config is None)
        worker.config, worker.deadline = config, time.monotonic() + self._deadline_s
        worker.pipe.send(config)

    def collect(self, timeout_s: float) -> list[Attempt]:
        busy = [worker for worker in self._workers if worker.config is not None]
        if not busy:
            return []
        until = min([time.monotonic() + timeout_s, *(worker.deadline for worker in busy)])
        connection.wait([worker.pipe for worker in busy], max(0.0, until - time.monotonic()))
        attempts = (self._result(worker) for worker in busy)
        return [attempt for attempt in attempts if attempt is not None]

    def close(self) -> None:
        for worker in self._workers:
            stop_worker(worker)

    def _result(self, worker: Worker) -> Attempt | None:
        """What `worker` has to say: its attempt, a failure in its place (and a new worker in its own), or nothing."""
        config = worker.config
        assert config is not None
        failure = None
        try:
            if worker.pipe.poll():
                attempt: Attempt = worker.pipe.recv()
                worker.config = None
                return attempt
        except (EOFError, OSError):
            failure = Failure(Status.CRASHED, f"the worker died with exit code {exit_code(worker)}")
        if failure is None and time.monotonic() >= worker.deadline:
            failure = Failure(Status.TIMEOUT, f"no result after {self._deadline_s:.0f} s; the worker was replaced")
        if failure is None:
            return None
        stop_worker(worker)
        self._workers[self._workers.index(worker)] = start_worker(self._make_prove)
        return Attempt(config, failure)


def start_worker(make_serve: Callable[[], Callable[[Any], Any]], single_threaded: bool = True) -> Worker:
    """A new process that calls `make_serve` (picklable) once, and what it returned on everything that is sent.

    Workers may be started and stopped by several threads, each its own.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make_serve, theirs), daemon=True)
    wanted = _SINGLE_THREADED if single_threaded else {}
    with _PROCESSES:
        saved = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)  # a child's BLAS reads these when it is loaded
        try:
            process.start()
        finally:
            for name, value in saved.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    return Worker(process, ours)


def exit_code(worker: Worker) -> int | None:
    """What the process of a closed pipe ended with; None if it has not within seconds."""
    with _PROCESSES:
        worker.process.join(timeout=5)
        return worker.process.exitcode


def stop_worker(worker: Worker) -> None:
    """End the process, whatever it does."""
    with _PROCESSES:
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()


def _serve(make_serve: Callable[[], Callable[[Any], Any]], pipe: connection.Connection) -> None:
    """A worker's life: questions in, answers out, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    serve = make_serve()
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(serve(question))
