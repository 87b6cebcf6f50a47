"""GPU work in a process of its own: a kernel that hangs, faults or kills it costs one config, and the process.

A fault leaves the whole process unable to use the GPU, and a kernel that does not end cannot be stopped but by ending
its process. So the process that searches never touches the GPU itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from hktune.core.attended import attended_s
from hktune.core.candidate import Candidate
from hktune.core.errors import DeviceError
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.energy import Energies
from hktune.measure.stopwatch import Attempt, Confirmation, Side
from hktune.workers.executor import Executor
from hktune.workers.processes import Worker, WorkerBroke, WorkerDied, start_worker

OPEN_DEADLINE_S = 180.0
"""For a worker's first words: it imports torch, makes a context and fills the arena."""

OPEN_ATTEMPTS = 2
"""The driver may still be clearing up after the process before."""

REQUEST_DEADLINE_S = 30.0
"""For one proof or one comparison."""

INTERRUPT_S = 0.2
"""How soon someone who waits for an answer learns that the run is over."""


@dataclass(frozen=True)
class Prove:
    """Prove a compiled config, or an algorithm of a vendor's library on its `problem`; answered by an Attempt."""

    attempt: Attempt
    problem: Problem | None = None


@dataclass(frozen=True)
class Screen:
    """Time one candidate; answered by Timing or Failure."""

    attempt: Attempt
    problem: Problem


@dataclass(frozen=True)
class Confirm:
    """Time finalists together, and kernels of others with them; answered by a Confirmation. `steady`: in turns."""

    attempts: tuple[Attempt, ...]
    problem: Problem
    others: tuple[Side, ...] = ()
    steady: bool = False


@dataclass(frozen=True)
class NameAlgorithms:
    """Ask the vendor's libraries that are here for their algorithms of a problem; answered by all of them."""

    problem: Problem


@dataclass(frozen=True)
class MeasureEnergy:
    """Measure the energy of a launch of each, by so many windows; answered by Energies."""

    attempts: tuple[Attempt, ...]
    problem: Problem
    windows: int


Request = Prove | Screen | Confirm | NameAlgorithms | MeasureEnergy
Value: TypeAlias = "Attempt | Timing | Failure | Confirmation | Energies | tuple[VendorAlgorithm, ...]"
"""What a request may be answered by."""


@dataclass(frozen=True)
class Answer:
    """What a worker sends back. `lost` says that the device faulted: the worker ends after it. `busy_s` is the device
    time of all rounds that the worker has timed."""

    value: Value | None
    busy_s: float = 0.0
    lost: bool = False


Serve = Callable[[Request | None], Answer]
"""What runs in the worker. None asks only whether it is there."""


class Reproduce(Protocol):
    """The command line that shows a config's failure again."""

    def __call__(self, candidate: Candidate, problem: Problem | None) -> str: ...


@dataclass
class Usage:
    """What of `gpus` GPUs a run took: seconds in timed rounds, seconds that workers were asked for, workers lost."""

    busy_s: float = 0.0
    asked_s: float = 0.0
    workers_lost: int = 0
    gpus: int = 1


def total_usage(usages: Iterable[Usage]) -> Usage | None:
    """The sum; None of none."""
    used = list(usages)
    if not used:
        return None
    return Usage(
        busy_s=sum(usage.busy_s for usage in used),
        asked_s=sum(usage.asked_s for usage in used),
        workers_lost=sum(usage.workers_lost for usage in used),
        gpus=sum(usage.gpus for usage in used),
    )


