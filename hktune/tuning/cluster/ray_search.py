"""A search whose loops are where their GPUs are: an actor for each GPU of a Ray cluster, whose rows come here.

A loop costs its process some 2 ms of a processor for each trial, and its strategies 16 (benchmarks/several_gpus.py). A
driver that had the loops of a thousand GPUs would keep them all waiting.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError

from hktune.core.attended import attended_s
from hktune.core.errors import HktuneError, MachineError
from hktune.core.outcome import Stage
from hktune.core.trial import by_problem
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.cluster.ray_part import GpuFacts, Report, SentPart
from hktune.tuning.ledger import Ledger
from hktune.tuning.part import Part
from hktune.tuning.searching.loop import Listener
from hktune.tuning.searching.progress import Progress
from hktune.tuning.trial_rows import RowContext
from hktune.workers.executor import START_DEADLINE_S
from hktune.workers.gpu_worker import Usage, total_usage
from hktune.workers.ray_cluster import difference, last_line
from hktune.workers.ray_executor import LOSSES_MAX

_POLL_S = 0.5
"""What came in so long is heard and stored at once: asking Ray about a thousand GPUs costs as much as ten rows."""

_STOP_S = 20.0
"""So long after Ctrl-C parts may take to send what they have found: a kernel that is being timed is not waited for."""


@dataclass(frozen=True, eq=False)
class RemoteGpu:
    """An actor with a GPU, `number` among those of the run. `began` is what it says of itself, when it is there."""

    actor: Any
    number: int
    began: ray.ObjectRef[Any]


@dataclass(eq=False)
class _AtWork:
    """A part on a GPU, and what came of it last."""

    gpu: RemoteGpu
    part: Part
    listener: Listener
    said: Report = field(default_factory=Report)
    finishing: bool = False


class RemoteSearch:
    """The parts of a run on the GPUs of a cluster; see OpenBench for `usage` and `notes`.

    A part whose GPU is lost is given to another: one that Ray finds in its place, which `start` asks for, or one whose
    own part is done. It goes on from the rows that have come. So does a part whose GPU cannot be used; that GPU gets
    no other.
    """

    def __init__(self, gpus: Sequence[RemoteGpu], start: Callable[[int], RemoteGpu], facts: GpuFacts) -> None:
        self.facts = facts
        self.trouble: list[str] = []
        self._idle = list(gpus)
        self._start = start
        self._starting: dict[Any, RemoteGpu] = {}
        self._waiting: deque[Part] = deque()
        self._at_work: dict[Any, _AtWork] = {}
        self._ended_by: dict[int, HktuneError] = {}  # by a part's id
        self._losses: Counter[int] = Counter()
        self._usages: list[Usage] = []
        self._gpus_used: set[int] = set()
        self._lost = 0
        self._somebody_s = attended_s()

    @property
    def usage(self) -> Usage | None:
        """Of all GPUs together."""
        used = total_usage([*self._usages, *(each.said.usage for each in self._at_work.values())])
        return replace(used, gpus=len(self._gpus_used)) if used else None

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of the nodes."""
        if not self._lost:
            return ()
        return (f"{self._lost} GPUs were lost at work, and others went on with their shapes",)

    def run(
        self, parts: Sequence[Part], ledger: Ledger, context: RowContext, progress: Progress, callbacks: Callbacks
    ) -> list[HktuneError]:
        """Search `parts` to their ends, or until there is enough; what ended some of them. `ledger` gets the rows. On
        Ctrl-C those that were made are waited for, and KeyboardInterrupt passes through."""
        self._waiting.extend(parts)
        started_s = time.monotonic()
        try:
            while self._waiting or self._at_work:
                self._give(ledger, context, progress, time.monotonic() - started_s)
                self._hear(ledger, progress)
                self._require_somebody()
                if callbacks.enough:
                    self._finish()
        except KeyboardInterrupt:
            self._stop(ledger, progress)
            raise
        finally:
            self._close()
        return [error for part in parts if (error := self._ended_by.get(id(part))) is not None]

    def _give(self, ledger: Ledger, context: RowContext, progress: Progress, after_s: float) -> None:
        """Give idle GPUs the parts that wait."""
        if not self._waiting or not self._idle:
            return
        rows_of, quarantine = by_problem(ledger.rows()), ledger.quarantine()
        while self._waiting and self._idle:
            gpu, part = self._idle.pop(0), self._waiting.popleft()
            time_s = part.budget.time_s
            left = replace(part.budget, time_s=None if time_s is None else max(time_s - after_s, 0.0))
            rows = [row for problem in part.problems for row in rows_of.get(problem, [])]
            sent = SentPart(replace(part, budget=left), context, rows, quarantine)
            stream = gpu.actor.search.options(num_returns="streaming").remote(sent)
            self._at_work[stream] = _AtWork(gpu, part, progress.listener())
            self._gpus_used.add(gpu.number)

    def _hear(self, ledger: Ledger, progress: Progress) -> None:
        """Take in what is new of all GPUs within a moment, and store its rows at the price of one."""
        asked = [*self._at_work, *self._starting]
        if not asked:
            return
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_S)
        heard: list[tuple[_AtWork, Report]] = []
        for each in ready:
            if each in self._starting:
                self._begun(each)
            elif report := self._report(each):
                heard.append((self._at_work[each], report))
        ledger.adopt([row for _, report in heard for row in report.rows])
        for work, report in heard:
            self._show(work, report, progress)
        for each in ready:
            if each in self._at_work and self._at_work[each].said.ended:
                self._ended(each)

    def _report(self, stream: Any) -> Report | None:
        """What a part sent; None where its GPU is lost."""
        try:
            report: Report = ray.get(next(stream))
        except (RayError, StopIteration) as error:
            work = self._at_work.pop(stream)
            self._lost += 1
            self._usages.append(replace(work.said.usage, workers_lost=work.said.usage.workers_lost + 1))
            work.listener.working(0)
            ray.kill(work.gpu.actor)
            self._start_another(work.gpu.number)
            what = f"a GPU or its node was lost, and so were those that went on ({last_line(error)})"
            self._again(work.part, MachineError(f"{what}: start nodes, and run again"))
            return None
        return report

    def _show(self, work: _AtWork, report: Report, progress: Progress) -> None:
        before, work.said = work.said, report
        work.listener.working(report.variants)
        for row in report.rows:
            if row.stage is Stage.SCREENED:
                work.listener.recorded(row)
        if report.phase:
            progress.phase(report.phase)
        if not self._losses[id(work.part)]:
            progress.skipped(report.skipped - before.skipped)

    def _ended(self, stream: Any) -> None:
        """A part has come to its end, or to what its GPU cannot go on with."""
        work = self._at_work.pop(stream)
        self._usages.append(work.said.usage)
        work.listener.working(0)
        self.trouble.extend(work.said.trouble)
        if work.said.error is None:
            self._ended_by.pop(id(work.part), None)
            self._idle.append(work.gpu)
            return
        ray.kill(work.gpu.actor)
        self._again(work.part, work.said.error)

    def _again(self, part: Part, error: HktuneError) -> None:
        """Let another GPU go on with `part`, unless `error` ended it too often."""
        self._losses[id(part)] += 1
        self._ended_by[id(part)] = error
        if self._losses[id(part)] < LOSSES_MAX:
            self._waiting.append(part)

    def _start_another(self, number: int) -> None:
        gpu = self._start(number)
        self._starting[gpu.began] = gpu

    def _begun(self, ref: Any) -> None:
        """A GPU that was asked for is there, or will not be."""
        gpu = self._starting.pop(ref)
        try:
            said = ray.get(ref)
        except RayError:
            self._start_another(gpu.number)
            return
        if isinstance(said, HktuneError) or difference(said.facts, self.facts.facts):
            ray.kill(gpu.actor)  # unlike the others: what it measured would be of another table
        else:
            self._idle.append(gpu)

    def _require_somebody(self) -> None:
        """Give up what waits where no GPU is left, or none comes."""
        if self._at_work or self._idle:
            self._somebody_s = attended_s()
        elif not self._starting or attended_s() > self._somebody_s + START_DEADLINE_S:
            gone = MachineError("no GPU of the cluster is left (ray status): start nodes, and run again")
            for part in self._waiting:
                self._ended_by.setdefault(id(part), gone)
            self._waiting.clear()

    def _finish(self) -> None:
        """Let all parts ask for no more; what has not been begun is not begun."""
        self._waiting.clear()
        for work in self._at_work.values():
            if not work.finishing:
                work.gpu.actor.finish.remote()
                work.finishing = True

    def _stop(self, ledger: Ledger, progress: Progress) -> None:
        """End all parts, and store what they have found."""
        self._waiting.clear()
        for work in self._at_work.values():
            work.gpu.actor.interrupt.remote()
        until = time.monotonic() + _STOP_S
        while self._at_work and time.monotonic() < until:
            self._hear(ledger, progress)

    def _close(self) -> None:
        for gpu in [*self._idle, *self._starting.values(), *(work.gpu for work in self._at_work.values())]:
            ray.kill(gpu.actor)
