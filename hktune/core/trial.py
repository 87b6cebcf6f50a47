"""A trial: one row of trials.csv."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from hktune.core.operation import Operation
from hktune.core.outcome import Source, Stage, Status
from hktune.core.problem import Problem


@dataclass(frozen=True, slots=True)
class Trial:
    """One row of trials.csv. A field that does not apply is None and an empty cell, never 0. `detail` is for people:
    nothing is decided by it.
    The time of a row that was `left_early` is a bound, as `Timing` has it. `origin` names the directory, or those, that
    a merged row is from, by ids of origins.json; a row that was never merged has none.

    A row with a `library` is of an algorithm of the vendor's library of that name: its config is a `VendorAlgorithm`'s,
    and no template made it. All others are of kernels."""

    trial: int
    m: int
    n: int
    k: int
    operation: Operation
    config_id: str
    config: str
    status: Status
    stage: Stage = Stage.SCREENED
    quarantined: bool = False
    left_early: bool = False
    detail: str | None = None
    source: Source | None = None
    time_us: float | None = None
    time_us_low: float | None = None
    time_us_high: float | None = None
    samples: int | None = None
    cache: str | None = None
    tflops: float | None = None
    baseline: str | None = None
    baseline_us: float | None = None
    vendor_best: str | None = None
    vendor_best_us: float | None = None
    gpu: int | None = None
    clock_mhz: int | None = None
    power_w: float | None = None
    throttled: str | None = None
    energy_j: float | None = None
    energy_j_low: float | None = None
    energy_j_high: float | None = None
    baseline_energy_j: float | None = None
    relative_error: float | None = None
    vgprs: int | None = None
    agprs: int | None = None
    sgprs: int | None = None
    spills: int | None = None
    lds_bytes: int | None = None
    scratch_bytes: int | None = None
    waves_per_simd: int | None = None
    compile_s: float | None = None
    object_sha256: str | None = None
    template: str | None = None
    template_sha256: str | None = None
    library: str | None = None
    compiler: str | None = None
    target: str | None = None
    device: str | None = None
    origin: str | None = None
    strategy: str | None = None
    seed: int | None = None
    started_at: str | None = None

    @property
    def problem(self) -> Problem:
        return Problem(self.m, self.n, self.k, self.operation)

    @property
    def has_time(self) -> bool:
        """Whether it may be the fastest of its problem: proved, and with a time that is no bound."""
        return self.time_us is not None and not self.left_early

    @property
    def is_kernel(self) -> bool:
        """Whether it is of a kernel, and not of an algorithm of the vendor's library."""
        return self.library is None

    @property
    def made_from(self) -> tuple[str | None, str]:
        """The template, by its sha256, and the config's id: configs of two templates may be alike."""
        return (self.template_sha256, self.config_id)

    def numbered(self, number: int) -> Trial:
        """The same row under another number."""
        return Trial(number, *_unnumbered(self))


_unnumbered: Callable[[Trial], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(Trial)[1:]))


def by_problem(trials: Iterable[Trial]) -> dict[Problem, list[Trial]]:
    """The trials of each problem, in their order; problems in the order in which they come."""
    grouped: dict[tuple[int, int, int, Operation], list[Trial]] = defaultdict(list)
    for trial in trials:
        grouped[trial.m, trial.n, trial.k, trial.operation].append(trial)
    return {own[0].problem: own for own in grouped.values()}