class GpuWorker:
    """One process with one GPU, replaced whenever it is lost.

    `make_serve` is called once in each process and must be picklable. `ask` answers with what the worker said, or with
    a Failure in its place: crashed when the process died or the device faulted, timeout when it was past its deadline.
    All calls come from one thread, but for `interrupt`.
    """

    def __init__(
        self,
        make_serve: Callable[[], Serve],
        deadline_s: float = REQUEST_DEADLINE_S,
        open_deadline_s: float = OPEN_DEADLINE_S,
        name: str = "the GPU",
    ) -> None:
        self._name = name
        self._make_serve = make_serve
        self._deadline_s = deadline_s
        self._open_deadline_s = open_deadline_s
        self._worker: Worker[Request | None, Answer] | None = None
        self._busy_before_s = 0.0  # of workers that are gone
        self._busy_here_s = 0.0
        self._interrupted = threading.Event()
        self.usage = Usage()

    def ask(self, request: Request) -> Value:
        """Have `request` done. Raises nothing for what a kernel does; see the class. Raises HktuneError for what no
        config is to blame for, a process that cannot be started among it, and KeyboardInterrupt once `interrupt` was
        called. A process that was ended from outside is replaced and asked once more."""
        answer = self._once(request)
        if isinstance(answer, WorkerDied) and answer.from_outside:
            answer = self._once(request)
        if isinstance(answer, WorkerDied):
            return Failure(Status.CRASHED, str(answer))
        return answer if isinstance(answer, Failure) else self._counted(answer)

    def _once(self, request: Request) -> Answer | Failure | WorkerDied:
        """The answer; or what came instead, of a worker that will be replaced."""
        self.check_interrupt()
        self._open()
        answer: Answer | Failure | WorkerDied
        try:
            answer = self._asked(request, self._deadline_s)
        except WorkerDied as died:
            self.check_interrupt()  # then it was closed, and no kernel is to blame
            answer = died
        if not isinstance(answer, Answer):
            self._replace_next_time()
        return answer

    def _counted(self, answer: Answer) -> Value:
        self._busy_here_s = answer.busy_s
        self.usage.busy_s = self._busy_before_s + self._busy_here_s
        if answer.lost:
            self._replace_next_time()
        assert answer.value is not None, "only the first question has no answer of its own"
        return answer.value

    def interrupt(self) -> None:
        """Let each caller, now or later, get KeyboardInterrupt: Ctrl-C itself reaches the main thread alone."""
        self._interrupted.set()

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if `interrupt` was called."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _open(self) -> None:
        if self._worker is not None:
            return
        said = ""
        for _ in range(OPEN_ATTEMPTS):
            self._worker = start_worker(self._make_serve, single_threaded=False)
            try:
                answer = self._asked(None, self._open_deadline_s)
            except (WorkerDied, DeviceError) as error:
                self.check_interrupt()
                said = str(error)
            else:
                if not isinstance(answer, Failure):
                    return
                said = answer.detail
            self.close()
        raise DeviceError(
            f"no process can use {self._name} ({OPEN_ATTEMPTS} times: {said}): repair what it printed, or choose GPUs "
            "with CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES"
        )

    def _asked(self, request: Request | None, deadline_s: float) -> Answer | Failure:
        """The answer, or the failure of one that did not come. Raises WorkerDied, and HktuneError as the worker did."""
        worker = self._worker
        assert worker is not None
        started_s, until = time.monotonic(), attended_s() + deadline_s
        worker.send(request)
        try:
            while not worker.heard(max(0.0, min(INTERRUPT_S, until - attended_s()))):
                self.check_interrupt()
                if attended_s() >= until:
                    return Failure(Status.TIMEOUT, f"no answer after {deadline_s:.0f} s; the worker was replaced")
            return worker.receive()
        except WorkerBroke as defect:
            return Failure(Status.CRASHED, f"in the worker: {defect}")
        finally:
            self.usage.asked_s += time.monotonic() - started_s

    def _replace_next_time(self) -> None:
        self.close()
        self._busy_before_s += self._busy_here_s
        self._busy_here_s = 0.0
        self.usage.workers_lost += 1


