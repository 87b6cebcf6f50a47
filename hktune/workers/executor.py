"""Executors: each worker takes one config at a time, and may die or hang without taking anything else with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Protocol

from hktune.core.attended import attended_s
from hktune.core.candidate import Candidate
from hktune.core.errors import MachineError
from hktune.core.outcome import Failure, Status
from hktune.measure.stopwatch import Attempt, failed
from hktune.workers.processes import Worker, WorkerBroke, WorkerDied, start_worker

Prove = Callable[[Candidate], Attempt]

START_DEADLINE_S = 180.0
"""For a worker to be ready: it imports numpy and finds its compiler, on a machine that may be busy."""

FAILED_STARTS_MAX = 3
"""So many workers in a row that die before they are ready, and the machine is to blame."""

DEATHS_MAX = 2
"""So often a config may see its worker die before it is to blame: the first may be an operator's doing, or a machine's
that was short of memory."""


MEMORY_BYTES = 4 << 30
"""Of a worker, where that is less than its share of the machine: a proof takes some 0.5 GiB, a compile as much."""


@dataclass(frozen=True)
class Limits:
    """What one config may take, in seconds and in bytes of its worker's memory. None of seconds: as long as is usual on
    its device. None of bytes: MEMORY_BYTES, or a worker's share of this machine's if that is less."""

    deadline_s: float | None = None
    memory_bytes: int | None = None

    def memory_of_each(self, workers: int) -> int:
        """Bytes of memory for each of so many workers."""
        return self.memory_bytes or min(MEMORY_BYTES, memory_there_bytes() // workers)


NO_LIMITS_ASKED = Limits()

_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_there_bytes() -> int:
    """The memory of this machine, or of the container that this process is in."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is none
            there = min(there, int(path.read_text(encoding="utf-8")))
    return there


class Executor(Protocol):
    """Where variants are compiled and proved. One thread drives an executor.

    Every candidate that was submitted comes back from `collect` once, in any order. What goes wrong with it (it does
    not compile, it is wrong, its worker died or overran the deadline) is its Attempt's failure, and costs no other.
    `submit` and `collect` raise HktuneError, as a worker did, for what no candidate is to blame for. Then the run is
    over.
    """

    capacity: int
    """So many configs may be worked on at once; it does not change."""

    @property
    def notes(self) -> Sequence[str]:
        """What was noticed of its workers that a person should know."""

    @property
    def pending(self) -> int:
        """Configs that were submitted and have not come back."""

    def submit(self, candidate: Candidate) -> None:
        """Begin with `candidate` and wait for nothing. Only while `pending` is below `capacity`."""

    def collect(self, timeout_s: float) -> list[Attempt]:
        """What has finished, waiting up to `timeout_s` for a first one; nothing, and at once, when none is pending.

        It may come back with nothing before the time is up: a worker said that it is ready, or was replaced.
        """

    def close(self) -> None:
        """End all workers and what they are doing. May be called twice; nothing else may be called after it."""


@dataclass
class _Slot:
    """One worker and what it is doing: `until` (attended_s) is when that is overdue."""

    worker: Worker[Candidate, Attempt]
    candidate: Candidate | None = None
    until: float = 0.0
    timed: bool = False
    deaths: int = 0


class LocalExecutor:
    """Executor over this machine's processes, one single-threaded worker each.

    `make_prove` is called once in every worker, so it must be picklable; it returns the function that the worker
    applies to candidates. `deadline_s` bounds one from when its worker is ready to the result; a worker past it is
    killed. `memory_bytes` bounds each worker (see `start_worker`). A worker that dies is replaced.
    """

    def __init__(
        self, make_prove: Callable[[], Prove], workers: int, deadline_s: float, memory_bytes: int | None = None
    ) -> None:
        self.capacity = workers
        self.notes: Sequence[str] = ()
        self._make_prove = make_prove
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._failed_starts = 0
        self._slots: list[_Slot] = []
        try:
            for _ in range(workers):
                self._slots.append(_Slot(self._start()))
        except BaseException:
            self.close()
            raise

    @property
    def pending(self) -> int:
        return sum(slot.candidate is not None for slot in self._slots)

    def submit(self, candidate: Candidate) -> None:
        slot = next(slot for slot in self._slots if slot.candidate is None)
        if not slot.worker.is_alive:
            self._replace(slot)
        slot.deaths = 0
        self._give(slot, candidate)

    def collect(self, timeout_s: float) -> list[Attempt]:
        busy = [slot for slot in self._slots if slot.candidate is not None]
        if not busy:
            return []
        now_s = attended_s()
        left_s = min(timeout_s, *(slot.until - now_s for slot in busy))
        connection.wait([slot.worker.pipe for slot in busy], max(0.0, left_s))
        attempts = (self._result(slot) for slot in busy)
        return [attempt for attempt in attempts if attempt is not None]

    def close(self) -> None:
        for slot in self._slots:
            slot.worker.stop()

    def _start(self) -> Worker[Candidate, Attempt]:
        return start_worker(self._make_prove, memory_bytes=self._memory_bytes)

    def _replace(self, slot: _Slot) -> None:
        slot.worker.stop()
        slot.worker = self._start()

    def _give(self, slot: _Slot, candidate: Candidate) -> None:
        slot.candidate, slot.timed = candidate, slot.worker.ready
        slot.until = attended_s() + (self._deadline_s if slot.timed else START_DEADLINE_S)
        slot.worker.send(candidate)

    def _result(self, slot: _Slot) -> Attempt | None:
        """What the worker has to say: its attempt, a failure in its place, or nothing yet."""
        candidate = slot.candidate
        assert candidate is not None
        try:
            if slot.worker.heard():
                slot.candidate = None
                return slot.worker.receive()
        except WorkerBroke as defect:
            return failed(candidate, Failure(Status.CRASHED, f"in the worker: {defect}"))
        except WorkerDied as died:
            return self._after_death(slot, candidate, died)
        if slot.worker.ready and not slot.timed:
            self._failed_starts = 0
            slot.timed, slot.until = True, attended_s() + self._deadline_s
        if attended_s() < slot.until:
            return None
        if not slot.timed:
            raise MachineError(f"a worker was not ready after {START_DEADLINE_S:.0f} s: use fewer --workers")
        self._replace(slot)
        slot.candidate = None
        return failed(
            candidate, Failure(Status.TIMEOUT, f"no result after {self._deadline_s:g} s; the worker was replaced")
        )

    def _after_death(self, slot: _Slot, candidate: Candidate, died: WorkerDied) -> Attempt | None:
        """Replace the worker and try its config again, unless one of them has failed too often."""
        if slot.worker.ready:
            slot.deaths += 1
        else:
            self._failed_starts += 1
        if self._failed_starts == FAILED_STARTS_MAX:
            raise MachineError(
                f"{FAILED_STARTS_MAX} workers in a row died before they had begun (exit code {died.exit_code}): see "
                "what they printed, free memory, or use fewer --workers"
            )
        self._replace(slot)
        if slot.deaths < DEATHS_MAX:
            self._give(slot, candidate)
            return None
        slot.candidate = None
        return failed(candidate, Failure(Status.CRASHED, f"{died}, and so did the next one"))
