"""Shards of trials, made on several GPUs or nodes, become one file: the same file whatever their order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

import msgspec

from hktune.core.board import device_name
from hktune.core.errors import StoreError
from hktune.core.publish import publish
from hktune.core.remedy import with_remedy
from hktune.core.trial import Trial
from hktune.store.combined import Combined, combined
from hktune.store.environment import Environment, judge_environment, read_environment, write_environment
from hktune.store.origins import (
    Origin,
    SignedBy,
    line_without_origin,
    origins_of,
    read_origins,
    with_origin,
    write_origins,
)
from hktune.store.recordings.t4_trials import read_t4_trials
from hktune.store.rows import HEADER, Encoder
from hktune.store.studies.study_place import holds_studies
from hktune.store.studies.study_reading import read_study_trials
from hktune.store.trials import FILE_NAME, locked, read_trials

DISAGREEMENTS_SHOWN = 10


@dataclass(frozen=True)
class Merged:
    """What a merge gave. `remarks` are lines for the user to read: what keeps the rows from being one set-up's, and
    where they disagree. `origins` are those that the rows name, by id."""

    trials: list[Trial]
    remarks: list[str]
    origins: Mapping[str, Origin]


def merge(
    shards: Sequence[Path], directory: Path, signed_by: Mapping[Path, Sequence[SignedBy]] | None = None
) -> Merged:
    """Merge shards (results directories, trials.csv, T4 files, files of studies) with what `directory` holds, into it.

    Each row gets the origin that it is from; origins.json says what these are, and whose key signed the table of the
    folder (`signed_by`). Rows that agree in everything but their number and origin are one row, and `combined` makes
    one of what several have measured. The rest are ordered by start time, then by content, and numbered afresh, so the
    result does not depend on the shards' order and merging again changes nothing. Where all are of one set-up, its
    environment.json is written too. Raises StoreError for a shard that cannot be read, and for shards of several
    devices, before anything is written.
    """
    target = directory / FILE_NAME
    of_shards = [(folder_of(shard), _read_shard(shard)) for shard in shards]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            own = [directory] if os.path.lexists(target) else []
            sources = [*own, *shards]
            environments = {folder: read_environment(folder) for folder in map(folder_of, sources)}
            common, unlike = _common(environments)
            if unlike and read_environment(directory):
                raise StoreError(f"{directory} is of one set-up, and {unlike}: merge into another DIR")
            of_shards += [(directory, _read_shard(each)) for each in own]
            rows, origins = _with_origins(of_shards, environments, signed_by or {})
            _check_devices(rows)
            found = combined(_distinct_in_order(rows))
            trials = _merged(found.trials)
            named = origins_of(trials)
            origins = {each: origin for each, origin in origins.items() if each in named}
            write_origins(origins, directory)
            encoder = Encoder()
            publish(target, chain([HEADER], map(encoder.line, trials)))
            if common:
                write_environment(common, directory)
    except OSError as error:
        raise StoreError(with_remedy(f"{directory}: cannot be written", error, "pass another DIR")) from None
    remarks = [f"{unlike}: no environment.json was written, build tables of the shards"] if unlike else []
    return Merged(trials, [*remarks, *_combinations(found), *_templates(trials)], origins)


def _with_origins(
    of_shards: Sequence[tuple[Path, list[Trial]]],
    environments: Mapping[Path, Environment | None],
    signed_by: Mapping[Path, Sequence[SignedBy]],
) -> tuple[list[Trial], dict[str, Origin]]:
    """The rows of all, each with its origin, and what is known of these. What a directory says of itself stands above
    what another, into which it was merged, has kept of that."""
    rows: list[Trial] = []
    kept: dict[str, Origin] = {}
    new: dict[str, Origin] = {}
    for folder, trials in of_shards:
        named, origin = with_origin(trials, folder, environments[folder], signed_by.get(folder, ()))
        rows += named
        kept |= read_origins(folder)
        if origin:
            new[origin.id] = origin
    return rows, kept | new


def _combinations(found: Combined) -> Iterator[str]:
    """What became of measurements of one config by several."""
    if found.several:
        yield f"{found.several} rows are of several measurements of one config: the interval of each holds all of them"
    worst = sorted(found.disagreements, key=lambda each: (-each.apart, str(each)))
    if worst:
        yield f"{len(worst)} disagreements beyond noise:"
        yield from (f"  {each}" for each in worst[:DISAGREEMENTS_SHOWN])
    if len(worst) > DISAGREEMENTS_SHOWN:
        yield f"  and {len(worst) - DISAGREEMENTS_SHOWN} more"


def merged_trials(shards: Iterable[Path]) -> list[Trial]:
    """The trials of shards as `merge` orders and numbers them. Raises StoreError for a shard that cannot be read."""
    return _merged(_rows_of(shards))


def _rows_of(shards: Iterable[Path]) -> list[Trial]:
    trials: list[Trial] = []
    for shard in shards:
        trials += _read_shard(shard)
    return trials


def _read_shard(shard: Path) -> list[Trial]:
    path = shard / FILE_NAME if shard.is_dir() else shard
    if {".json", ".gz", ".zip"} & set(path.suffixes[-1:]):
        return read_t4_trials(path)
    return read_study_trials(path) if holds_studies(path) else read_trials(path)


def _merged(trials: list[Trial]) -> list[Trial]:
    """The distinct rows, ordered and numbered. Empties `trials`: a million rows are held once."""
    distinct = list(_distinct_in_order(trials))
    trials.clear()
    for number, trial in enumerate(distinct):
        distinct[number] = trial.numbered(number)
    return distinct


def folder_of(shard: Path) -> Path:
    """The results directory of a shard."""
    return shard if shard.is_dir() else shard.parent


def _distinct_in_order(trials: list[Trial]) -> Iterator[Trial]:
    """By start time, then by the line without its number; of equal lines one. Sorts `trials` itself: lines are made
    only for rows of one config on one problem in one second."""
    encoder = Encoder()
    trials.sort(key=_second)
    for _, together in groupby(trials, _second):
        for _, alike in groupby(sorted(together, key=_line_begin), _line_begin):
            rows = list(alike)
            if len(rows) == 1:
                yield rows[0]
                continue
            rows.sort(key=lambda row: row.origin or "", reverse=True)  # of equal rows the last one stays
            lines = {line_without_origin(encoder, row): row for row in rows}
            yield from (lines[line] for line in sorted(lines))


def _second(trial: Trial) -> str:
    return trial.started_at or ""


def _line_begin(trial: Trial) -> str:
    """What a line has behind its number; none of these cells is ever quoted."""
    return f"{trial.m},{trial.n},{trial.k},{trial.operation},{trial.config_id},"


def _check_devices(trials: Iterable[Trial]) -> None:
    """Times of unlike devices are not to be in one file, whether an environment.json says so or the rows do."""
    _check_one({device_name(trial.device) or "" for trial in trials if trial.device})


def _check_one(devices: set[str]) -> None:
    if len(devices) > 1:
        rule = f"trials are of unlike devices: {'; '.join(sorted(devices))}"
        raise StoreError(f"{rule}: merge each device's into a DIR of its own")


def _common(environments: Mapping[Path, Environment | None]) -> tuple[Environment | None, str | None]:
    """The environment of all, the earliest one's without what differs; or why there is none. Raises StoreError for
    several devices."""
    known = {folder: environment for folder, environment in environments.items() if environment}
    _check_one({str(environment.identity.comparable) for environment in known.values()})
    absent = sorted(str(folder) for folder in environments if folder not in known)
    if absent:
        return None, f"no environment.json says what the trials of {', '.join(absent)} were made with"
    first = min(known.values(), key=lambda each: (each.started_at, msgspec.json.encode(each)))
    for folder, other in known.items():
        hard = [mismatch for mismatch in judge_environment(first, other) if mismatch.level == "hard"]
        if hard:
            return None, f"{folder} is of another set-up ({hard[0]})"
    alike = {
        name: text
        for name, text in first.versions.items()
        if all(other.versions.get(name) == text for other in known.values())
    }
    commit = first.commit if all(other.commit == first.commit for other in known.values()) else None
    return replace(first, versions=alike, commit=commit), None


def named_template(trial: Trial) -> str:
    """What a row was made from, for a person."""
    return f"{trial.template or 'an unnamed template'} {(trial.template_sha256 or '')[:12]}".strip()


def _templates(trials: Iterable[Trial]) -> list[str]:
    """A line about each template, where there are several."""
    counts = Counter(map(named_template, trials))
    if len(counts) < 2:
        return []
    return [
        f"{count} trials are of {template}: tune and table build use those of their own template, and of --candidates"
        for template, count in sorted(counts.items())
    ]
