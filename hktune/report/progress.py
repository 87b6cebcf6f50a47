"""What a person sees while a run goes on: done and left, best so far, failures, what is being worked on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hktune.model import Problem, Status, Trial
from hktune.tuner import Listener

PLAIN_LINE_EVERY_S = 10.0


class RunProgress:
    """What the tuners of a run do, told through a `listener` each. On a terminal a live bar; elsewhere (a log file, CI)
    one line every few seconds.

    `names` gives each problem its name in the shapes file; `total` is the most trials the run can record.
    """

    def __init__(self, console: Console, names: Mapping[Problem, str], total: int) -> None:
        self._console = console
        self._names = names
        self._best: dict[Problem, Trial] = {}
        self._statuses: Counter[Status] = Counter()
        self._latest = ""
        self._listeners: list[_Listener] = []
        self._lock = threading.Lock()
        self._plain_due = time.monotonic() + PLAIN_LINE_EVERY_S
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self._task = self._progress.add_task("tuning", total=total)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def listener(self) -> Listener:
        """For one more tuner, in whichever thread it runs."""
        self._listeners.append(_Listener(self))
        return self._listeners[-1]

    def tick(self) -> None:
        """Print a line if it is time for one."""
        with self._lock:
            if not self._console.is_terminal and time.monotonic() >= self._plain_due:
                self._plain_due = time.monotonic() + PLAIN_LINE_EVERY_S
                self._console.print(self._plain_line(), soft_wrap=True, highlight=False)

    def recorded(self, trial: Trial) -> None:
        """Count one trial."""
        with self._lock:
            self._count(trial)

    def _count(self, trial: Trial) -> None:
        self._statuses[trial.status] += 1
        self._progress.advance(self._task)
        if trial.time_us is None:
            return
        best = self._best.get(trial.problem)
        if best is None or best.time_us is None or trial.time_us < best.time_us:
            self._best[trial.problem] = trial
            self._latest = (
                f"{self._names[trial.problem]}: {trial.time_us:.1f} us {trial.source} ({trial.tflops:.0f} TFLOP/s)"
            )

    def skipped(self, trials: int) -> None:
        """Count trials of an earlier run as done."""
        self._progress.advance(self._task, trials)

    def _failures(self) -> str:
        failed = {status: count for status, count in self._statuses.items() if status is not Status.OK}
        return ", ".join(f"{count} {status}" for status, count in sorted(failed.items())) or "none"

    def _plain_line(self) -> str:
        task = self._progress.tasks[0]
        left = f"{task.time_remaining:.0f} s left" if task.time_remaining is not None else "time left unknown"
        return (
            f"{task.completed:.0f}/{task.total:.0f} trials, {left}; best of {len(self._best)} shapes, "
            f"newest {self._latest or 'none yet'}; failures: {self._failures()}"
        )

    def _render(self) -> Group:
        lines = (
            f"compiling and proving {sum(listener.variants for listener in self._listeners)} variants",
            f"newest best   {self._latest or 'none yet'}",
            f"failures      {self._failures()}",
        )
        return Group(self._progress, "\n".join(lines))


class _Listener:
    """One tuner's; see Listener."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self.variants = 0

    def working(self, variants: int) -> None:
        self.variants = variants
        self._progress.tick()

    def recorded(self, trial: Trial) -> None:
        self._progress.recorded(trial)
