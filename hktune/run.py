"""One tuning run, assembled: shapes, space, compiler, workers, stopwatch, store; then the loop; then the table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from rich.console import Console

from hktune.compile import CachedCompiler, hip_compiler
from hktune.device.emulated import EmulatedDevice
from hktune.dispatch import BuildOptions, build_table, write_table
from hktune.errors import InputError, StoreError
from hktune.launch_rule import LaunchRule
from hktune.measure.modelled import ModelledStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Identity, Problem, Timing, Trial
from hktune.prove import COMPILE_DEADLINE_S, EMULATION_DEADLINE_S, Prover
from hktune.report.progress import RunProgress
from hktune.report.summary import RunSummary
from hktune.rows import RowContext, now
from hktune.search import create_strategy
from hktune.settings import Settings
from hktune.shapes import load_shapes
from hktune.space import SearchSpace, load_space
from hktune.store import (
    TrialStore,
    capture_environment,
    judge_environment,
    lock_of,
    read_environment,
    write_environment,
)
from hktune.tuner import Budget, Search, Tuner
from hktune.verify.record import RecordStore, judge_sha256
from hktune.workers import LocalExecutor

WORKER_DEADLINE_S = COMPILE_DEADLINE_S + EMULATION_DEADLINE_S + 60.0


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks of a run; `out` None is out/<device> in the working directory."""

    shapes: Path
    space: Path
    device: str = "auto"
    strategy: str = "tpe"
    trials: int = 96
    time_budget_s: float | None = None
    out: Path | None = None
    seed: int = 0
    fresh: bool = False
    workers: int = os.cpu_count() or 1
    hipkittens: Path | None = None


@dataclass(frozen=True)
class Bench:
    """What compiles and proves the variants of a space. Calling it makes a prover, here or, pickled, in a worker."""

    space: Path
    seed: int
    settings: Settings
    hipkittens: Path | None = None

    def __call__(self) -> Prover:
        records = RecordStore(self.settings.cache_dir / "proofs")
        return Prover(load_space(self.space).template, self.compiler(), records, self.seed)

    def compiler(self) -> CachedCompiler:
        return hip_compiler(self.settings, self.hipkittens)


def tune(options: RunOptions, settings: Settings, command: Sequence[str], console: Console) -> RunSummary:
    """Tune every shape of `options.shapes`; leave trials, table, objects and environment in the results directory.

    Ctrl-C ends the search, not the run: the table is built from what was found. Raises HktuneError, one line, before
    anything is tried.
    """
    started = time.monotonic()
    identity = identify(options.device)
    names = {shape.problem: shape.name for shape in load_shapes(options.shapes)}
    space = load_space(options.space)
    searches = _searches(space, names, options)
    bench = Bench(options.space, options.seed, settings, options.hipkittens)
    compiler = bench.compiler()
    directory = options.out or Path("out") / identity.slug
    ledger = _Ledger(directory, RowContext(space.template, identity, options.strategy, options.seed), options.fresh)
    _check_environment(directory, identity, compiler.identity, command, options.seed)

    before = ledger.rows()
    with RunProgress(console, names, options.trials * len(names)) as progress:
        interrupted = _search(options, bench, searches, ledger, progress)
    ledger.explain_unservable(space, names)
    trials = ledger.rows()
    _publish(trials, space, compiler, identity, directory)
    proved = {trial.config_id for trial in trials} - {trial.config_id for trial in before}
    return RunSummary(names, trials, directory, time.monotonic() - started, len(proved), interrupted)


def identify(device: str) -> Identity:
    """The device to tune for. `auto` is the emulated gfx950, the only device of this version."""
    if device not in ("auto", "emulated"):
        raise InputError(f"device {device!r} cannot be tuned for by this version: use --device emulated")
    return EmulatedDevice().identity


