"""An executor over the nodes of a Ray cluster: an actor for each worker, which has its worker process beside it.

What a config does to a worker is judged where the worker is, by the LocalExecutor of its actor: no kernel and no
compiler runs in the actor itself. So an actor that is lost was lost with its node, and no config is to blame.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from hktune.core.attended import attended_s
from hktune.core.candidate import Candidate
from hktune.core.errors import HktuneError, MachineError
from hktune.measure.stopwatch import Attempt
from hktune.workers.executor import FAILED_STARTS_MAX, START_DEADLINE_S, Limits, LocalExecutor, Prove
from hktune.workers.ray_cluster import Describe, Facts, difference, last_line, live_nodes

LOSSES_MAX = 3
"""So often a candidate may be in hand where an actor is lost before the run stops: it may be what costs the nodes."""

_POLL_S = 60.0
"""An actor waits so long at a time for its worker: whatever it waits for comes sooner."""


class Cargo(Protocol):
    """What comes with an attempt from the node where it was made."""

    def load(self, attempt: Attempt) -> object:
        """What to send, on that node; None for nothing. Raises HktuneError for what no candidate is to blame for."""
        ...

    def unload(self, attempt: Attempt, sent: object) -> None:
        """Put `sent` where it is needed here."""


class NoCargo:
    """The attempt is all."""

    def load(self, attempt: Attempt) -> None:
        del attempt

    def unload(self, attempt: Attempt, sent: object) -> None:
        del attempt, sent


class WorkerActor:
    """One worker process on the node that Ray placed this on, and what the node says of itself."""

    def __init__(
        self,
        make_prove: Callable[[], Prove],
        deadline_s: float,
        limits: Limits,
        workers: int,
        describe: Describe,
        cargo: Cargo,
    ) -> None:
        self._describe, self._cargo = describe, cargo
        self._executor = LocalExecutor(make_prove, 1, deadline_s, limits.memory_of_each(workers))

    def begin(self) -> Facts | HktuneError:
        """Say that it is there, and on what."""
        try:
            return self._describe()
        except HktuneError as error:
            return error

    def prove(self, candidate: Candidate) -> tuple[Attempt, object] | HktuneError:
        """Apply the worker to `candidate`: the attempt, and what comes with it. The error is what no candidate is to
        blame for."""
        try:
            self._executor.submit(candidate)
            while not (found := self._executor.collect(_POLL_S)):
                continue
            return found[0], self._cargo.load(found[0])
        except HktuneError as error:
            return error


@dataclass
class _Seat:
    """An actor, what it was asked last, and the candidate that it has. `ready`: it has begun, and may have one."""

    actor: Any
    asked: ray.ObjectRef[Any] | None
    candidate: Candidate | None = None
    ready: bool = False


class RayExecutor:
    """Executor over a cluster, one CPU of it for each worker; see LocalExecutor for the rest. `describe` is called on
    each node that a worker is placed on, and must say what `expected` does.

    `cargo` comes with each attempt; `spread` has the workers on as many nodes as there are.

    A candidate whose actor was lost is given to another, and Ray places a new actor where there is room. Until there
    is, the others do the work. `lost` counts the actors that were lost with a candidate in hand.
    """

    def __init__(
        self,
        make_prove: Callable[[], Prove],
        workers: int,
        deadline_s: float,
        limits: Limits,
        describe: Describe = dict,
        expected: Facts | None = None,
        cargo: Cargo | None = None,
        spread: bool = True,
    ) -> None:
        self.capacity = workers
        self._cargo = cargo or NoCargo()
        self._strategy = "SPREAD" if spread else "DEFAULT"  # Ray's own keeps away from GPUs where there are others
        self.lost = 0
        self._expected = expected or {}
        self._made_with = (make_prove, deadline_s, limits, _workers_of_a_node(workers), describe, self._cargo)
        self._waiting: deque[Candidate] = deque()
        self._losses: Counter[Candidate] = Counter()
        self._failed_starts = 0
        self._unready_since_s = attended_s()
        self._seats = [self._seat() for _ in range(workers)]

    @property
    def notes(self) -> Sequence[str]:
        if not self.lost:
            return ()
        return (f"{self.lost} trials were in flight where a node was lost, and were tried again elsewhere",)

    @property
    def pending(self) -> int:
        return len(self._waiting) + sum(seat.candidate is not None for seat in self._seats)

    def submit(self, candidate: Candidate) -> None:
        self._waiting.append(candidate)
        self._hand_out()

    def collect(self, timeout_s: float) -> list[Attempt]:
        if not self.pending:
            return []
        asked = {seat.asked: seat for seat in self._seats if seat.asked is not None}
        done, _ = ray.wait(list(asked), num_returns=1, timeout=timeout_s)
        if done:
            done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        attempts = [attempt for ref in done if (attempt := self._answered(asked[ref], ref)) is not None]
        self._hand_out()
        self._require_somebody()
        return attempts

    def close(self) -> None:
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats.clear()

    def _seat(self) -> _Seat:
        placed = ray.remote(WorkerActor).options(num_cpus=1, scheduling_strategy=self._strategy)
        actor: Any = placed.remote(*self._made_with)
        return _Seat(actor, actor.begin.remote())

    def _hand_out(self) -> None:
        """Give what is waiting to those that are ready and have nothing."""
        for seat in self._seats:
            if not self._waiting:
                return
            if seat.ready and seat.candidate is None:
                seat.candidate = self._waiting.popleft()
                seat.asked = seat.actor.prove.remote(seat.candidate)

    def _answered(self, seat: _Seat, asked: ray.ObjectRef[Any]) -> Attempt | None:
        """What the actor has to say: an attempt, or that it is there. Raises HktuneError as it did."""
        try:
            said = ray.get(asked)
        except RayError as error:
            self._replace(seat, error)
            return None
        seat.asked = None
        if isinstance(said, HktuneError):
            raise said
        if isinstance(said, tuple):
            seat.candidate = None
            attempt: Attempt = said[0]
            self._cargo.unload(attempt, said[1])
            return attempt
        if unlike := difference(said, self._expected):
            raise MachineError(f"a node that joined the cluster is unlike the others ({unlike}): end Ray there")
        seat.ready, self._failed_starts = True, 0
        return None

    def _replace(self, seat: _Seat, error: RayError) -> None:
        """A new actor for one that is lost; its candidate is the next that is given out."""
        candidate, began = seat.candidate, seat.ready
        ray.kill(seat.actor)
        self._failed_starts += not began
        if self._failed_starts == FAILED_STARTS_MAX:
            rule = f"{FAILED_STARTS_MAX} actors in a row were lost before they had begun ({last_line(error)})"
            raise MachineError(f"{rule}: see Ray's logs of the nodes")
        if candidate is not None:
            self.lost += 1
            self._losses[candidate] += 1
            self._waiting.appendleft(candidate)
            if self._losses[candidate] == LOSSES_MAX:
                rule = f"{LOSSES_MAX} nodes or their actors were lost, each with {candidate.id} in hand"
                raise MachineError(f"{rule} ({last_line(error)}): see Ray's logs of the nodes")
        fresh = self._seat()
        seat.actor, seat.asked, seat.candidate, seat.ready = fresh.actor, fresh.asked, None, False

    def _require_somebody(self) -> None:
        """Raises MachineError where no actor has been there for long."""
        if any(seat.ready for seat in self._seats):
            self._unready_since_s = attended_s()
        elif attended_s() > self._unready_since_s + START_DEADLINE_S:
            rule = f"no node of the cluster had a CPU to give for {START_DEADLINE_S:.0f} s"
            raise MachineError(f"{rule}: end what else uses it (ray status), or use fewer --workers")


def _workers_of_a_node(workers: int) -> int:
    """At most so many of `workers` share a node's memory."""
    return max(1, min(workers, max((node.cpus for node in live_nodes()), default=1)))
