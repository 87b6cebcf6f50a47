"""What compiles, proves and times the variants of one space: an assembly for the emulated device, one for GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from hktune.compile import CachedCompiler, CompilerByLanguage, compiler_for
from hktune.compile.compiler import Compiler
from hktune.core.board import DEFAULT_BOARD, Board
from hktune.core.calibration import Calibration
from hktune.core.candidate import Candidate
from hktune.core.command_words import command_line, spelled, words_of
from hktune.core.errors import DeviceError, InputError
from hktune.core.group_sizes import Tokens
from hktune.core.identity import Identity
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACE_OF, space_word
from hktune.core.vendor_algorithm import is_algorithm
from hktune.device.emulated import EmulatedDevice
from hktune.device.opening import open_device
from hktune.emulator.clock.calibrated import calibrated_rates
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import EnergyStopwatch, Stopwatch
from hktune.space import load_space, load_spaces
from hktune.template import Template
from hktune.tuning.gpus import share_out
from hktune.tuning.prebuilt import built_compiler
from hktune.tuning.vendor_rows import VendorBench
from hktune.verify.record import RecordStore, judge_sha256
from hktune.workers.executor import NO_LIMITS_ASKED, Executor, Limits, LocalExecutor, Prove
from hktune.workers.gpu_service import GpuService
from hktune.workers.gpu_worker import REQUEST_DEADLINE_S, ContainedStopwatch, GpuExecutor, GpuWorker, Serve, Usage
from hktune.workers.prover import COMPILE_DEADLINE_S, DEADLINE_S, ByTemplate, CompileOnly, Prover

_GRACE_S = 30.0
"""So long after a config's deadline its worker is killed: the emulator looks at the clock itself, and says more."""


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
class OpenGpuBench:
    """See OpenBench. A timing takes a GPU's time, so nothing is shared."""

    executor: Executor
    stopwatch: ContainedStopwatch
    shares: bool = False

    @property
    def comparing(self) -> ContainedStopwatch:
        return self.stopwatch

    @property
    def metered(self) -> ContainedStopwatch:
        return self.stopwatch

    @property
    def usage(self) -> Usage:
        return self.stopwatch.worker.usage

    @property
    def notes(self) -> Sequence[str]:
        return self.executor.notes

    def interrupt(self) -> None:
        self.stopwatch.worker.interrupt()

    def check_interrupt(self) -> None:
        self.stopwatch.worker.check_interrupt()

    def close(self) -> None:
        self.executor.close()


class MakeExecutor(Protocol):
    """Starts `workers` workers for a bench, within `deadline_s` and `limits` for each config."""

    def __call__(
        self, bench: EmulatedBench | GpuBench, workers: int, deadline_s: float, limits: Limits
    ) -> Executor: ...


def local_executor(bench: EmulatedBench | GpuBench, workers: int, deadline_s: float, limits: Limits) -> Executor:
    """Processes of this machine."""
    return LocalExecutor(bench, workers, deadline_s, limits.memory_of_each(workers))


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
    make_executor: MakeExecutor = local_executor
    tokens: Mapping[Problem, Tokens] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The board's; what a calibrated clock models is another device."""
        identity = EmulatedDevice(board=self.board).identity
        if self.calibration is None:
            return identity
        return replace(identity, name=f"{identity.name} as calibrated {self.calibration.id}")

    def __call__(self) -> Prove:
        return _by_template(self, self._prover_of)

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
        return _with_others(own, self)

    @property
    def judge(self) -> str | None:
        return judge_sha256()

    def parts(self, problems: Sequence[Problem]) -> list[tuple[Bench, list[Problem]]]:
        """The one, which has all workers."""
        return [(self, list(problems))]

    def open(self, problems: Sequence[Problem], quarantine: dict[Candidate, Failure]) -> OpenBench:
        """Start the workers."""
        del problems, quarantine
        executor = self.make_executor(self, self.workers, self._deadline_s + _GRACE_S, self.limits)
        rates = calibrated_rates(self.board, self.calibration)
        templates = load_spaces((self.space, *self.others)).templates
        stopwatch = ModelledStopwatch(templates, self.fastest, self.board, rates, self.tokens)
        return OpenEmulatedBench(executor, stopwatch)