class _Ledger:
    """The rows of one results directory that were made from one template."""

    def __init__(self, directory: Path, context: RowContext, fresh: bool) -> None:
        if fresh:
            _set_aside(directory)
        self._store = TrialStore(directory)
        self._context = context

    def rows(self) -> list[Trial]:
        sha256 = self._context.template.sha256
        return [trial for trial in self._store.read() if trial.template_sha256 == sha256]

    def record(self, attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        return self._store.append(self._context.row(attempt, problem, outcome))

    def explain_unservable(self, space: SearchSpace, names: dict[Problem, str]) -> None:
        """A shape that no config is legal for gets one row, with the reason."""
        tried = {trial.problem for trial in self.rows()}
        for problem in names:
            domain = space.domain(problem)
            if problem in tried or not domain.is_empty:
                continue
            config = next(iter(space.seeds), space.config({}))
            reason = "; ".join(str(violation) for violation in domain.violations(config))
            self._store.append(self._context.invalid(config, problem, reason))


def _set_aside(directory: Path) -> None:
    """Rename the trials of `directory` after the time of their last change, so that starting afresh loses nothing."""
    previous = directory / "trials.csv"
    if not previous.exists():
        return
    with lock_of(directory):
        changed = datetime.fromtimestamp(previous.stat().st_mtime, timezone.utc)
        previous.rename(directory / f"trials-{changed:%Y%m%dT%H%M%SZ}.csv")
        (directory / "environment.json").unlink(missing_ok=True)


def _check_environment(directory: Path, identity: Identity, compiler: str, command: Sequence[str], seed: int) -> None:
    """Save this run's environment, unless an earlier one's times must not stand beside it."""
    current = capture_environment(identity, compiler, judge_sha256(), command, seed, now())
    saved = read_environment(directory)
    hard = [mismatch for mismatch in judge_environment(saved, current) if mismatch.level == "hard"] if saved else []
    if hard:
        raise StoreError(f"{directory} holds trials of another set-up ({hard[0]}): pass --fresh or another --out")
    write_environment(current, directory)


def _searches(space: SearchSpace, names: dict[Problem, str], options: RunOptions) -> list[Search]:
    for problem, name in names.items():
        if problem.epilogue not in space.template.epilogues:
            known = ", ".join(space.template.epilogues)
            raise InputError(f"{name}: {space.template.name} has no epilogue {problem.epilogue!r}: it has {known}")
    domains = {problem: space.domain(problem) for problem in names}
    return [
        Search(problem, create_strategy(options.strategy, domain, options.seed), domain.is_legal)
        for problem, domain in domains.items()
    ]


def _search(options: RunOptions, bench: Bench, searches: list[Search], ledger: _Ledger, progress: RunProgress) -> bool:
    """Run the loop to its end; True when Ctrl-C ended it."""
    executor = LocalExecutor(bench, options.workers, WORKER_DEADLINE_S)
    try:
        budget = Budget(options.trials, options.time_budget_s)
        stopwatch = ModelledStopwatch(load_space(options.space).template)
        tuner = Tuner(searches, executor, stopwatch, ledger.record, budget, progress)
        tuner.replay(ledger.rows())
        progress.skipped(sum(len(search.tried) for search in searches))
        tuner.run()
    except KeyboardInterrupt:
        return True
    finally:
        executor.close()
    return False


def _publish(
    trials: Sequence[Trial], space: SearchSpace, compiler: CachedCompiler, identity: Identity, directory: Path
) -> None:
    """Write table and objects; the objects come from the cache, or from the same compiler again."""
    objects: dict[str, bytes] = {}

    def launch_of(trial: Trial) -> tuple[str, LaunchRule]:
        config = Config.from_json(trial.config)
        code = compiler.compile(space.template.render(config), COMPILE_DEADLINE_S)
        if isinstance(code, Failure) or code.sha256 != trial.object_sha256:
            raise StoreError(f"trial {trial.trial} cannot be built again to the same bytes: pass --fresh")
        objects[code.sha256] = code.data
        return code.symbol, space.launch_rule(config, trial.problem)

    version = metadata.version("hktune")
    options = BuildOptions(frozenset({space.template.name}) if space.template.fixed_order else frozenset())
    table = build_table(trials, launch_of, identity, compiler.identity, version, now(), options)
    write_table(table, objects, directory)
