"""Optuna's studies, read: hktune's own as rows, others' as what became of each config."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hktune.core.errors import HktuneError
from hktune.core.escaped import escaped, shown
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.store.recordings.recording import BrokenRecording, Recording, Result, recording_of
from hktune.store.studies.study_place import STUDIES, opened_for_reading
from hktune.store.studies.study_trials import ROW, Known, known_in, row_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_SAID_MAX = 200


def read_study_trials(path: Path) -> list[Trial]:
    """The rows of all studies of hktune's in the file at `path`. Raises StoreError, one line, where there are none, and
    for a file that cannot be read."""
    rows = [row for _, trials in _studies(path) if _is_own(trials) for row in _rows(path, trials)]
    if not rows:
        raise STUDIES.broken(path, "has no study of hktune's trials")
    return rows


def other_recordings(path: Path) -> Iterator[Recording]:
    """A recording of each study of others: the values that its trials were given, and what they came to. Left out are
    studies of several objectives or of one to be maximised. Raises BrokenRecording."""
    for study, trials in _studies(path):
        if not _is_own(trials) and [direction.name for direction in study.directions] == ["MINIMIZE"]:
            results = list(_results(trials))
            if any(result.time_us is not None for result in results):
                yield recording_of(f"{path}:{study.study_name}", results)


def holds_own(path: Path) -> bool:
    """Whether a study in the file at `path` is of hktune's trials."""
    return any(_is_own(trials) for _, trials in _studies(path))


def _studies(path: Path) -> list[tuple[Study, list[FrozenTrial]]]:
    """Every study, with its trials. The file is another's: whatever its library makes of it is one line."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = opened_for_reading(path)
        names = optuna.study.get_all_study_names(storage)
        studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        return [(study, study.get_trials(deepcopy=False)) for study in studies]
    except HktuneError:
        raise
    except Exception as wrong:
        said = escaped(" ".join(f"{type(wrong).__name__}: {wrong}".split()))[:_SAID_MAX]
        raise STUDIES.broken(path, f"cannot be read ({said})") from None


def _is_own(trials: list[FrozenTrial]) -> bool:
    return any(ROW in trial.user_attrs for trial in trials)


def _rows(path: Path, trials: list[FrozenTrial]) -> Iterator[Trial]:
    """The rows, without trials that somebody else added to the study. No storage keeps two runs of one directory from
    adding the same row at once: it is read once."""
    seen: set[Known | None] = set()
    for trial in trials:
        known = known_in(trial)
        if ROW in trial.user_attrs and (known is None or known not in seen):
            seen.add(known)
            try:
                yield row_of(trial)
            except (HktuneError, TypeError, ValueError) as wrong:
                raise STUDIES.broken(
                    path, f"trial {trial.number} is no row of hktune's ({shown(str(wrong))})"
                ) from None


def _results(trials: list[FrozenTrial]) -> Iterator[Result]:
    """Of each config the first outcome: a search may have tried it again."""
    seen: set[str] = set()
    for trial in trials:
        key = repr(sorted(trial.params.items()))
        if not trial.state.is_finished() or not trial.params or key in seen:
            continue
        seen.add(key)
        if trial.state.name != "COMPLETE":
            yield Result(trial.params, Status.CRASHED)
        elif trial.value is None or not trial.value > 0:
            rule = f"trial {trial.number} came to {trial.value}, not to a number above 0"
            raise BrokenRecording(f"{rule}: it has no share of the best")
        else:
            yield Result(trial.params, Status.OK, float(trial.value))
