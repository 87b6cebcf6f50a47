"""The rows of one results directory that a run reads and adds to, while other runs may add to them too."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from hktune.core.candidate import Candidate
from hktune.core.config import compact_json
from hktune.core.errors import StoreError
from hktune.core.outcome import Failure, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.remedy import with_remedy
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import Attempt, failed
from hktune.space import SearchSpace
from hktune.store import Claims, TrialStore, locked, named_template
from hktune.store.trials import FILE_NAME, is_without_rows
from hktune.tuning.searching.loop import PEER_PATIENCE_S, PEER_POLL_S
from hktune.tuning.trial_rows import RowContext

Standing = Callable[[Sequence[Trial]], Sequence[Trial | None]]
"""Of each row, the one that others have stored in its place, if any."""


@dataclass(frozen=True)
class Room:
    """Of how many configs rows are wanted: at most `each` for a problem and template, and `in_all` for those `of`."""

    each: float = math.inf
    in_all: float = math.inf
    of: tuple[tuple[Problem, str | None], ...] = ()


class Ledger:
    """The rows of one results directory that are of the templates of `context`, or of algorithms of the vendor's
    libraries. Each row of the file is read once.

    Several runs, and several threads of one, may record: of a config on a problem there is one row, whichever makes it.
    """

    def __init__(
        self, directory: Path, context: RowContext, fresh: bool, hears: Callable[[Trial], None] = lambda _: None
    ) -> None:
        """`hears` is called with each row that is stored through this ledger, once it is on disk."""
        if fresh:
            set_aside(directory)
        self._store = TrialStore(directory)
        self._context = context
        self._hears = hears
        self._lock = threading.Lock()
        self._rows: list[Trial] = []
        self._of: defaultdict[tuple[Problem, str | None], dict[str, Trial]] = defaultdict(dict)
        self._others: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is in the file: rows of other templates, which this run neither goes on from nor takes."""
        template = self._context.templates.own
        own = f"{template.name} {template.sha256[:12]}"
        return tuple(
            f"{count} trials of {template} in {self._store.path} are left out: this is {own}"
            for template, count in sorted(self._others.items())
        )

    def rows(self) -> list[Trial]:
        """All rows so far."""
        return self.news(0)[0]

    def known(self) -> list[Trial]:
        """The rows as they were last read, for who cannot read the file any more."""
        with self._lock:
            return list(self._rows)

    def news(self, seen: int) -> tuple[list[Trial], int]:
        """The rows without those `seen` first, all of them where the file was replaced and has fewer; and how many rows
        there are."""
        with self._lock:
            self._hear()
            return self._rows[seen if seen <= len(self._rows) else 0 :], len(self._rows)

    def append(self, trial: Trial) -> Trial:
        stored = self._store.append(trial)
        self._hears(stored)
        return stored

    def quarantine(self) -> dict[Candidate, Failure]:
        """Candidates that cost an earlier run its worker."""
        return {
            self._context.candidate(row): Failure(row.status, row.detail or "", quarantined=True)
            for row in self.rows()
            if row.quarantined
        }

    def record(
        self, attempt: Attempt, problem: Problem, outcome: Timing | Failure, stage: Stage = Stage.SCREENED
    ) -> Trial:
        """The row of what was found, or the one that another run has stored for the same config and problem before."""
        row = self._context.row(attempt, problem, outcome, stage)
        [stored] = self._extended([row], self._standing)
        return stored

    def record_all(
        self, room: Room, attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]
    ) -> list[Trial | None]:
        """As `record`, of one attempt on several problems; None, and nothing is stored, for those that have no `room`
        left."""
        rows = [self._context.row(attempt, problem, outcome, Stage.SCREENED) for problem, outcome in outcomes]
        full: set[Problem] = set()

        def standing(rows: Sequence[Trial]) -> list[Trial | None]:
            found = self._standing(rows)
            full.update(
                row.problem
                for row, stands in zip(rows, found, strict=True)
                if stands is None and self._is_full((row.problem, row.template_sha256), room)
            )
            return [row if row.problem in full else stands for row, stands in zip(rows, found, strict=True)]

        stored = self._extended(rows, standing)
        return [None if row.problem in full else row for row in stored]

    def _is_full(self, whose: tuple[Problem, str | None], room: Room) -> bool:
        return len(self._of[whose]) >= room.each or sum(len(self._of[each]) for each in room.of) >= room.in_all

    def adopt(self, rows: Sequence[Trial]) -> None:
        """Store rows that loops of this run have made elsewhere: of a screened config on a problem one, as `record`."""
        if rows:
            self._extended(rows, self._standing_of_screened)

    def explain_unservable(self, space: SearchSpace, names: Mapping[Problem, str]) -> None:
        """A shape that no config is legal for gets one row, with the reason."""
        tried = by_problem(self.rows())
        for problem in names:
            domain = space.domain(problem)
            if problem in tried or not domain.is_empty:
                continue
            config = next(iter(space.seeds), space.config({}))
            reason = "; ".join(str(violation) for violation in domain.violations(config))
            candidate = Candidate(config, space.template.code_operation(problem.operation), space.template.sha256)
            failure = Failure(Status.INVALID, reason)
            self.record(failed(candidate, failure), problem, failure)

    def _extended(self, rows: Sequence[Trial], standing: Standing) -> list[Trial]:
        """As `TrialStore.extend_unless`; who hears of rows hears of the new ones."""
        stood: set[int] = set()

        def noted(rows: Sequence[Trial]) -> Sequence[Trial | None]:
            found = standing(rows)
            stood.update(place for place, stands in enumerate(found) if stands is not None)
            return found

        stored = self._store.extend_unless(rows, noted)
        for place, row in enumerate(stored):
            if place not in stood:
                self._hears(row)
        return stored

    def _standing(self, rows: Sequence[Trial]) -> list[Trial | None]:
        """The rows that others have stored for the same configs and problems."""
        with self._lock:
            self._hear()
            return [self._of[row.problem, row.template_sha256].get(row.config_id) for row in rows]

    def _standing_of_screened(self, rows: Sequence[Trial]) -> list[Trial | None]:
        """Those of `_standing` for rows that are a first measurement; any other is one more of the same config."""
        found = self._standing(rows)
        return [stands if row.stage is Stage.SCREENED else None for row, stands in zip(rows, found, strict=True)]

    def _hear(self) -> None:
        """Read what is new in the file."""
        trials, anew = self._store.read_new()
        if anew:
            self._rows.clear()
            self._of.clear()
            self._others.clear()
        known = self._context.templates
        own = [trial for trial in trials if not trial.is_kernel or trial.template_sha256 in known]
        others = (trial for trial in trials if trial.is_kernel and trial.template_sha256 not in known)
        self._others.update(map(named_template, others))
        self._rows += own
        for problem, rows in by_problem(own).items():
            for row in rows:
                self._of[problem, row.template_sha256].setdefault(row.config_id, row)


