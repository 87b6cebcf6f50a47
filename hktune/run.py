"""One tuning run, assembled: shapes, space, compiler, workers, stopwatch, store; then the loop; then the table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from rich.console import Console

from hktune.arch import arch_named
from hktune.compile import CachedCompiler, hip_compiler
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import build_table, write_table
from hktune.errors import InputError
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.model import CodeObject, Config, Failure, Identity, Problem, Source, Status, Timing, Trial
from hktune.prove import COMPILE_DEADLINE_S, EMULATION_DEADLINE_S, Prover
from hktune.report.progress import RunProgress
from hktune.report.summary import RunSummary
from hktune.search import create_strategy
from hktune.settings import Settings
from hktune.shapes import ShapeList, load_shapes
from hktune.space import SearchSpace, load_space
from hktune.store import TrialStore, capture_environment, judge_environment, read_environment, write_environment
from hktune.tuner import Budget, Search, Tuner, invalid
from hktune.verify.record import RecordStore
from hktune.workers import LocalExecutor, Prove

CHECKOUT = Path(__file__).resolve().parent.parent
WORKER_DEADLINE_S = COMPILE_DEADLINE_S + EMULATION_DEADLINE_S + 60.0


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks of a run. `out` None is results/<device> in the working directory."""

    shapes: Path
    space: Path = CHECKOUT / "search_spaces" / "gfx950_gemm_bf16.yaml"
    device: str = "auto"
    strategy: str = "tpe"
    trials: int = 96
    time_budget_s: float | None = None
    out: Path | None = None
    seed: int = 0
    fresh: bool = False
    workers: int = os.cpu_count() or 1
    hipkittens: Path | None = None


def tune(options: RunOptions, settings: Settings, command: Sequence[str], console: Console) -> RunSummary:
    """Tune every shape of `options.shapes` and leave trials, table, objects and environment in the results directory.

    Ctrl-C ends the search, not the run: the table is built from what was found. Raises InputError or ToolchainError
    before anything is tried.
    """
    started = time.monotonic()
    identity = _identity(options)
    shapes = load_shapes(options.shapes)
    space = load_space(options.space)
    bench = _Bench(options, settings)
    run = _Run(options, shapes, space, bench, identity, command)
    progress = RunProgress(console, run.names, options.trials * len(shapes))
    with progress:
        interrupted = run.search(progress)
    trials = run.store.read()
    _publish(trials, space, bench, identity, run.directory)
    return RunSummary(run.names, trials, run.directory, time.monotonic() - started, run.variants, interrupted)


@dataclass(frozen=True)
class _Bench:
    """Builds the same prover in this process and, pickled, in every worker."""

    options: RunOptions
    settings: Settings

    def __call__(self) -> Prove:
        compiler = self.compiler()
        records = RecordStore(self.settings.cache_dir / "proofs")
        return Prover(load_space(self.options.space).template, compiler, records, self.options.seed)

    def compiler(self) -> CachedCompiler:
        return hip_compiler(self.settings, self.options.hipkittens)


class _Run:
    """The state of one run: where rows go, and how many variants were proved for them."""

    def __init__(
        self,
        options: RunOptions,
        shapes: ShapeList,
        space: SearchSpace,
        bench: _Bench,
        identity: Identity,
        command: Sequence[str],
    ) -> None:
        self._options = options
        self._space = space
        self._bench = bench
        self._stopwatch = ModelledStopwatch(space.template)
        self.names = {shape.problem: shape.name for shape in shapes}
        self.directory = options.out or Path("results") / identity.slug
        self.variants = 0
        self._started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        compiler = bench.compiler()
        self._identity = identity
        self.store = _open_store(self.directory, options.fresh)
        environment = capture_environment(identity, compiler.identity, command, options.seed, space.template.sha256)
        _check_environment(self.directory, environment)
        write_environment(environment, self.directory)

    def search(self, progress: RunProgress) -> bool:
        """Run the loop to its end; True when Ctrl-C ended it."""
        done = self.store.read()
        searches = [self._search(problem) for problem in self.names]
        options = self._options
        executor = LocalExecutor(self._bench, options.workers, WORKER_DEADLINE_S)
        budget = Budget(options.trials, options.time_budget_s)
        tuner = Tuner(searches, executor, self._stopwatch, self._record, budget, progress)
        tuner.replay(done)
        progress.skipped(sum(len(search.tried) for search in searches))
        try:
            self._record_unservable(searches)
            tuner.run()
        except KeyboardInterrupt:
            return True
        finally:
            executor.close()
        return False
