"""GPU work in a process of its own: a kernel that hangs, faults or kills it costs one config, and the process.

A fault leaves the whole process unable to use the GPU, and a kernel that does not end cannot be stopped but by ending
its process. So whoever drives the search never touches the GPU itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hktune.measure.measured import Confirmation
from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Problem, Source, Status, Timing
from hktune.workers import Executor, Worker, start_worker, stop_worker

OPEN_DEADLINE_S = 180.0
"""For a worker's first words: it imports torch, makes a context and fills the arena."""

QUARANTINED = "quarantined, reproduce: "
"""How a failure's detail goes on that cost a worker; what follows is a command."""

REQUEST_DEADLINE_S = 30.0
"""For one proof or one comparison."""


@dataclass(frozen=True)
class Prove:
    """Prove a compiled config; answered by an Attempt."""

    attempt: Attempt


@dataclass(frozen=True)
class Screen:
    """Time one candidate; answered by Timing or Failure."""

    attempt: Attempt
    problem: Problem


@dataclass(frozen=True)
class Confirm:
    """Time finalists together; answered by a Confirmation."""

    attempts: tuple[Attempt, ...]
    problem: Problem


Request = Prove | Screen | Confirm


@dataclass(frozen=True)
class Answer:
    """What a worker sends back. `lost` says that the device faulted: the worker ends after it. `busy_s` is the device
    time of all rounds that the worker has timed."""

    value: Attempt | Timing | Failure | Confirmation | None
    busy_s: float = 0.0
    lost: bool = False


Serve = Callable[[Request | None], Answer]
"""What runs in the worker. None asks only whether it is there."""


class Reproduce(Protocol):
    """The command line that shows a config's failure again."""

    def __call__(self, config: Config, problem: Problem | None) -> str: ...


@dataclass
class Usage:
    """What of the GPU a run took: seconds in timed rounds, seconds that workers were asked for, workers lost."""

    busy_s: float = 0.0
    asked_s: float = 0.0
    workers_lost: int = 0


class GpuWorker:
    """One process with one GPU, replaced whenever it is lost.

    `make_serve` is called once in each process and must be picklable. `ask` answers with what the worker said, or with
    a Failure in its place: crashed when the process died or the device faulted, timeout when it was past its deadline.
    """

    def __init__(
        self,
        make_serve: Callable[[], Serve],
        deadline_s: float = REQUEST_DEADLINE_S,
        open_deadline_s: float = OPEN_DEADLINE_S,
    ) -> None:
        self._make_serve = make_serve
        self._deadline_s = deadline_s
        self._open_deadline_s = open_deadline_s
        self._worker: Worker | None = None
        self._busy_before_s = 0.0  # of workers that are gone
        self._busy_here_s = 0.0
        self.usage = Usage()

    def ask(self, request: Request) -> Attempt | Timing | Failure | Confirmation:
        """Have `request` done. Raises nothing for what a kernel does; see the class."""
        answer = self._open()
        if not isinstance(answer, Failure):
            answer = self._asked(request, self._deadline_s)
        if isinstance(answer, Failure):
            self._replace_next_time()
            return answer
        self._busy_here_s = answer.busy_s
        self.usage.busy_s = self._busy_before_s + self._busy_here_s
        if answer.lost:
            self._replace_next_time()
        assert answer.value is not None, "only the first question has no answer of its own"
        return answer.value

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            stop_worker(self._worker)
            self._worker = None

    def _open(self) -> Answer | Failure:
        if self._worker is not None:
            return Answer(None, self._busy_here_s)
        self._worker = start_worker(self._make_serve, single_threaded=False)
        return self._asked(None, self._open_deadline_s)

    def _asked(self, request: Request | None, deadline_s: float) -> Answer | Failure:
        worker = self._worker
        assert worker is not None
        answer: Answer | Failure
        started_s = time.monotonic()
        try:
            worker.pipe.send(request)
            if worker.pipe.poll(deadline_s):
                answer = worker.pipe.recv()
            else:
                answer = Failure(Status.TIMEOUT, f"no answer after {deadline_s:.0f} s; the worker was replaced")
        except (EOFError, OSError):
            worker.process.join(timeout=5)
            answer = Failure(Status.CRASHED, f"the worker died with exit code {worker.process.exitcode}")
        self.usage.asked_s += time.monotonic() - started_s
        return answer

    def _replace_next_time(self) -> None:
        self.close()
        self._busy_before_s += self._busy_here_s
        self._busy_here_s = 0.0
        self.usage.workers_lost += 1


