"""GPUs of this machine as a bench: variants are compiled in workers, proved and timed in a process for each GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hktune.compile import CachedCompiler, CompilerByLanguage, compiler_for
from hktune.core.candidate import Candidate
from hktune.core.command_words import command_line, spelled, words_of
from hktune.core.group_sizes import Tokens
from hktune.core.identity import Identity
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import space_word
from hktune.core.vendor_algorithm import is_algorithm
from hktune.device.opening import open_device
from hktune.space import load_space
from hktune.template import Template
from hktune.tuning.benches.bench_workers import GRACE_S, MakeExecutor, by_template, local_executor, with_others
from hktune.tuning.benches.contract import Bench
from hktune.tuning.benches.gpus import share_out
from hktune.tuning.benches.prebuilt import built_compiler
from hktune.workers.executor import NO_LIMITS_ASKED, Executor, Limits, Prove
from hktune.workers.gpu_service import GpuService
from hktune.workers.gpu_worker import REQUEST_DEADLINE_S, ContainedStopwatch, GpuExecutor, GpuWorker, Serve, Usage
from hktune.workers.prover import COMPILE_DEADLINE_S, CompileOnly


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
    make_executor: MakeExecutor[GpuBench] = local_executor

    @property
    def identity(self) -> Identity:
        return self.known or open_device(self.kind, self.gpus[0], self.settings).identity

    def __call__(self) -> Prove:
        compile_s = self.limits.deadline_s or COMPILE_DEADLINE_S
        return by_template(self, lambda template, compiler: CompileOnly(template, compiler, compile_s))

    @property
    def compiler(self) -> CachedCompiler | CompilerByLanguage:
        if self.prebuilt:
            return with_others(built_compiler(self.prebuilt), self)
        own = compiler_for(load_space(self.space).template.language, self.settings, self.hipkittens)
        return with_others(own, self)

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
        compile_s = (self.limits.deadline_s or COMPILE_DEADLINE_S) + GRACE_S
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
