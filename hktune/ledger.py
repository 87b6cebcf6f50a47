"""The rows of one results directory that a run reads and adds to."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from hktune.contained import QUARANTINED
from hktune.measure.stopwatch import Attempt
from hktune.model import Failure, Problem, Status, Timing, Trial, by_problem
from hktune.rows import RowContext
from hktune.space import SearchSpace
from hktune.store import TrialStore, locked, named_template


class Ledger:
    """The rows of one results directory that were made from one template. Each row of the file is read once, whoever
    wrote it. May be used by several threads."""

    def __init__(self, directory: Path, context: RowContext, fresh: bool) -> None:
        if fresh:
            _set_aside(directory)
        self._store = TrialStore(directory)
        self._context = context
        self._rows: list[Trial] = []
        self._others: Counter[str] = Counter()
        self._reading = threading.Lock()

    def rows(self) -> list[Trial]:
        """All that there are by now, in order."""
        sha256 = self._context.template.sha256
        with self._reading:
            news = self._store.read_new()
            if news.anew:
                self._rows.clear()
                self._others.clear()
            self._rows += (trial for trial in news.trials if trial.template_sha256 == sha256)
            self._others.update(named_template(trial) for trial in news.trials if trial.template_sha256 != sha256)
            return list(self._rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is in the file: rows of other templates, which this run neither goes on from nor takes."""
        own = f"{self._context.template.name} {self._context.template.sha256[:12]}"
        return tuple(
            f"{count} trials of {template} in {self._store.path} are left out: this is {own}"
            for template, count in sorted(self._others.items())
        )

    def append(self, trial: Trial) -> Trial:
        return self._store.append(trial)

    def quarantine(self) -> dict[str, Failure]:
        """Configs that cost an earlier run its worker."""
        failed = [row for row in self.rows() if row.status in (Status.CRASHED, Status.TIMEOUT)]
        return {
            row.config_id: Failure(row.status, row.detail) for row in failed if row.detail and QUARANTINED in row.detail
        }

    def record(self, attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        return self._store.append(self._context.row(attempt, problem, outcome))

    def explain_unservable(self, space: SearchSpace, names: dict[Problem, str]) -> None:
        """A shape that no config is legal for gets one row, with the reason."""
        tried = by_problem(self.rows())
        for problem in names:
            domain = space.domain(problem)
            if problem in tried or not domain.is_empty:
                continue
            config = next(iter(space.seeds), space.config({}))
            reason = "; ".join(str(violation) for violation in domain.violations(config))
            self._store.append(self._context.invalid(config, problem, reason))


def _set_aside(directory: Path) -> None:
    """Rename the trials of `directory` after the time of their last change, so that starting afresh loses nothing."""
    previous = directory / "trials.csv"
    if not previous.exists():
        return
    with locked(directory):
        if not previous.exists():  # somebody else has set it aside
            return
        changed = datetime.fromtimestamp(previous.stat().st_mtime, timezone.utc)
        name = f"trials-{changed:%Y%m%dT%H%M%SZ}"
        names = (directory / f"{name}{f'-{number}' if number else ''}.csv" for number in count())
        previous.rename(next(path for path in names if not path.exists()))
        (directory / "environment.json").unlink(missing_ok=True)