@dataclass
class ContainedStopwatch:
    """Stopwatch whose device may die. A config that cost a worker is quarantined: it is not run again.

    `quarantine` may start with what earlier runs found, and the stopwatches of several GPUs may share it.
    """

    worker: GpuWorker
    reproduce: Reproduce
    quarantine: dict[Candidate, Failure] = field(default_factory=dict)
    source: Source = Source.MEASURED

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """What the vendor's libraries name for `problem`, best first by their own estimate. Raises DeviceError where
        they cannot be asked."""
        answer = self.worker.ask(NameAlgorithms(problem))
        if isinstance(answer, Failure):
            raise DeviceError(f"the vendor's libraries name no algorithms for {problem}: {answer.detail}")
        assert isinstance(answer, tuple)
        return answer

    def prove(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
        """Prove what was compiled, or an algorithm on its `problem`."""
        if attempt.failure:
            return attempt
        answer = self._asked(Prove(attempt, problem), attempt.candidate, problem)
        assert isinstance(answer, (Attempt, Failure))
        return replace(attempt, failure=answer) if isinstance(answer, Failure) else answer

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        """See Stopwatch."""
        answer = self._asked(Screen(attempt, problem), attempt.candidate, problem)
        assert isinstance(answer, (Timing, Failure))
        return answer

    def _asked(self, request: Prove | Screen, candidate: Candidate, problem: Problem | None) -> Value:
        """The answer about one config, which is quarantined when that cost the worker, and asked about no more."""
        if candidate in self.quarantine:
            return self.quarantine[candidate]
        lost_before = self.worker.usage.workers_lost
        answer = self.worker.ask(request)
        if isinstance(answer, Failure) and self.worker.usage.workers_lost > lost_before:
            return self._quarantined(candidate, problem, answer)
        return answer

    def confirm(
        self, attempts: Sequence[Attempt], problem: Problem, others: Sequence[Side] = (), steady: bool = False
    ) -> Confirmation:
        """Finalists in the same rounds. When one of them costs the worker, each is tried alone, the culprits are
        quarantined, and the rest are measured again, together, from the start. Where none of them is to blame, that is
        without `others`."""
        sound = [attempt for attempt in attempts if attempt.candidate not in self.quarantine]
        asked = Confirm(tuple(sound), problem, tuple(others), steady)
        answer = self.worker.ask(asked) if sound else Confirmation((), {})
        if isinstance(answer, Failure):
            for attempt in sound:
                alone = self.worker.ask(Confirm((attempt,), problem))
                if isinstance(alone, Failure):
                    self._quarantined(attempt.candidate, problem, alone)
            if all(attempt.candidate not in self.quarantine for attempt in sound):
                if others:
                    return self.confirm(attempts, problem, steady=steady)
                return Confirmation(tuple(answer for _ in attempts), {})  # only together: nobody to blame
            return self.confirm(attempts, problem, others, steady)
        assert isinstance(answer, Confirmation)
        by_candidate = dict(zip((attempt.candidate for attempt in sound), answer.finalists, strict=True))
        outcomes: Mapping[Candidate, Timing | Failure] = {**self.quarantine, **by_candidate}
        return Confirmation(tuple(outcomes[attempt.candidate] for attempt in attempts), answer.rivals)

    def energies(self, attempts: Sequence[Attempt], problem: Problem, windows: int) -> Energies:
        """See EnergyStopwatch. Where that costs the worker nothing is known, and nobody is blamed: all of them were
        confirmed before."""
        sound = [attempt for attempt in attempts if attempt.candidate not in self.quarantine]
        answer = self.worker.ask(MeasureEnergy(tuple(sound), problem, windows))
        if isinstance(answer, Failure):
            return Energies(None, tuple(None for _ in attempts))
        assert isinstance(answer, Energies)
        found = dict(zip((attempt.candidate for attempt in sound), answer.attempts, strict=True))
        return Energies(answer.baseline, tuple(found.get(attempt.candidate) for attempt in attempts))

    def _quarantined(self, candidate: Candidate, problem: Problem | None, failure: Failure) -> Failure:
        detail = f"{failure.detail}; quarantined, reproduce: {self.reproduce(candidate, problem)}"
        self.quarantine[candidate] = Failure(failure.status, detail, quarantined=True)
        return self.quarantine[candidate]


class GpuExecutor:
    """Executor that compiles in parallel, as `compiling` does, and then proves on one GPU, one by one.

    `collect` raises KeyboardInterrupt once the GPU's worker was interrupted.
    """

    def __init__(self, compiling: Executor, stopwatch: ContainedStopwatch) -> None:
        self._compiling = compiling
        self._stopwatch = stopwatch
        self.capacity = compiling.capacity

    @property
    def notes(self) -> Sequence[str]:
        return self._compiling.notes

    @property
    def pending(self) -> int:
        return self._compiling.pending

    def submit(self, candidate: Candidate) -> None:
        self._compiling.submit(candidate)

    def collect(self, timeout_s: float) -> list[Attempt]:
        self._stopwatch.worker.check_interrupt()
        return [self._stopwatch.prove(attempt) for attempt in self._compiling.collect(timeout_s)]

    def close(self) -> None:
        self._compiling.close()
        self._stopwatch.worker.close()
