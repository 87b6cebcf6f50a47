"""What a run needs of a device: a bench, and what it does while it is at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hktune.compile import CachedCompiler, CompilerByLanguage
from hktune.core.candidate import Candidate
from hktune.core.identity import Identity
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.measure.stopwatch import EnergyStopwatch, Stopwatch
from hktune.tuning.benches.vendor_rows import VendorBench
from hktune.workers.executor import Executor
from hktune.workers.gpu_worker import Usage


class Bench(Protocol):
    """Everything that a search needs of one device: over `space`, and for candidates of the spaces `others`. `judge`
    names what models, where nothing is measured."""

    @property
    def identity(self) -> Identity: ...

    @property
    def space(self) -> Path: ...

    @property
    def others(self) -> tuple[Path, ...]: ...

    @property
    def compiler(self) -> CachedCompiler | CompilerByLanguage: ...

    @property
    def judge(self) -> str | None: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def hipkittens(self) -> Path | None: ...

    def parts(self, problems: Sequence[Problem]) -> list[tuple[Bench, list[Problem]]]:
        """The benches that may be at work side by side, and which of `problems` are each one's."""

    def open(self, problems: Sequence[Problem], quarantine: dict[Candidate, Failure]) -> OpenBench:
        """Put it to work. Benches side by side share `quarantine`: what one adds, the others do not run."""


class OpenBench(Protocol):
    """A bench at work, and what it does. Closing it ends every process that it started.

    `shares`: whether a variant that one problem asked for is timed on every other too, which is right where that costs
    nothing. `comparing` measures several variants in rounds that they share, and has the vendor's libraries: with it
    the best of a problem are confirmed. It is None where times are modelled, since a model has no rounds. So is
    `metered`, which says what energy launches take: an emulated device draws none. `usage` is what of a GPU was used,
    `notes` what a person should know of the workers.
    """

    @property
    def executor(self) -> Executor: ...

    @property
    def stopwatch(self) -> Stopwatch: ...

    @property
    def shares(self) -> bool: ...

    @property
    def comparing(self) -> VendorBench | None: ...

    @property
    def metered(self) -> EnergyStopwatch | None: ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def interrupt(self) -> None:
        """Let the thread that uses the bench get KeyboardInterrupt soon."""

    def check_interrupt(self) -> None:
        """Raise KeyboardInterrupt if `interrupt` was called."""

    def close(self) -> None: ...
