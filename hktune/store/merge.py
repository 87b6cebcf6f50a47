"""Shards of trials, made on several GPUs or nodes, become one file: the same file whatever their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hktune.errors import StoreError
from hktune.model import Trial
from hktune.publish import publish
from hktune.store.rows import HEADER, encode
from hktune.store.trials import FILE_NAME, lock_of, read_trials


def merge(shards: Iterable[Path], directory: Path) -> list[Trial]:
    """Merge shards (results directories, or trials.csv files) with what `directory` already holds, into it.

    Rows that agree in everything but their number are one row. The rest are ordered by start time, then by content, and
    numbered afresh, so the result does not depend on the shards' order and merging again changes nothing. Raises
    StoreError for a shard that cannot be read, before anything is written.
    """
    target = directory / FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with lock_of(directory):
            kept = [target] if target.exists() else []
            trials = merged_trials([*kept, *shards])
            publish(target, HEADER + b"".join(map(encode, trials)))
    except OSError as error:
        raise StoreError(f"{directory}: cannot be written ({error.strerror or error}): pass another DIR") from None
    return trials


def merged_trials(shards: Iterable[Path]) -> list[Trial]:
    """The trials of shards as `merge` orders and numbers them. Raises StoreError for a shard that cannot be read."""
    sources = [shard / FILE_NAME if shard.is_dir() else shard for shard in shards]
    distinct = {replace(trial, trial=0) for source in sources for trial in read_trials(source)}
    ordered = sorted(distinct, key=lambda trial: (trial.started_at or "", encode(trial)))
    return [replace(trial, trial=number) for number, trial in enumerate(ordered)]
