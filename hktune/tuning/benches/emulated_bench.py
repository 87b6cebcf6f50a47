"""The emulated gfx950 as a bench: variants are proved on the emulator, in workers, and their times are modelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hktune.compile import CachedCompiler, CompilerByLanguage, compiler_for
from hktune.compile.compiler import Compiler
from hktune.core.board import DEFAULT_BOARD, Board
from hktune.core.calibration import Calibration
from hktune.core.candidate import Candidate
from hktune.core.group_sizes import Tokens
from hktune.core.identity import Identity
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.calibrated import calibrated_rates
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Stopwatch
from hktune.space import load_space, load_spaces
from hktune.template import Template
from hktune.tuning.benches.bench_workers import GRACE_S, MakeExecutor, by_template, local_executor, with_others
from hktune.tuning.benches.contract import Bench, OpenBench
from hktune.verify.record import RecordStore, judge_sha256
from hktune.workers.executor import NO_LIMITS_ASKED, Executor, Limits, Prove
from hktune.workers.prover import DEADLINE_S, Prover


@dataclass(frozen=True)
class OpenEmulatedBench:
    """See OpenBench. The thread that uses it is the main one, which gets KeyboardInterrupt without help."""

    executor: Executor
    stopwatch: Stopwatch
    shares: bool = True
    comparing: None = None
    metered: None = None
    usage: None = None

    @property
    def notes(self) -> Sequence[str]:
        return self.executor.notes

    def interrupt(self) -> None:
        pass

    def check_interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.executor.close()


@dataclass(frozen=True)
class EmulatedBench:
    """The emulated gfx950: proves on the emulator, in as many processes as asked for, and models times. `fastest` are
    the fastest kernels of rivals, which rows are compared with, by problem: a name, and a modelled time in us. Times
    are those of `board`, with the constants of `calibration`, and `tokens` are the sizes that groups of a problem have,
    where that is known.

    Calling it makes a prover, here or, pickled, in a worker; `make_executor` says where workers are.
    """

    space: Path
    seed: int
    settings: Settings
    hipkittens: Path | None = None
    workers: int = 1
    limits: Limits = NO_LIMITS_ASKED
    others: tuple[Path, ...] = ()
    fastest: Mapping[Problem, tuple[str, float]] = field(default_factory=dict)
    board: Board = DEFAULT_BOARD
    calibration: Calibration | None = None
    make_executor: MakeExecutor[EmulatedBench] = local_executor
    tokens: Mapping[Problem, Tokens] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The board's; what a calibrated clock models is another device."""
        identity = EmulatedDevice(board=self.board).identity
        if self.calibration is None:
            return identity
        return replace(identity, name=f"{identity.name} as calibrated {self.calibration.id}")

    def __call__(self) -> Prove:
        return by_template(self, self._prover_of)

    def prover(self) -> Prover:
        """What proves the variants of `space`."""
        return self._prover_of(load_space(self.space).template, self.compiler)

    def _prover_of(self, template: Template, compiler: Compiler) -> Prover:
        records = RecordStore(self.settings.cache_dir / "proofs")
        return Prover(template, compiler, records, self.seed, self._deadline_s)

    @property
    def _deadline_s(self) -> float:
        return self.limits.deadline_s or DEADLINE_S

    @property
    def compiler(self) -> CachedCompiler | CompilerByLanguage:
        own = compiler_for(load_space(self.space).template.language, self.settings, self.hipkittens)
        return with_others(own, self)

    @property
    def judge(self) -> str | None:
        return judge_sha256()

    def parts(self, problems: Sequence[Problem]) -> list[tuple[Bench, list[Problem]]]:
        """The one, which has all workers."""
        return [(self, list(problems))]

    def open(self, problems: Sequence[Problem], quarantine: dict[Candidate, Failure]) -> OpenBench:
        """Start the workers."""
        del problems, quarantine
        executor = self.make_executor(self, self.workers, self._deadline_s + GRACE_S, self.limits)
        rates = calibrated_rates(self.board, self.calibration)
        templates = load_spaces((self.space, *self.others)).templates
        stopwatch = ModelledStopwatch(templates, self.fastest, self.board, rates, self.tokens)
        return OpenEmulatedBench(executor, stopwatch)
