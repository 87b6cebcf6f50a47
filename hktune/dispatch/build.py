"""From trials to a table: the best proved config of every problem, or the vendor library where nothing beats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from hktune import model
from hktune.dispatch.table import DeviceIdentity, Table
from hktune.errors import TableError
from hktune.model import Config, Problem, Source, Status, Trial

LaunchOf = Callable[[Trial], tuple[str, model.Launch]]
"""The kernel's symbol and the launch of an ok trial; asked once per entry that a kernel wins."""


def build_table(
    trials: Iterable[Trial], launch_of: LaunchOf, identity: model.Identity, compiler: str, version: str, created_at: str
) -> Table:
    """Fold trials into one entry per problem that has an ok trial.

    The last trial of a config stands for it. Measured times beat modelled ones wholly: a problem with any measured
    trial is decided among those. The lowest time wins, equal times by config id. A kernel whose time, at the upper end
    of its interval, is not below the vendor's leaves the choice to the vendor. `compiler` is `Compiler.identity`,
    `version` hktune's own, `created_at` ISO 8601. Raises TableError when trials are of another architecture than
    `identity`, or were measured on more than one device.
    """
    by_problem: dict[Problem, list[Trial]] = {}
    for trial in trials:
        _check_arch(trial, identity)
        by_problem.setdefault(trial.problem, []).append(trial)
    standing = {problem: _standing(of_problem) for problem, of_problem in sorted(by_problem.items())}
    _check_one_device([trial for candidates in standing.values() for trial in candidates])
    fields = {
        "arch": identity.arch,
        "device": {name: getattr(identity, name) for name in DeviceIdentity.__struct_fields__},
        "compiler": compiler,
        "hktune": version,
        "created_at": created_at,
        "entries": [_entry(candidates, launch_of) for candidates in standing.values() if candidates],
    }
    try:
        return msgspec.convert(fields, Table)
    except msgspec.ValidationError as error:
        raise TableError(f"these trials make no legal table: {error}: fix that value where it is made") from None


def _standing(trials: Sequence[Trial]) -> list[Trial]:
    """The ok trials that compete for one problem, best first: one per config, all of one source."""
    measured = any(trial.source is Source.MEASURED for trial in trials if trial.status is Status.OK)
    source = Source.MEASURED if measured else Source.MODELLED
    last = {trial.config_id: trial for trial in trials if trial.status is not Status.OK or trial.source is source}
    ok = [trial for trial in last.values() if trial.status is Status.OK]
    return sorted(ok, key=lambda trial: (_time_us(trial), trial.config_id))


def _entry(candidates: Sequence[Trial], launch_of: LaunchOf) -> dict[str, Any]:
    best = candidates[0]
    entry = dict(zip(("m", "n", "k", "dtype", "epilogue"), best.problem.key, strict=True))
    entry |= {"source": best.source, "baseline": best.baseline, "baseline_us": best.baseline_us}
    if best.baseline_us is not None and _upper_us(best) >= best.baseline_us:
        return {**entry, "choice": "vendor", "time_us": best.baseline_us}
    times = {name: getattr(best, name) for name in ("time_us", "time_us_low", "time_us_high")}
    ties = sorted(trial.config_id for trial in candidates[1:] if _lower_us(trial) <= _upper_us(best))
    return {**entry, **times, "choice": "kernel", "ties": ties, "kernel": _kernel(best, launch_of)}


def _kernel(trial: Trial, launch_of: LaunchOf) -> dict[str, Any]:
    symbol, launch = launch_of(trial)
    named = ("config_id", "template", "template_sha256", "object_sha256")
    made_from = {name: getattr(trial, name) for name in named}
    return {**made_from, "config": dict(Config.from_json(trial.config)), "symbol": symbol, "launch": asdict(launch)}


def _time_us(trial: Trial) -> float:
    if trial.time_us is None:
        raise TableError(f"trial {trial.trial} of {trial.problem} is ok without a time_us: tune that shape again")
    return trial.time_us


def _lower_us(trial: Trial) -> float:
    return _time_us(trial) if trial.time_us_low is None else trial.time_us_low


def _upper_us(trial: Trial) -> float:
    return _time_us(trial) if trial.time_us_high is None else trial.time_us_high


def _check_arch(trial: Trial, identity: model.Identity) -> None:
    if trial.target is not None and trial.target != identity.arch:
        rule = f"trial {trial.trial} is of another architecture"
        raise TableError(f"{rule}: saved={trial.target} current={identity.arch}: merge only trials of one target")


def _check_one_device(candidates: Iterable[Trial]) -> None:
    devices = sorted({str(trial.device) for trial in candidates if trial.source is Source.MEASURED})
    if len(devices) > 1:
        raise TableError(f"trials were measured on {' and '.join(devices)}: build one table per device")
