"""Recordings, by the path that a person typed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hktune.core.outcome import Stage, Status
from hktune.core.trial import Trial, by_problem
from hktune.store.recordings.document import RECORDING, read_document
from hktune.store.recordings.kernel_tuner import cached_results
from hktune.store.recordings.ktt import ktt_results
from hktune.store.recordings.recording import BrokenRecording, Recording, recording_of
from hktune.store.recordings.t4 import t4_file, t4_results
from hktune.store.recordings.t4_trials import holds_trials, trials_of
from hktune.store.studies.study_place import holds_studies
from hktune.store.studies.study_reading import holds_own, other_recordings, read_study_trials
from hktune.store.trials import FILE_NAME, read_trials

_CACHE, _T4, _KTT = "cache", "results", "Results"
"""Each format is known by a key that it alone has."""


def load_recordings(path: Path) -> list[Recording]:
    """The recordings at `path`: of hktune's trials one for each problem and template, of other files one. Its name is
    the path, and the problem where there may be several. Raises StoreError, one line, for what cannot be read, and
    where no config has a time."""
    try:
        if path.is_dir() or path.suffix == ".csv":
            return _of_trials(str(path), read_trials(path / FILE_NAME if path.is_dir() else path))
        if holds_studies(path):
            return _of_studies(path)
        document = read_document(path)
        return _of_document(str(path), document)
    except BrokenRecording as broken:
        raise RECORDING.broken(path, str(broken)) from None


def _of_document(name: str, document: dict[str, object]) -> list[Recording]:
    if _CACHE in document:
        return [recording_of(name, cached_results(document))]
    if _KTT in document:
        return [recording_of(name, ktt_results(document))]
    if _T4 not in document:
        raise BrokenRecording(f"has none of the keys {_CACHE}, {_T4}, {_KTT}")
    file = t4_file(document)
    return _of_trials(name, trials_of(file)) if holds_trials(file) else [recording_of(name, t4_results(file))]


def _of_studies(path: Path) -> list[Recording]:
    """Of hktune's own studies as of trials; of each other study one."""
    own = recordings_among(str(path), read_study_trials(path)) if holds_own(path) else ()
    found = [*own, *other_recordings(path)]
    if not found:
        raise BrokenRecording("has no study of one objective to be minimised, of which a trial has a time")
    return found


def _of_trials(name: str, trials: Iterable[Trial]) -> list[Recording]:
    """The problems and templates of which a config has a time; BrokenRecording where there is none."""
    found = list(recordings_among(name, trials))
    if not found:
        raise BrokenRecording("no trial has a time")
    return found


def recordings_among(name: str, trials: Iterable[Trial]) -> Iterator[Recording]:
    """Of each problem and template of which a config has a time, the recording; it is called by `name` and these.
    Algorithms of the vendor's libraries are no configs of a search."""
    for problem, rows in by_problem(trial for trial in trials if trial.is_kernel).items():
        of_template: dict[tuple[str | None, str | None], dict[str, Trial]] = {}
        for row in sorted(rows, key=_order):
            if row.status is not Status.INVALID:  # it was never tried: it says why nothing can be
                of_template.setdefault((row.template, row.template_sha256), {}).setdefault(row.config_id, row)
        for (template, _), own in of_template.items():
            if any(row.time_us is not None for row in own.values()):
                whose = f" {template}" if len(of_template) > 1 else ""
                where = f"{problem.m}x{problem.n}x{problem.k}:{problem.operation}"
                yield Recording(f"{name}:{where}{whose}", _comparable(own.values()))


def _comparable(rows: Collection[Trial]) -> tuple[Trial, ...]:
    """The rows with costs of one name: where not every time has a baseline of its rounds, none counts."""
    if all(row.baseline_us for row in rows if row.time_us is not None):
        return tuple(rows)
    return tuple(replace(row, baseline_us=None) for row in rows)


def _order(row: Trial) -> tuple[bool, int]:
    """What the search itself tried comes first: what was measured again for the table was so in other rounds."""
    return (row.stage is not Stage.SCREENED, row.trial)
