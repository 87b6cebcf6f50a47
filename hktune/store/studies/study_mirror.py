"""The rows of a run, written to Optuna's studies as they are made.

trials.csv is the truth: what a storage cannot take is said at the end and is lost to nobody, and the next run of the
same directory adds it.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from hktune.core.errors import HktuneError, InputError
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.space import Spaces
from hktune.store.environment import Environment, judge_environment
from hktune.store.studies.study_place import StudyPlace
from hktune.store.studies.study_trials import Known, frozen_of, known_by, known_in

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

ENVIRONMENT = "environment"
AGAIN_AFTER_S = 30.0
"""A storage that failed is not tried again before."""

LAST_WORDS_S = 20.0
"""So long an interrupted run waits for a storage."""

POLL_S = 0.2
_NAME_CHARACTERS_MAX = 300  # Optuna's databases take 512


@dataclass
class _Attached:
    """A study that rows are added to, and the rows that it has; `final` where it was read at the end of the run."""

    study: Study
    known: set[Known]
    final: bool


class StudyMirror:
    """Writes every row that it is called with to the study of its shape and template, from a thread of its own.

    A study is called by its shape, sizes, operation and device. Rows of another device, compiler or judge are in no
    study of these. Raises InputError where the place can be no storage, or has a study of that name that is another's.
    """

    def __init__(
        self, place: StudyPlace, names: Mapping[Problem, str], spaces: Spaces, environment: Environment
    ) -> None:
        self._place = place
        self._names = names
        self._spaces = spaces
        self._environment = environment
        self._storage: BaseStorage | None = None
        self._attached: dict[tuple[Problem, str | None], _Attached] = {}
        self._rows: queue.SimpleQueue[tuple[Trial, bool] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._not_before_s = 0.0
        self._over = False
        self._check()

    def begin(self, rows: Iterable[Trial]) -> None:
        """Write what earlier runs left, and from now on what comes."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for row in rows:
            self(row)
        self._thread = threading.Thread(target=self._write_all, name="studies", daemon=True)
        self._thread.start()

    def __call__(self, trial: Trial) -> None:
        """Have one more row written, soon."""
        if self._is_wanted(trial):
            self._rows.put((trial, False))

    def finish(self, rows: Iterable[Trial], hurry: Callable[[], bool]) -> list[str]:
        """Wait until `rows` are written, if need be tried again, and say what could not be. Once `hurry` says so, not
        for long."""
        wanted = [row for row in rows if self._is_wanted(row)]
        self._not_before_s = 0.0
        for row in wanted:
            self._rows.put((row, True))
        self._rows.put(None)
        since_s = time.monotonic()
        while self._thread and self._thread.is_alive():
            self._thread.join(POLL_S)
            if not hurry():
                since_s = time.monotonic()
            elif time.monotonic() - since_s > LAST_WORDS_S:
                break
        self._over = True
        left = sum(not self._has(row) for row in wanted)
        if not left:
            return []
        why = self._trouble or "there was no time for more"
        return [f"{left} of {len(wanted)} rows are not in {self._place} ({why}): the same command adds them"]

    def _is_wanted(self, row: Trial) -> bool:
        """Algorithms of the vendor's libraries have no parameters that a study could have."""
        return row.problem in self._names and row.is_kernel

    def _check(self) -> None:
        """Whether every study that there is by the name of a shape can be gone on with. What keeps that from being
        looked up is trouble of later."""
        from optuna.study import get_all_study_summaries

        try:
            self._storage = self._place.opened()
            summaries = get_all_study_summaries(self._storage, include_best_trial=False)
        except HktuneError:
            raise
        except Exception as trouble:
            self._note(trouble)
            return
        wanted = {self._name(problem, space.template.sha256) for problem in self._names for space in self._spaces}
        for summary in summaries:
            if summary.study_name in wanted and (why := self._why_not(summary.user_attrs)):
                raise InputError(f"{self._place}: study {summary.study_name!r} {why}: pass another --study")

    def _why_not(self, attributes: Mapping[str, object]) -> str:
        """What keeps rows of this run out of a study with these attributes; empty where nothing does."""
        try:
            saved = msgspec.convert(attributes.get(ENVIRONMENT), Environment)
        except ValueError:
            return "is none that hktune made"
        hard = [each for each in judge_environment(saved, self._environment) if each.level == "hard"]
        return f"holds trials of another set-up ({hard[0]})" if hard else ""

    def _name(self, problem: Problem, template_sha256: str | None) -> str:
        given = self._names[problem]
        name = "" if given == str(problem) else f"{given[:_NAME_CHARACTERS_MAX]} "
        space = self._spaces.of(template_sha256)
        template = "" if space is self._spaces.own else f", {space.template.name}"
        return f"{name}{problem} on {self._environment.identity.name}{template}"

    def _write_all(self) -> None:
        while not self._over and (next_one := self._rows.get()) is not None:
            if time.monotonic() < self._not_before_s:
                continue
            try:
                self._write(*next_one)
            except Exception as trouble:  # of any database's library; the run goes on without
                self._note(trouble)

    def _write(self, row: Trial, may_be_another_s: bool) -> None:
        """Add `row` where it is missing. A row of another run of the directory may have been added by that one."""
        key = (row.problem, row.template_sha256)
        attached = self._attached.get(key)
        if attached is None or (may_be_another_s and not attached.final and known_by(row) not in attached.known):
            attached = self._attached[key] = self._attach(*key, final=may_be_another_s)
        if known_by(row) not in attached.known:
            parameters = self._spaces.of(row.template_sha256).for_operation(row.operation).parameters
            attached.study.add_trial(frozen_of(row, parameters))
            attached.known.add(known_by(row))

    def _attach(self, problem: Problem, template_sha256: str | None, final: bool) -> _Attached:
        """The study of `problem` and a template, made where there is none."""
        import optuna

        if self._storage is None:
            self._storage = self._place.opened()
        name = self._name(problem, template_sha256)
        study = optuna.create_study(storage=self._storage, study_name=name, direction="minimize", load_if_exists=True)
        if ENVIRONMENT not in study.user_attrs:
            said = {"problem": str(problem), "template_sha256": template_sha256, **problem.sizes}
            for key, value in {**said, ENVIRONMENT: msgspec.to_builtins(self._environment)}.items():
                study.set_user_attr(key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([f"{self._source} time, us"])
        known = (known_in(frozen) for frozen in study.get_trials(deepcopy=False))
        return _Attached(study, {each for each in known if each is not None}, final)

    @property
    def _source(self) -> Source:
        """Where the times of this run come from: no study has both."""
        return Source.MODELLED if self._environment.identity.kind == "emulated" else Source.MEASURED

    def _has(self, row: Trial) -> bool:
        attached = self._attached.get((row.problem, row.template_sha256))
        return attached is not None and known_by(row) in attached.known

    def _note(self, trouble: Exception) -> None:
        self._trouble = f"{type(trouble).__name__}: {' '.join(str(trouble).split())}"[:200]
        self._not_before_s = time.monotonic() + AGAIN_AFTER_S
