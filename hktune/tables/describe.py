"""A table as rows for a reader: one per entry, skipped ones with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hktune.core.problem import Problem
from hktune.dispatch.table import Entry, Kernel, Table
from hktune.dispatch.validate import Skipped


@dataclass(frozen=True)
class Row:
    """One entry. `name`: what a person calls `problem`. `serves`: the fewest and the most m it is used for. `ties`: how
    many other configs may be as fast. `vs_baseline`: the vendor's time over the choice's (above 1: faster than the
    vendor); `vs_best`: that of the fastest other way, which `best` names. `energy_j`: what the board draws during one
    launch, `baseline_energy_j` while the vendor computes the same. `origins`: where a merged row is from, each an id
    and what is known of it."""

    name: str
    problem: Problem
    serves: str
    choice: str
    config_id: str
    config: str
    template: str
    time_us: float
    time_us_low: float | None
    time_us_high: float | None
    ties: int
    source: str
    tflops: float
    vs_baseline: float | None
    vs_best: float | None
    best: str
    object_sha256: str
    skipped: str
    energy_j: float | None
    baseline_energy_j: float | None
    origins: tuple[str, ...] = ()


def describe(table: Table, skipped: Iterable[Skipped] = ()) -> list[Row]:
    """The rows of `hktune table show`, in the table's order; object hashes cut to 12 digits."""
    reasons = {item.entry.problem.key: f"{item.reason}: {item.detail}" for item in skipped}
    return [_row(entry, reasons.get(entry.problem.key, "")) for entry in table.entries]


def _row(entry: Entry, skipped: str) -> Row:
    kernel = entry.kernel
    return Row(
        name=entry.name or "",
        problem=entry.problem,
        serves="m={}..{}".format(*entry.rows) if entry.rows != (entry.m, entry.m) else "",
        choice=_choice(entry),
        config_id=kernel.config_id if kernel else "",
        config=_words(kernel) if kernel else "",
        template=kernel.template if kernel else "",
        time_us=entry.time_us,
        time_us_low=entry.time_us_low,
        time_us_high=entry.time_us_high,
        ties=len(entry.ties),
        source=str(entry.source),
        tflops=entry.problem.flops / entry.time_us / 1e6,
        vs_baseline=entry.baseline_us / entry.time_us if entry.baseline_us is not None else None,
        vs_best=entry.vendor_best_us / entry.time_us if entry.vendor_best_us is not None else None,
        best=entry.vendor_best or "",
        object_sha256=kernel.object_sha256[:12] if kernel else "",
        skipped=skipped,
        energy_j=entry.energy_j,
        baseline_energy_j=entry.baseline_energy_j,
        origins=entry.origins or (),
    )


def _choice(entry: Entry) -> str:
    """What serves, for people: kernel, the algorithm, or the library whose own choice it is."""
    if entry.vendor_algorithm:
        return str(entry.vendor_algorithm.known)
    return entry.choice if entry.kernel else entry.baseline or "vendor"


def _words(kernel: Kernel) -> str:
    """The config of `kernel` as a person types it."""
    typed = {name: str(value).lower() if isinstance(value, bool) else value for name, value in kernel.config.items()}
    return " ".join(f"{name}={value}" for name, value in typed.items())