class SharedDirectory:
    """What one loop of a run knows of the other runs of its directory, as `peers.Peers` has it.

    Runs of the same problems claim the configs that they work on; runs of other problems do not.
    """

    def __init__(self, directory: Path, ledger: Ledger, problems: Sequence[Problem]) -> None:
        keys = compact_json(sorted(problem.key for problem in problems))
        self._claims = Claims(directory, hashlib.sha256(keys.encode()).hexdigest()[:8])
        self._ledger = ledger
        self._seen = 0

    def news(self) -> list[Trial]:
        rows, self._seen = self._ledger.news(self._seen)
        return rows

    def claim(self, candidate: Candidate) -> bool:
        return self._claims.take(candidate.id)

    def release(self, candidate: Candidate) -> None:
        self._claims.release(candidate.id)

    @contextmanager
    def alone_at(self, what: str, check_interrupt: Callable[[], None]) -> Iterator[None]:
        """Within the block no other run is at `what`. One that has not recorded anything for a while may be suspended:
        it is not waited for."""
        until = time.monotonic() + PEER_PATIENCE_S
        while not self._claims.take(what) and time.monotonic() < until:
            check_interrupt()
            time.sleep(PEER_POLL_S)
            if self.news():
                until = time.monotonic() + PEER_PATIENCE_S
        try:
            yield
        finally:
            self._claims.release(what)

    def close(self) -> None:
        """Give back what is still claimed."""
        self._claims.close()


def set_aside(directory: Path) -> None:
    """`_renamed`. Raises StoreError where that cannot be done."""
    try:
        _renamed(directory)
    except OSError as error:
        what = f"{directory / FILE_NAME}: cannot be set aside"
        raise StoreError(with_remedy(what, error, "pass another DIR")) from None


def _renamed(directory: Path) -> None:
    """Rename the trials of `directory` after the time of their last change, so that starting afresh loses nothing.
    A file without rows, which another run has just begun, say, holds nothing to lose and stays. OSError passes
    through."""
    previous = directory / FILE_NAME
    if not previous.exists():
        return
    with locked(directory):
        if not previous.exists():  # somebody else has set it aside
            return
        if is_without_rows(previous):
            return
        changed = datetime.fromtimestamp(previous.stat().st_mtime, timezone.utc)
        name = f"trials-{changed:%Y%m%dT%H%M%SZ}"
        names = (directory / f"{name}{f'-{number}' if number else ''}.csv" for number in count())
        previous.rename(next(path for path in names if not path.exists()))
        (directory / "environment.json").unlink(missing_ok=True)
