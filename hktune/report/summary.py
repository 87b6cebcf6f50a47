"""What a person reads when a run is over: the best of every shape, what failed and why, where everything lies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hktune.model import Problem, Status, Trial


@dataclass(frozen=True)
class RunSummary:
    """A finished or interrupted run. `trials` are all rows of its directory, `names` the shapes asked for.

    Seconds are wall clock; `variants` counts the distinct configs that were compiled and proved by this run.
    """

    names: Mapping[Problem, str]
    trials: Sequence[Trial]
    directory: Path
    elapsed_s: float
    variants: int
    interrupted: bool

    @property
    def best(self) -> dict[Problem, Trial]:
        """The fastest proved trial of each shape that has one."""
        best: dict[Problem, Trial] = {}
        for trial in self.trials:
            if trial.time_us is not None and trial.time_us < (_time_us(best.get(trial.problem))):
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
    failures = Counter(trial.status for trial in summary.trials if trial.status is not Status.OK)
    for status, count in sorted(failures.items()):
        example = next(trial.detail for trial in summary.trials if trial.status is status)
        console.print(f"{count} trials {status}, for example: {example}", highlight=False, soft_wrap=True)
    for problem in summary.without_kernel:
        reason = next((trial.detail for trial in summary.trials if trial.problem == problem), "nothing tried yet")
        console.print(
            f"no kernel for {summary.names[problem]} ({problem}), it takes the vendor path: {reason}", soft_wrap=True
        )
    word = "interrupted, everything so far is kept; run the same command to continue" if summary.interrupted else "done"
    console.print(
        f"{word}: {len(summary.trials)} trials, {summary.variants} variants compiled and proved by this run, "
        f"{summary.elapsed_s:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"table, objects and trials are in {summary.directory}", highlight=False, soft_wrap=True)
    console.print(f"next: hktune table show {summary.directory}", highlight=False, soft_wrap=True)


def _best_table(summary: RunSummary, best: Mapping[Problem, Trial]) -> Table:
    sources = sorted({str(trial.source) for trial in best.values()})
    table = Table(title=f"best kernel per shape ({' and '.join(sources) or 'none'} time)", title_justify="left")
    table.add_column("shape")
    table.add_column("m x n x k")
    for column in ("time us", "TFLOP/s", "tried", "failed"):
        table.add_column(column, justify="right")
    table.add_column("config")
    for problem, name in summary.names.items():
        rows = [trial for trial in summary.trials if trial.problem == problem]
        failed = sum(trial.status is not Status.OK for trial in rows)
        size = f"{problem.m} x {problem.n} x {problem.k}"
        if problem not in best:
            table.add_row(name, size, "-", "-", str(len(rows)), str(failed), "-")
            continue
        trial = best[problem]
        cells = (f"{trial.time_us:.1f}", f"{trial.tflops:.0f}", str(len(rows)), str(failed))
        table.add_row(name, size, *cells, _brief(trial.config))
    return table


def _brief(config: str) -> str:
    return " ".join(f"{name}={value}" for name, value in json.loads(config).items())


def _time_us(trial: Trial | None) -> float:
    return float("inf") if trial is None or trial.time_us is None else trial.time_us
