"""One tuning run, assembled: shapes, space, compiler, workers, stopwatch, store; then the loop; then the table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from rich.console import Console

from hktune import __version__
from hktune.apart import StrategiesApart
from hktune.bench import Bench, EmulatedBench, GpuBench, OpenBench, choose_device
from hktune.build import read_built
from hktune.compile import CachedCompiler
from hktune.confirm import confirm, deciding
from hktune.contained import QUARANTINED, Usage, total_usage
from hktune.dispatch import BuildOptions, build_table, saved_names, write_table
from hktune.errors import InputError, StoreError
from hktune.gpus import choose_gpus
from hktune.launch_rule import LaunchRule
from hktune.measure.stopwatch import Attempt
from hktune.model import Config, Failure, Identity, Problem, Status, Timing, Trial
from hktune.neighbours import time_neighbours
from hktune.prove import built_again
from hktune.report.progress import RunProgress
from hktune.report.summary import RunSummary
from hktune.rows import RowContext, now, require_own
from hktune.search import create_strategy
from hktune.settings import Settings
from hktune.shapes import load_shapes
from hktune.shipped import space_word
from hktune.side_by_side import side_by_side
from hktune.space import SearchSpace, load_space
from hktune.space.listed import ListedDomain
from hktune.store import (
    TrialStore,
    capture_environment,
    judge_environment,
    locked,
    read_environment,
    write_environment,
)
from hktune.tuner import Budget, Search, Tuner
from hktune.yardsticks import time_yardsticks


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks of a run; `out` None is out/<device> in the working directory, `space` None the one
    that comes with hktune for the device, `gpus` None all that this process sees."""

    shapes: Path
    space: Path | None = None
    device: str = "auto"
    strategy: str = "tpe"
    trials: int = 96
    time_budget_s: float | None = None
    out: Path | None = None
    seed: int = 0
    fresh: bool = False
    workers: int = os.cpu_count() or 1
    hipkittens: Path | None = None
    prebuilt: Path | None = None
    cache: str = "cold"
    gpus: int | None = None


def tune(options: RunOptions, settings: Settings, command: Sequence[str], console: Console) -> RunSummary:
    """Tune every shape of `options.shapes`; leave trials, table, objects and environment in the results directory.

    Ctrl-C ends the search, not the run: the table is built from what was found. Raises HktuneError, one line, before
    anything is tried.
    """
    started = time.monotonic()
    with RunProgress(console) as progress:
        device, space_file = choose_device(options.device, options.space, settings)
        names = {shape.problem: shape.name for shape in load_shapes(options.shapes)}
        space = load_space(space_file)
        bench = _bench(device, space_file, options, settings)
        searches = _searches(space, names, options)
        compiler, identity = bench.compiler, bench.identity
        directory = options.out or Path("out") / identity.slug
        ledger = _Ledger(directory, RowContext(space.template, identity, options.strategy, options.seed), options.fresh)
        _check_environment(directory, bench, command, options.seed)

        before = ledger.rows()
        require_own(space, before, directory / "trials.csv")
        progress.expect(names, options.trials * len(names))
        interrupted, usage = _search(options, bench, space, searches, ledger, progress)
        progress.phase("building the table")
        ledger.explain_unservable(space, names)
        trials = ledger.rows()
        _publish(deciding(trials), space, compiler, identity, directory, names)
    proved = {trial.config_id for trial in trials} - {trial.config_id for trial in before}
    took = (time.monotonic() - started, len(proved), interrupted)
    return RunSummary(names, trials, directory, *took, space, _again(device, options), usage)


def _again(device: str, options: RunOptions) -> list[str]:
    """The command that proves one config again, up to what names the config."""
    command = ["verify"] if device == "emulated" else ["bench", "--device", device]
    return ["hktune", *command, *(["--space", space_word(options.space)] if options.space else [])]


