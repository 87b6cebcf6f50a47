"""What a person sees while a run goes on: what it does, done and left, best so far, failures."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table

from hktune.core.escaped import escaped
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.report.heartbeat import heartbeat
from hktune.tuning.searching.loop import Listener


class RunProgress:
    """What a run and its tuners do, heard through `phase` and through a `listener` each. On a terminal a live bar;
    elsewhere (a log file, CI) one line every few seconds, from the first moment to the last."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._names: Mapping[Problem, str] = {}
        self._phase = "setting up"
        self._started = time.monotonic()
        self._best: dict[Problem, Trial] = {}
        self._statuses: Counter[Status] = Counter()
        self._algorithms = 0
        self._latest = ""
        self._listeners: list[_Listener] = []
        self._lock = threading.Lock()
        self._progress = Progress(console=console)  # counts, and guesses the time that is left; never shown itself
        self._task = self._progress.add_task("tuning", total=None)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
        self._open = ExitStack()

    def __enter__(self) -> RunProgress:
        self._open.enter_context(self.shown())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block, how far the run is can be seen."""
        with heartbeat(self._console, self.line), self._live if self._console.is_terminal else nullcontext():
            yield

    def expect(self, names: Mapping[Problem, str], total: int) -> None:
        """What is tuned, each problem with its name in the shapes file, and the most trials that can be recorded."""
        self._names = names
        self._progress.update(self._task, total=total)

    def phase(self, what: str) -> None:
        """What the run does now, in a few words."""
        self._phase = what

    def listener(self) -> Listener:
        """For one more tuner, in whichever thread it runs."""
        self._listeners.append(_Listener(self))
        return self._listeners[-1]

    def recorded(self, trial: Trial) -> None:
        """Count one trial."""
        with self._lock:
            self._count(trial)

    def _count(self, trial: Trial) -> None:
        self._statuses[trial.status] += 1
        if trial.is_kernel:
            self._progress.advance(self._task)
        else:  # how many the library will name is not known before
            self._algorithms += 1
        if trial.time_us is None or trial.left_early:
            return
        best = self._best.get(trial.problem)
        if best is None or best.time_us is None or trial.time_us < best.time_us:
            self._best[trial.problem] = trial
            self._latest = f"{escaped(self._names[trial.problem])} {trial.time_us:.1f} us {trial.source}"

    def skipped(self, trials: int) -> None:
        """Count trials of an earlier run as done, at no speed."""
        task = self._progress.tasks[0]
        self._progress.reset(self._task, total=task.total, completed=int(task.completed) + trials)

    @property
    def share(self) -> float | None:
        """How much of all that can be recorded is done, from 0 to 1; None before that is known."""
        task = self._progress.tasks[0]
        return None if not task.total else min(task.completed / task.total, 1.0)

    def line(self) -> str:
        """How far the run is."""
        return "; ".join([self._done(), *([f"newest best {self._latest}"] if self._latest else []), *self._failures()])

    def _done(self) -> str:
        elapsed_s = time.monotonic() - self._started
        task = self._progress.tasks[0]
        if task.total is None:
            return f"{self._phase}, {elapsed_s:.0f} s so far"
        counts = [f"{task.completed:.0f}/{task.total:.0f} trials"] if task.total else []
        counts += [f"{self._algorithms} of the vendor's algorithms"] if self._algorithms else []
        left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
        return f"{self._phase}: {', '.join([*counts, f'{elapsed_s:.0f} s'])}{left}"

    def _failures(self) -> list[str]:
        failed = {status: count for status, count in self._statuses.items() if status is not Status.OK}
        counts = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        return [f"failed: {counts}"] if counts else []

    def _render(self) -> Table:
        task = self._progress.tasks[0]
        variants = sum(listener.variants for listener in self._listeners)
        lines = [self._done() + (f", {variants} variants at work" if variants else "")]
        lines += [f"newest best {self._latest}"] if self._latest else []
        grid = Table.grid()
        grid.add_row(ProgressBar(task.total, task.completed, width=min(self._console.width, 60)))
        grid.add_row("\n".join([*lines, *self._failures()]))
        return grid


class _Listener:
    """One tuner's; see Listener."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self.variants = 0

    def working(self, variants: int) -> None:
        self.variants = variants

    def recorded(self, trial: Trial) -> None:
        self._progress.recorded(trial)