@dataclass
class ContainedStopwatch:
    """Stopwatch whose device may die. A config that cost a worker is quarantined: it is not run again.

    `quarantine` may start with what earlier runs found.
    """

    worker: GpuWorker
    reproduce: Reproduce
    quarantine: dict[str, Failure] = field(default_factory=dict)
    source: Source = Source.MEASURED

    def prove(self, attempt: Attempt) -> Attempt:
        """Prove what was compiled."""
        if attempt.failure:
            return attempt
        if attempt.config.id in self.quarantine:
            return replace(attempt, failure=self.quarantine[attempt.config.id])
        lost_before = self.worker.usage.workers_lost
        answer = self.worker.ask(Prove(attempt))
        assert isinstance(answer, (Attempt, Failure))
        failure = answer if isinstance(answer, Failure) else answer.failure
        if failure and self.worker.usage.workers_lost > lost_before:
            return replace(attempt, failure=self._quarantined(attempt.config, None, failure))
        return replace(attempt, failure=answer) if isinstance(answer, Failure) else answer

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        """See Stopwatch."""
        if attempt.config.id in self.quarantine:
            return self.quarantine[attempt.config.id]
        lost_before = self.worker.usage.workers_lost
        answer = self.worker.ask(Screen(attempt, problem))
        assert isinstance(answer, (Timing, Failure))
        if isinstance(answer, Failure) and self.worker.usage.workers_lost > lost_before:
            return self._quarantined(attempt.config, problem, answer)
        return answer

    def confirm(self, attempts: Sequence[Attempt], problem: Problem) -> Confirmation:
        """Finalists in the same rounds. When one of them costs the worker, each is tried alone, the culprits are
        quarantined, and the others are measured again, together, from the start."""
        sound = [attempt for attempt in attempts if attempt.config.id not in self.quarantine]
        answer = self.worker.ask(Confirm(tuple(sound), problem)) if sound else Confirmation((), {})
        if isinstance(answer, Failure):
            for attempt in sound:
                alone = self.worker.ask(Confirm((attempt,), problem))
                if isinstance(alone, Failure):
                    self._quarantined(attempt.config, problem, alone)
            if all(attempt.config.id not in self.quarantine for attempt in sound):
                return Confirmation(tuple(answer for _ in attempts), {})  # only together: nobody to blame
            return self.confirm(attempts, problem)
        assert isinstance(answer, Confirmation)
        by_config = dict(zip((attempt.config.id for attempt in sound), answer.finalists, strict=True))
        outcomes: Mapping[str, Timing | Failure] = {**self.quarantine, **by_config}
        return Confirmation(tuple(outcomes[attempt.config.id] for attempt in attempts), answer.rivals)

    def _quarantined(self, config: Config, problem: Problem | None, failure: Failure) -> Failure:
        detail = f"{failure.detail}; {QUARANTINED}{self.reproduce(config, problem)}"
        self.quarantine[config.id] = Failure(failure.status, detail)
        return self.quarantine[config.id]


class GpuExecutor:
    """Executor that compiles in parallel, as `compiling` does, and then proves on the one GPU, one by one."""

    def __init__(self, compiling: Executor, stopwatch: ContainedStopwatch) -> None:
        self._compiling = compiling
        self._stopwatch = stopwatch
        self.capacity = compiling.capacity

    @property
    def pending(self) -> int:
        return self._compiling.pending

    def submit(self, config: Config) -> None:
        self._compiling.submit(config)

    def collect(self, timeout_s: float) -> list[Attempt]:
        return [self._stopwatch.prove(attempt) for attempt in self._compiling.collect(timeout_s)]

    def close(self) -> None:
        self._compiling.close()
        self._stopwatch.worker.close()