@dataclass(frozen=True)
class GpuBench:
    """GPUs of this machine, by their numbers, all of one model. Compiles in as many processes as asked for, proves and
    times in one process for each GPU; what is opened is one GPU's (`parts`).

    `prebuilt` is a folder of `hktune build`, from which all objects are then taken. `known` is what the GPUs are, where
    they are another machine's; `make_executor` says where the compiling workers are. `tokens` are the sizes that groups
    of a problem had, where that is known: they are timed so.
    """

    kind: str
    space: Path
    seed: int
    settings: Settings
    hipkittens: Path | None = None
    workers: int = 1
    prebuilt: Path | None = None
    cache: str = "cold"
    gpus: tuple[int, ...] = (0,)
    limits: Limits = NO_LIMITS_ASKED
    others: tuple[Path, ...] = ()
    known: Identity | None = None
    tokens: Mapping[Problem, Tokens] = field(default_factory=dict)
    make_executor: MakeExecutor = local_executor

    @property
    def identity(self) -> Identity:
        return self.known or open_device(self.kind, self.gpus[0], self.settings).identity

    def __call__(self) -> Prove:
        compile_s = self.limits.deadline_s or COMPILE_DEADLINE_S
        return _by_template(self, lambda template, compiler: CompileOnly(template, compiler, compile_s))

    @property
    def compiler(self) -> CachedCompiler | CompilerByLanguage:
        if self.prebuilt:
            return _with_others(built_compiler(self.prebuilt), self)
        own = compiler_for(load_space(self.space).template.language, self.settings, self.hipkittens)
        return _with_others(own, self)

    def make_compiler(self) -> CachedCompiler | CompilerByLanguage:
        """The compiler, for the process that asks."""
        return self.compiler

    @property
    def judge(self) -> str | None:
        return None

    def parts(self, problems: Sequence[Problem]) -> list[tuple[Bench, list[Problem]]]:
        """A bench for each GPU that there is work for, with its part of the compiling workers, one at least."""
        shares = share_out(problems, len(self.gpus))
        parts: list[tuple[Bench, list[Problem]]] = []
        for index, share in enumerate(shares):
            workers = max(1, (self.workers + len(shares) - 1 - index) // len(shares))
            parts.append((replace(self, gpus=(self.gpus[index],), workers=workers), share))
        return parts

    def open(self, problems: Sequence[Problem], quarantine: dict[Candidate, Failure]) -> OpenGpuBench:
        """Start the compiling workers; the GPU's own starts with the first proof."""
        [gpu] = self.gpus
        service = self.service(problems)
        worker = GpuWorker(service, self.limits.deadline_s or REQUEST_DEADLINE_S, name=f"GPU {gpu}")
        stopwatch = ContainedStopwatch(worker, self._reproduce, quarantine)
        compile_s = (self.limits.deadline_s or COMPILE_DEADLINE_S) + _GRACE_S
        compiling = self.make_executor(self, self.workers, compile_s, self.limits)
        return OpenGpuBench(GpuExecutor(compiling, stopwatch), stopwatch)

    def service(self, problems: Sequence[Problem]) -> Callable[[], Serve]:
        """What the process that owns the GPU of this part calls."""
        [gpu] = self.gpus
        return GpuService(
            kind=self.kind,
            space=self.space,
            make_compiler=self.make_compiler,
            problems=tuple(problems),
            settings=self.settings,
            cache=self.cache,
            seed=self.seed,
            ordinal=gpu,
            others=self.others,
            tokens={problem: self.tokens[problem] for problem in problems if problem in self.tokens},
        )

    def _reproduce(self, candidate: Candidate, problem: Problem | None) -> str:
        if is_algorithm(candidate.config):
            shape = ("--problem", spelled(problem)) if problem else ()
            return f"{command_line('hktune', 'bench', '--device', self.kind, *shape)}  # on GPU {self.gpus[0]}"
        path, template = self._space_of(candidate)
        usual = candidate.operation == template.operation
        where = ("--problem", spelled(problem)) if problem else () if usual else ("--operation", candidate.operation)
        device = ("--device", self.kind, "--space", space_word(path))
        return (
            f"{command_line('hktune', 'bench', *device, *where, *words_of(candidate.config))}  # on GPU {self.gpus[0]}"
        )

    def _space_of(self, candidate: Candidate) -> tuple[Path, Template]:
        """The file of the space that a candidate is of, and its template."""
        templates = [(path, load_space(path).template) for path in (self.space, *self.others)]
        return next((each for each in templates if each[1].sha256 == candidate.template), templates[0])


def _by_template(bench: Bench, prove: Callable[[Template, Compiler], Prove]) -> Prove:
    """What proves or compiles candidates of all spaces of `bench`."""
    compiler, spaces = bench.compiler, load_spaces((bench.space, *bench.others))
    others = {space.template.sha256: prove(space.template, compiler) for space in spaces.others}
    own = prove(spaces.own.template, compiler)
    return ByTemplate(own, others) if others else own


def _with_others(own: CachedCompiler, bench: Bench) -> CachedCompiler | CompilerByLanguage:
    """`own`, and the compilers of the other languages that the spaces of `bench` have."""
    spaces = load_spaces((bench.space, *bench.others))
    languages = {space.template.language for space in spaces.others} - {spaces.own.template.language}
    others: dict[str, CachedCompiler] = {
        language: compiler_for(language, bench.settings, bench.hipkittens) for language in languages
    }
    return CompilerByLanguage(own, others) if others else own


def choose_device(device: str, space: Path | None, settings: Settings) -> tuple[str, Path]:
    """The kind of device to tune for, and the space: what was asked for, else what was found here.

    `auto` is the GPU found here whose architecture is that of `space` (if that is None: of a space that hktune
    brings), else the emulated gfx950. Raises InputError or DeviceError when what was asked for does not go together.
    """
    if device == "emulated":
        return device, _fitting(space, "gfx950", device)
    if device != "auto":
        return device, _fitting(space, open_device(device, settings=settings).identity.arch, device)
    for kind in ("hip", "cuda"):
        with contextlib.suppress(DeviceError):
            arch = open_device(kind, settings=settings).identity.arch
            if (space is None and arch in SPACE_OF) or (space is not None and load_space(space).arch.name == arch):
                return kind, _fitting(space, arch, kind)
    return "emulated", _fitting(space, "gfx950", "emulated")


def _fitting(space: Path | None, arch: str, device: str) -> Path:
    if space is None:
        if arch not in SPACE_OF:
            raise InputError(f"no search space for {arch} comes with hktune: pass --space")
        return SPACE_OF[arch]
    wanted = load_space(space).arch.name
    if wanted != arch:
        raise InputError(f"{space} is for {wanted}, the {device} device is {arch}: pass another --space or --device")
    return space
