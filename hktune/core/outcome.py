"""How a trial ended: a failure, or a time that says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a trial ended. `ok` means proved right and timed."""

    OK = "ok"
    INVALID = "invalid"
    COMPILE_ERROR = "compile_error"
    OVER_BUDGET = "over_budget"
    WRONG = "wrong"
    HAZARD = "hazard"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    def __str__(self) -> str:
        return self.value


class Source(str, Enum):
    """Where a time comes from. A modelled time is never called measured."""

    MEASURED = "measured"
    MODELLED = "modelled"

    def __str__(self) -> str:
        return self.value


POWER_CAP = "power cap"
"""What `throttled` says where the board's power limit holds the clock down."""


class Stage(str, Enum):
    """What a row was made for. `screened`: the search tried the config. `confirmed`: the best few of a shape were
    measured again after it, in rounds that they share. `neighbour`: a config that is best at a neighbouring m was timed
    here too, on a GPU in rounds that it shares with the shape's own best. `steady`: where power held the clock, the
    best few were measured once more, each under a load of its own."""

    SCREENED = "screened"
    CONFIRMED = "confirmed"
    NEIGHBOUR = "neighbour"
    STEADY = "steady"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Failure:
    """Why a variant did not get a time: a value that lands in its trial. `quarantined`: it cost the process that owns
    a GPU, so its config is not run again."""

    status: Status
    detail: str
    quarantined: bool = False


@dataclass(frozen=True)
class Timing:
    """The time of one launch of a proved kernel, with where it comes from. `bound` is what limits it, where known.

    `time_us_low` and `time_us_high` are the ends of its interval. Of a measured time that is the median's. Of a
    modelled one it is where a measured time is expected, which says nothing of which of two kernels is faster.

    `left_early`: it was clearly slower than the best that was known, or than the vendor's library, and few rounds are
    all that was seen of it. `time_us` is a bound then: the kernel takes at least about that.

    `baseline_us` is the vendor library's time in the same rounds, `vendor_best_us` that of the fastest of its other
    algorithms, which `vendor_best` names. `gpu` is the GPU's number; its clock, its power and why it held its clock
    down (`throttled`) are those of the last rounds. `note` is what else a person may want to read.

    `energy_j` is what the whole board draws during one launch, with its interval, and `baseline_energy_j` what it draws
    while the vendor's library computes the same. Most timings have neither: energy is measured of the best alone.
    """

    source: Source
    time_us: float
    time_us_low: float | None = None
    time_us_high: float | None = None
    left_early: bool = False
    samples: int | None = None
    cache: str | None = None
    bound: str | None = None
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
    note: str | None = None
