"""Worker processes: started, asked, and ended with this one. What goes wrong in one is classified here.

An error of hktune in a worker is raised in the parent, as it is. A worker that is gone is WorkerDied, one that met a
defect of hktune is WorkerBroke. A broken pipe to a worker is never an OSError to anybody else.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Generic, TypeVar

from hktune.core.errors import HktuneError, MachineError
from hktune.core.guard import end_marked, mark
from hktune.core.interruption import SIGNALS, held_back, ignore_from_now_on

_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Starting a process changes the environment for a moment, and reaps whatever other child has died.
_PROCESSES = threading.Lock()


Question = TypeVar("Question")
Answer = TypeVar("Answer")
Serve = Callable[[Question], Answer]
"""What a worker does with each question."""


class WorkerDied(Exception):
    """The process is gone."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"the worker died with exit code {exit_code}")
        self.exit_code = exit_code

    @property
    def from_outside(self) -> bool:
        """Whether a signal ended it that no process sends itself: an operator's, or the kernel's for want of memory."""
        return self.exit_code in (-signal.SIGKILL, *(-number for number in SIGNALS))


class WorkerBroke(Exception):
    """What was asked ended in an exception that hktune does not raise on purpose; the worker has printed it."""


@dataclass(frozen=True)
class _Ready:
    """A worker's first message, if it can begin."""


@dataclass(frozen=True)
class _Answered(Generic[Answer]):
    answer: Answer


@dataclass(frozen=True)
class _Failed:
    """What came in an answer's place: an error to raise, or what a defect said."""

    error: HktuneError | str


class Worker(Generic[Question, Answer]):
    """A child process that applies one function to what comes through its pipe. One thread at a time."""

    def __init__(self, process: SpawnProcess, pipe: connection.Connection, environment: dict[str, str]) -> None:
        self.pipe = pipe
        self.ready = False
        self._process = process
        self._environment = environment
        self._said: _Answered[Answer] | _Failed | None = None

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        with _PROCESSES:
            return self._process.is_alive()

    def send(self, question: Question) -> None:
        """Ask; where the worker is gone, `heard` says so."""
        try:
            self.pipe.send(question)
        except OSError:
            return

    def heard(self, timeout_s: float = 0.0) -> bool:
        """Whether an answer has come, waiting up to `timeout_s` for it. Raises WorkerDied."""
        until = time.monotonic() + timeout_s
        while self._said is None:
            try:
                if not self.pipe.poll(max(0.0, until - time.monotonic())):
                    return False
                said: _Ready | _Answered[Answer] | _Failed = self.pipe.recv()
            except (EOFError, OSError):
                raise WorkerDied(self._exit_code()) from None
            if isinstance(said, _Ready):
                self.ready = True
            else:
                self._said = said
        return True

    def receive(self) -> Answer:
        """The answer that was heard. Raises HktuneError as the worker did, and WorkerBroke."""
        said, self._said = self._said, None
        assert said is not None, "nothing was heard"
        if isinstance(said, _Answered):
            return said.answer
        raise said.error if isinstance(said.error, HktuneError) else WorkerBroke(said.error)

    def stop(self) -> None:
        """End the process and what it started, whatever they do."""
        with _PROCESSES:
            self._process.kill()
            self._process.join()
        end_marked(self._environment)
        self.pipe.close()

    def _exit_code(self) -> int | None:
        """What the process of a closed pipe ended with; None if it has not within seconds."""
        with _PROCESSES:
            self._process.join(timeout=5)
            return self._process.exitcode


def start_worker(
    make_serve: Callable[[], Serve[Question, Answer]], single_threaded: bool = True, memory_bytes: int | None = None
) -> Worker[Question, Answer]:
    """A new process that calls `make_serve` (picklable) once, and what it returned on everything that is sent.

    It may have `memory_bytes` of memory of its own (None: no limit), and so may each process that it starts. Workers
    may be started and stopped by several threads, each its own. Raises MachineError where none can be started.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make_serve, theirs, memory_bytes), daemon=True)
    try:
        wanted = mark() | (_SINGLE_THREADED if single_threaded else {})
        with _PROCESSES, held_back():
            resource_tracker.ensure_running()  # else it is started with the worker, and ended with it
            saved = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)  # a child's BLAS reads these when it is loaded
            try:
                with held_back(), _caller_left_out(make_serve):  # again: the tracker's start lets the signals through
                    process.start()
            finally:
                for name, value in saved.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})
    except OSError as error:
        ours.close()
        raise MachineError(f"cannot start a process ({error.strerror}): free memory, or use fewer --workers") from None
    finally:
        theirs.close()
    return Worker(process, ours, wanted)


class _WithoutSource(ModuleType):
    """The caller's main module, but for where its source is."""

    def __init__(self, main: ModuleType) -> None:
        super().__init__(main.__name__)
        self._main = main

    def __getattr__(self, name: str) -> object:
        if name in ("__file__", "_main"):
            raise AttributeError(name)
        found: object = getattr(self._main, name)
        return found


@contextmanager
def _caller_left_out(make_serve: object) -> Iterator[None]:
    """Within the block a new process finds no source of the main module, which it would run again: a caller's script
    without `if __name__ == "__main__"`, or a whole program. Where `make_serve` is of that module, it does."""
    main = sys.modules["__main__"]
    if make_serve.__module__ == main.__name__:
        yield
        return
    sys.modules["__main__"] = _WithoutSource(main)
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(
    make_serve: Callable[[], Serve[Question, Answer]], pipe: connection.Connection, memory_bytes: int | None
) -> None:
    """A worker's life: questions in, answers out, until the other end closes."""
    ignore_from_now_on()  # the parent ends its workers; until here, while this process began, signals were held back
    if memory_bytes is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        least = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (least, most))
    try:
        made: list[Serve[Question, Answer]] = []
        begun = _said(lambda _: made.append(make_serve()), None)
        pipe.send(_Ready() if made else begun)
        while made:
            pipe.send(_said(made[0], pipe.recv()))
    except (EOFError, OSError):
        return  # nobody is there to hear it


def _said(serve: Serve[Question, Answer], question: Question) -> _Answered[Answer] | _Failed:
    try:
        return _Answered(serve(question))
    except HktuneError as error:
        return _Failed(error)
    except MemoryError as error:
        return _Failed(MachineError(f"a worker ran out of memory ({error}): raise --worker-memory"))
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _Failed(MachineError(f"a worker could not go on ({said}): repair that and run again"))
    except Exception as error:  # a defect met with one question must not cost the others
        traceback.print_exc()
        return _Failed(f"{type(error).__name__}: {error}"[:400])
