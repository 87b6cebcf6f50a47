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


@dataclass(frozen=True)
class Failure:
    """Why a variant did not get a time: a value that lands in its trial."""

    status: Status
    detail: str


@dataclass(frozen=True)
class Timing:
    """The time of one launch of a proved kernel, with where it comes from. `bound` is what limits it, where known.

    `baseline_us` is the vendor library's time in the same rounds; `note` is what else was seen, for the row's detail.
    """

    source: Source
    time_us: float
    time_us_low: float | None = None
    time_us_high: float | None = None
    samples: int | None = None
    cache: str | None = None
    bound: str | None = None
    baseline: str | None = None
    baseline_us: float | None = None
    note: str | None = None
