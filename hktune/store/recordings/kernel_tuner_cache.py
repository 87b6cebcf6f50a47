"""Rows as a cache file of Kernel Tuner, which it continues from, or simulates searches on."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hktune.core.errors import StoreError
from hktune.core.outcome import Status
from hktune.core.trial import Trial
from hktune.store.recordings.recording import Recording

_US_PER_MS = 1e3
_ERROR_OF = {
    Status.INVALID: "InvalidConfig",
    Status.OVER_BUDGET: "InvalidConfig",
    Status.COMPILE_ERROR: "CompilationFailedConfig",
}
_OTHER_ERROR = "RuntimeFailedConfig"
_TIMINGS = ("verification_time", "benchmark_time", "strategy_time", "framework_time")
_END = "}\n}"
"""By these last characters Kernel Tuner sees that a file was closed."""


def cache_json(recording: Recording) -> bytes:
    """`recording` as a cache file: one entry for each config, with its time in ms, or its failure by Kernel Tuner's
    name. Raises StoreError for rows without parameters."""
    names = sorted({name for config in recording.configs for name in config})
    if not names:
        raise StoreError(f"{recording.name}: its configs have no parameters, and Kernel Tuner needs one: pass others")
    row = recording.rows[0]
    values = {name: list(dict.fromkeys(config[name] for config in recording.configs)) for name in names}
    head = {
        "device_name": row.device or "unknown",
        "kernel_name": row.template or recording.name,
        "problem_size": [row.m, row.n, row.k],
        "tune_params_keys": names,
        "tune_params": values,
        "objective": "time",
    }
    entries = ",\n".join(_entries(recording, names))
    return f'{json.dumps(head)[:-1]}, "cache": {{\n{entries}{_END}'.encode()


def _entries(recording: Recording, names: list[str]) -> Iterator[str]:
    """A member of the cache for each config. Its key is its values as Python writes them."""
    for config, row in zip(recording.configs, recording.rows, strict=True):
        key = ",".join(str(config[name]) for name in names)
        entry = {**{name: config[name] for name in names}, **_outcome(row)}
        yield json.dumps({key: entry})[1:-1]


def _outcome(row: Trial) -> dict[str, object]:
    timings: dict[str, object] = {"compile_time": (row.compile_s or 0) * 1e3, **dict.fromkeys(_TIMINGS, 0)}
    if row.started_at:
        timings["timestamp"] = row.started_at
    if row.status is Status.OK and row.time_us is not None:
        time_ms = row.time_us / _US_PER_MS
        return {"time": time_ms, "times": [time_ms], **timings}
    return {"__error__": _ERROR_OF.get(row.status, _OTHER_ERROR), **timings}
