"""An algorithm of a vendor's library as it comes back from the files of a run: trials.csv, then table.json."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from hktune.core.identity import Identity
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.dispatch import Entry, read_table, write_table
from hktune.store import TrialStore, read_trials
from hktune.tables import build_table

BASELINE_US = 20.0


def measured(problem: Problem, algorithm: VendorAlgorithm, time_us: float, arch: str, device: str) -> Trial:
    """A row of a made-up time, within 0.1 us."""
    config = algorithm.config
    return Trial(
        *(0, *problem.sizes.values(), problem.operation, config.id, config.json, Status.OK), stage=Stage.SCREENED,
        source=Source.MEASURED, time_us=time_us, time_us_low=time_us - 0.1, time_us_high=time_us + 0.1,
        baseline="torch", baseline_us=BASELINE_US, relative_error=0.0, library=algorithm.library, target=arch,
        device=device,
    )  # fmt: skip


def entry_of(folder: Path, problem: Problem, algorithm: VendorAlgorithm, identity: Identity) -> Entry:
    """The entry of a table in `folder` whose only row is of `algorithm`."""
    TrialStore(folder).append(measured(problem, algorithm, 10.0, identity.arch, identity.name))
    trials = read_trials(folder / "trials.csv")
    table = build_table(trials, _no_kernel, identity, "none", "0", "2026-11-30T00:00:00+00:00")
    write_table(table, {}, folder)
    [entry] = read_table(folder).entries
    return entry


def _no_kernel(trial: Trial) -> NoReturn:
    raise AssertionError(f"{trial} is of a kernel")
