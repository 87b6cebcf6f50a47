"""One part of a run on a node of a Ray cluster: its loop beside its GPU, and its rows as they are made."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import ray

from hktune.core.candidate import Candidate
from hktune.core.errors import HktuneError
from hktune.core.identity import Identity
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.publish import scratch_folder
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.core.trial import Trial
from hktune.store import TrialStore
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.cluster.ray_benches import OnNode, facts_of
from hktune.tuning.ledger import Ledger, SharedDirectory
from hktune.tuning.part import Part, search_part
from hktune.tuning.searching.loop import Listener
from hktune.tuning.trial_rows import RowContext
from hktune.workers.gpu_worker import Usage
from hktune.workers.ray_cluster import Facts

REPORT_S = 1.0
"""So often a part sends what is new. A lost node costs no more rows, and the driver of many GPUs hears of several at
once."""


@dataclass(frozen=True)
class GpuFacts:
    """A GPU of a node, which Ray calls `node`, and what decides what is measured on it."""

    node: str
    identity: Identity
    facts: Facts


@dataclass(frozen=True)
class Report:
    """What is new of a part: its rows, how many candidates are at work, what it does, trials of before. `ended`: it is
    the last, and `error` is what ended it. `usage` is of its GPU since the part began."""

    rows: list[Trial] = field(default_factory=list)
    variants: int = 0
    phase: str = ""
    skipped: int = 0
    usage: Usage = field(default_factory=Usage)
    trouble: tuple[str, ...] = ()
    ended: bool = False
    error: HktuneError | None = None


@dataclass(frozen=True)
class SentPart:
    """A part, and what is known of its problems: the rows of before, and what is not run again."""

    part: Part
    context: RowContext
    rows: Sequence[Trial]
    quarantine: Mapping[Candidate, Failure]


class GpuActor:
    """A GPU of a node, number `number` of the run. Kernels run in a process of its own, as on one machine."""

    def __init__(self, bench: OnNode[GpuBench], number: int) -> None:
        self._bench, self._number = bench, number
        self._enough = threading.Event()
        self._here: _PartHere | None = None

    def begin(self) -> GpuFacts | HktuneError:
        """Say that it is there, and which GPU it has."""
        try:
            bench = self._bench.there()
            return GpuFacts(ray.get_runtime_context().get_node_id(), bench.identity, facts_of(bench))
        except HktuneError as error:
            return error

    def search(self, sent: SentPart) -> Iterator[Report]:
        """Search a part to its end, and say what is new as it goes."""
        with scratch_folder() as folder:
            self._here = _PartHere(sent, self._bench.there(), folder, self._enough)
            for report in self._here.reports():
                yield replace(report, rows=[replace(row, gpu=self._number) for row in report.rows])

    def finish(self) -> None:
        """Let the search ask for no more, and measure the best of what it has."""
        self._enough.set()

    def interrupt(self) -> None:
        """Let the search end soon, with what it has."""
        if self._here is not None:
            self._here.interrupt()


class _PartHere:
    """A part at work in a thread. Its rows go to a file in `folder`, from which they are sent; see Progress and
    Listener, which it is."""

    def __init__(self, sent: SentPart, bench: GpuBench, folder: Path, enough: threading.Event) -> None:
        rivals = [replace(each, spaces=tuple(SPACES / path.name for path in each.spaces)) for each in sent.part.rivals]
        self._part = replace(sent.part, rivals=rivals, settings=Settings.from_environment(os.environ))
        self._bench, self._folder, self._enough = bench, folder, enough
        TrialStore(folder).extend(sent.rows)
        self._ledger = Ledger(folder, sent.context, fresh=False)
        self._quarantine = dict(sent.quarantine)
        self._seen = len(sent.rows)
        self._phase, self._variants, self._skipped = "", 0, 0
        self._trouble: list[str] = []
        self._work: OpenBench | None = None
        self._interrupted = threading.Event()
        self._error: HktuneError | None = None
        self._defect: BaseException | None = None

    def reports(self) -> Iterator[Report]:
        """What is new, until the part has ended. Raises what hktune does not raise on purpose."""
        thread = threading.Thread(target=self._search, name="part")
        thread.start()
        said = ""
        while True:
            thread.join(REPORT_S)
            ended = not thread.is_alive()
            if self._defect is not None:
                raise self._defect
            report = self._report(ended)
            if report.rows or ended or report.phase != said:
                yield report
            if ended:
                return
            said = report.phase

    def interrupt(self) -> None:
        self._interrupted.set()
        if self._work is not None:
            self._work.interrupt()

    def _report(self, ended: bool) -> Report:
        rows, self._seen = self._ledger.news(self._seen)
        usage = self._work.usage if self._work else None
        return Report(
            rows=rows,
            variants=self._variants,
            phase=self._phase,
            skipped=self._skipped,
            usage=replace(usage) if usage else Usage(),
            trouble=tuple(self._trouble),
            ended=ended,
            error=self._error,
        )

    def _search(self) -> None:
        try:
            with closing(self._bench.open(self._part.problems, self._quarantine)) as work:
                self._work = work
                if self._interrupted.is_set():
                    return
                with closing(SharedDirectory(self._folder, self._ledger, self._part.problems)) as shared:
                    search_part(self._part, work, self._ledger, shared, self, self._trouble, self._enough.is_set)
        except KeyboardInterrupt:
            return
        except HktuneError as error:
            self._error = error
        except BaseException as defect:
            self._defect = defect

    def phase(self, what: str) -> None:
        self._phase = what

    def expect(self, names: Mapping[Problem, str], total: int) -> None:
        del names, total

    def skipped(self, trials: int) -> None:
        self._skipped += trials

    def listener(self) -> Listener:
        return self

    def working(self, variants: int) -> None:
        self._variants = variants

    def recorded(self, trial: Trial) -> None:
        """Its row is in the file."""
