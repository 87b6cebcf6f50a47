"""The Stopwatch protocol, and what it is handed: a variant that was proved right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.operation import BF16_NT, Operation
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.core.variant import Resources
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.emulator.clock.launch_time import Profile
from hktune.measure.energy import Energies


@dataclass(frozen=True)
class Attempt:
    """What became of one candidate on the way to a time: how far it got, and `failure` where it stopped.

    `profile` is what the clock needs to model it, and only an emulated device leaves one. Seconds are wall clock;
    `compile_s` is that of the compilation itself, also when the object came from the cache. `operation` and `template`
    are the candidate's. With an `algorithm` it is that of a vendor's library, which nothing compiled: its config.
    """

    config: Config
    failure: Failure | None = None
    object_sha256: str | None = None
    resources: Resources | None = None
    compiler: str | None = None
    compile_s: float | None = None
    prove_s: float | None = None
    relative_error: float | None = None
    profile: Profile | None = None
    operation: Operation = BF16_NT
    template: str | None = None
    algorithm: VendorAlgorithm | None = None

    @property
    def candidate(self) -> Candidate:
        """What was attempted."""
        return Candidate(self.config, self.operation, self.template)


def attempt_of_algorithm(algorithm: VendorAlgorithm, operation: Operation) -> Attempt:
    """An algorithm of a vendor's library, to be proved or timed on problems of `operation`."""
    return Attempt(algorithm.config, operation=operation, algorithm=algorithm)


def failed(candidate: Candidate, failure: Failure) -> Attempt:
    """An attempt that came to nothing."""
    return Attempt(candidate.config, failure, operation=candidate.operation, template=candidate.template)


@dataclass(frozen=True)
class Confirmation:
    """One problem's finalists and the vendor's other ways, all in the same rounds.

    `finalists` are in the order asked for; `rivals` are baselines after the first, and kernels of others, by name, as
    baseline time / theirs.
    """

    finalists: tuple[Timing | Failure, ...]
    rivals: dict[str, float]


class Stopwatch(Protocol):
    """Times proved variants. One thread at a time.

    `source` says what its times are, and every Timing it gives carries the same word. A measured time names what it was
    measured with, and that one's time of the same rounds; the vendor has no modelled time.
    """

    source: Source

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        """The time of one launch on `problem`, in us, of an attempt without failure; a Failure, not an exception, when
        this variant cannot be launched or its product is wrong. Changes neither. The same may be asked again.

        Raises HktuneError for what no variant is to blame for, and KernelFault where the device is lost with it.
        """


Side = tuple[str, Attempt]
"""A kernel of others, proved, that is measured with finalists: what a report calls it, and the kernel."""


class EnergyStopwatch(Protocol):
    """A stopwatch that can also say what energy launches take."""

    def energies(self, attempts: Sequence[Attempt], problem: Problem, windows: int) -> Energies:
        """Of `attempts`, none of which has failed, by so many windows of each, and of the baseline by one. All are
        unknown where the device does not count its energy. Raises as `Stopwatch.time` does."""


class ComparingStopwatch(Stopwatch, Protocol):
    """A stopwatch that can also measure several variants of one problem in rounds that they share."""

    def confirm(
        self, attempts: Sequence[Attempt], problem: Problem, others: Sequence[Side] = (), steady: bool = False
    ) -> Confirmation:
        """The times of `attempts`, none of which has failed, in their order, and the ratios of `others` among
        `rivals`. With `steady` each has the device for itself in turns that are long enough for its clock to settle,
        and what the vendor's library has besides its own choice is no rival. Raises as `time` does; one of `others`
        that is wrong here is left out."""