def _bench(device: str, space: Path, options: RunOptions, settings: Settings) -> Bench:
    if device == "emulated":
        if options.prebuilt:
            raise InputError("--prebuilt objects are for a GPU: the emulated device keeps its own cache")
        if options.gpus and options.gpus > 1:
            raise InputError(f"--gpus {options.gpus}: the emulated device is one; leave it out")
        return EmulatedBench(space, options.seed, settings, options.hipkittens, options.workers)
    gpus = choose_gpus(device, options.gpus, settings)
    how = (options.hipkittens, options.workers, options.prebuilt, options.cache, gpus)
    return GpuBench(device, space, options.seed, settings, *how)


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

    def append(self, trial: Trial) -> Trial:
        return self._store.append(trial)

    def quarantine(self) -> dict[str, Failure]:
        """Configs that cost an earlier run its worker."""
        failed = [row for row in self.rows() if row.status in (Status.CRASHED, Status.TIMEOUT)]
        return {
            row.config_id: Failure(row.status, row.detail) for row in failed if row.detail and QUARANTINED in row.detail
        }

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
    with locked(directory):
        changed = datetime.fromtimestamp(previous.stat().st_mtime, timezone.utc)
        previous.rename(directory / f"trials-{changed:%Y%m%dT%H%M%SZ}.csv")
        (directory / "environment.json").unlink(missing_ok=True)


def _check_environment(directory: Path, bench: Bench, command: Sequence[str], seed: int) -> None:
    """Save this run's environment, unless an earlier one's times must not stand beside it."""
    current = capture_environment(bench.identity, bench.compiler.identity, bench.judge, command, seed, now())
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
    built = read_built(options.prebuilt, space) if options.prebuilt else None
    domains = {
        problem: space.domain(problem) if built is None else ListedDomain(space, problem, built) for problem in names
    }
    return [
        Search(problem, create_strategy(options.strategy, domain, options.seed), domain.is_legal)
        for problem, domain in domains.items()
    ]


def _search(
    options: RunOptions,
    bench: Bench,
    space: SearchSpace,
    searches: list[Search],
    ledger: _Ledger,
    progress: RunProgress,
) -> tuple[bool, Usage | None]:
    """Search all there is, on every GPU its part; whether Ctrl-C ended it, and what of the GPUs it took."""
    budget, quarantine = Budget(options.trials, options.time_budget_s), ledger.quarantine()
    search_of = {search.problem: search for search in searches}
    works: list[OpenBench] = []
    with ExitStack() as stack:
        tasks = []
        parts = bench.parts(list(search_of))
        for part, problems in parts:
            work = part.open(problems, quarantine)
            stack.callback(work.close)
            works.append(work)
            own = [search_of[problem] for problem in problems]
            if len(parts) > 1:
                apart = StrategiesApart(own)
                stack.callback(apart.close)
                own = apart.searches
            tuner = Tuner(own, work.executor, work.stopwatch, ledger.record, budget, progress.listener(), work.shares)
            tasks.append(partial(_search_part, tuner, own, work, space, ledger, progress))
        interrupted = side_by_side(tasks, [work.interrupt for work in works])
    return interrupted, total_usage(work.usage for work in works if work.usage)


def _search_part(
    tuner: Tuner,
    searches: list[Search],
    work: OpenBench,
    space: SearchSpace,
    ledger: _Ledger,
    progress: RunProgress,
) -> None:
    """Run one loop to its end and confirm what it found."""
    problems = [search.problem for search in searches]
    tuner.replay(ledger.rows())
    progress.skipped(sum(len(search.tried) for search in searches))
    progress.phase("searching")
    tuner.run()
    time_yardsticks(space, searches, work, ledger.record)
    if work.confirming:
        progress.phase("measuring the best again")
        confirm(ledger.rows(), problems, work.confirming, ledger.append)
    progress.phase("timing winners at their neighbours' m")
    time_neighbours(space, problems, work, ledger.rows, ledger.record, ledger.append)


def _publish(
    trials: Sequence[Trial],
    space: SearchSpace,
    compiler: CachedCompiler,
    identity: Identity,
    directory: Path,
    names: dict[Problem, str],
) -> None:
    """Write table and objects; the objects come from the cache, or from the same compiler again. Shapes of earlier runs
    keep the names that they have there."""
    objects: dict[str, bytes] = {}

    def launch_of(trial: Trial) -> tuple[str, LaunchRule]:
        config = Config.from_json(trial.config)
        code = built_again(space.template, compiler, config, trial.object_sha256)
        if isinstance(code, str):
            raise StoreError(f"trial {trial.trial} cannot be built again to the same bytes: pass --fresh")
        objects[code.sha256] = code.data
        return code.symbol, space.launch_rule(config, trial.problem)

    fixed_order = frozenset({space.template.name} if space.template.fixed_order else ())
    options = BuildOptions(fixed_order, names={**saved_names(directory), **names})
    table = build_table(trials, launch_of, identity, compiler.identity, __version__, now(), options)
    write_table(table, objects, directory)
