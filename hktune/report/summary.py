"""What a person reads when a run is over: the best of every shape, what failed and why, where everything lies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hktune.confirm import deciding
from hktune.contained import Usage
from hktune.model import Problem, Source, Status, Trial


@dataclass(frozen=True)
class RunSummary:
    """A finished, interrupted or stopped run. `trials` are all rows of its directory, `names` the shapes asked for, and
    `stopped` says why it, or a part of it, could not go on; `notes` what else was noticed.

    Seconds are wall clock; `variants` counts the distinct configs that were compiled and proved by this run.
    """

    names: Mapping[Problem, str]
    trials: Sequence[Trial]
    directory: Path
    elapsed_s: float
    variants: int
    interrupted: bool
    stopped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usage: Usage | None = None

    @property
    def best(self) -> dict[Problem, Trial]:
        """The fastest proved trial of each shape that has one, of those that decide (`confirm.deciding`)."""
        best: dict[Problem, Trial] = {}
        for trial in deciding(self.trials):
            if trial.time_us is not None and trial.time_us < _time_us(best.get(trial.problem)):
                best[trial.problem] = trial
        return best

    @property
    def without_kernel(self) -> list[Problem]:
        """Shapes asked for that no proved kernel serves: they take the vendor path."""
        best = self.best
        return [problem for problem in self.names if problem not in best]


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print the closing summary of a run."""
    best = summary.best
    console.print(_best_table(summary, best))
    for config_id, config in sorted({(trial.config_id, trial.config) for trial in best.values()}):
        _line(console, f"{config_id[:8]}  {brief(config)}")
    failures = Counter(trial.status for trial in summary.trials if trial.status is not Status.OK)
    for status, count in sorted(failures.items()):
        example = next(trial.detail for trial in summary.trials if trial.status is status)
        _line(console, f"{count} trials {status}, for example: {example}")
    for problem in summary.without_kernel:
        reason = next((trial.detail for trial in summary.trials if trial.problem == problem), "nothing tried yet")
        _line(console, f"no kernel for {summary.names[problem]} ({problem}), it takes the vendor path: {reason}")
    ended = "interrupted" if summary.interrupted else "stopped" if summary.stopped else None
    word = f"{ended}, everything so far is kept; run the same command to go on" if ended else "done"
    _line(
        console,
        f"{word}: {len(summary.trials)} trials of {len(summary.names)} shapes; "
        f"{summary.variants} new variants compiled and proved in {summary.elapsed_s:.0f} s",
    )
    if summary.usage:
        used = summary.usage
        gpus = "GPU" if used.gpus == 1 else f"{used.gpus} GPUs together"
        _line(
            console,
            f"{gpus}: {used.busy_s:.1f} s in timed rounds, {used.asked_s:.1f} s in all with proofs and captures; "
            f"{used.workers_lost} workers lost",
        )
    _line(console, f"trials, table and code objects are in {summary.directory}")
    _line(console, f"next: hktune table show {summary.directory}")


def brief(config: str) -> str:
    """A config's JSON as words."""
    return " ".join(f"{name}={value}" for name, value in json.loads(config).items())


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _best_table(summary: RunSummary, best: Mapping[Problem, Trial]) -> Table:
    sources = sorted({str(trial.source) for trial in best.values()})
    title = f"best kernel per shape ({' and '.join(sources) or 'none'} time)"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("shape", no_wrap=True)
    table.add_column("m x n x k", no_wrap=True)
    for column in ("time us", "TFLOP/s", "vs vendor", "tried", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("config", "limit"):
        table.add_column(column, no_wrap=True)
    for problem, name in summary.names.items():
        rows = [trial for trial in summary.trials if trial.problem == problem]
        counts = (str(len(rows)), str(sum(trial.status is not Status.OK for trial in rows)))
        size = f"{problem.m} x {problem.n} x {problem.k}"
        if problem in best:
            trial = best[problem]
            ratio = f"{trial.baseline_us / trial.time_us:.3f}" if trial.baseline_us and trial.time_us else "-"
            times = (f"{trial.time_us:.1f}", f"{trial.tflops:.0f}", ratio)
            table.add_row(name, size, *times, *counts, trial.config_id[:8], _limit(trial))
        else:
            table.add_row(name, size, "-", "-", "-", *counts, "-", "-")
    return table


def _limit(trial: Trial) -> str:
    """What a modelled time is bound by; of a measured one, what its clock was."""
    detail = trial.detail or ""
    return detail.partition("throttled: ")[2].partition(";")[0] if trial.source is Source.MEASURED else detail


def _time_us(trial: Trial | None) -> float:
    return float("inf") if trial is None or trial.time_us is None else trial.time_us
