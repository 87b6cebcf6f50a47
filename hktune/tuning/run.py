"""One tuning run, assembled: shapes, space, compiler, workers, stopwatch, store; then the loop; then the table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hktune import __version__
from hktune.compile import CachedCompiler
from hktune.core.errors import HktuneError, InputError, StoreError
from hktune.core.identity import Identity
from hktune.core.interruption import Interruption
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import Operation
from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.publish import sweep, sweep_below, temporary_folder
from hktune.core.settings import Settings
from hktune.core.shapes import load_shapes
from hktune.core.shipped import space_word
from hktune.core.trial import Trial
from hktune.dispatch import check_table_place, saved_names, write_table
from hktune.search import create_strategy
from hktune.space import SearchSpace, load_space
from hktune.space.listed import ListedDomain
from hktune.store import (
    capture_environment,
    judge_environment,
    read_environment,
    write_environment,
)
from hktune.tables import BuildOptions, build_table
from hktune.tuning.benches import Bench, EmulatedBench, GpuBench, OpenBench, choose_device
from hktune.tuning.confirmation import confirm, deciding
from hktune.tuning.gpus import choose_gpus
from hktune.tuning.ledger import Ledger, SharedDirectory
from hktune.tuning.loop import Budget, Search, Tuner
from hktune.tuning.neighbours import time_neighbours
from hktune.tuning.own_trials import require_own
from hktune.tuning.prebuilt import read_built
from hktune.tuning.progress import Progress
from hktune.tuning.rivals import Raced, Rival, chosen_rivals, fastest, race
from hktune.tuning.run_summary import RunSummary
from hktune.tuning.side_by_side import side_by_side
from hktune.tuning.strategies_apart import StrategiesApart
from hktune.tuning.trial_rows import RowContext, candidate_of, now
from hktune.tuning.yardsticks import time_yardsticks
from hktune.workers.executor import Limits
from hktune.workers.gpu_worker import total_usage
from hktune.workers.prover import built_again

RIVALS_SHARE = 0.25
"""Of a time budget, so much for rivals."""


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks of a run. Without `out` it is out/<device> in the working directory, without `space`
    the one that comes with hktune for the device, without `gpus` all that this process sees, without `rivals` those
    that are here."""

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
    deadline_s: float | None = None
    worker_memory_gib: float | None = None
    rivals: tuple[str, ...] | None = None

    @property
    def limits(self) -> Limits:
        """What one config may take."""
        given = self.worker_memory_gib
        return Limits(self.deadline_s, None if given is None else int(given * (1 << 30)))


def tune(options: RunOptions, settings: Settings, command: Sequence[str], progress: Progress) -> RunSummary:
    """Tune every shape of `options.shapes`; leave trials, table, objects and environment in the results directory.

    Ctrl-C, SIGTERM and SIGHUP end the search, not the run: the table is built from what was found. So does what this
    machine cannot go on with; the summary says why. Raises HktuneError, one line, and KeyboardInterrupt, before
    anything is tried.
    """
    started = time.monotonic()
    interruption = Interruption()
    works: list[OpenBench] = []
    with interruption.heard():
        run = _begun(options, settings, command)
        place, ledger = run.place, run.ledger
        progress.expect(place.names, options.trials * len(place.names))
        stopped = _as_far_as_it_goes(partial(_race_and_search, run, progress, works), interruption)
        progress.phase("building the table")
        finished = not interruption.requested and not stopped
        trials, lost = _rows_at_the_end(ledger, place.space, place.names if finished else {})
        untabled = place.publish(deciding(trials), finished and not lost)
        stopped += [*lost, *untabled]
    return RunSummary(
        names=place.names,
        trials=trials,
        directory=place.directory,
        elapsed_s=time.monotonic() - started,
        variants=len(_made(trials) - _made(run.before)),
        interrupted=interruption.requested,
        space=place.space,
        again=_again(run.device, options),
        command=tuple(command),
        usage=total_usage(work.usage for work in works if work.usage),
        stopped=tuple(dict.fromkeys(map(str, stopped))),
        notes=(*ledger.notes, *place.notes, *(one.trouble for one in run.raced if one.trouble)),
        raced=tuple(run.raced),
        trials_lost=bool(lost),
        no_table=bool(untabled or place.space.template.not_for_production),
    )


@dataclass(frozen=True)
class _Run:
    """What a run has before anything is tried; `before` are the rows of earlier ones. `raced` fills as rivals do."""

    options: RunOptions
    device: str
    bench: Bench
    searches: list[Search]
    ledger: Ledger
    place: _Place
    before: list[Trial]
    rivals: list[Rival]
    raced: list[Raced]


def _begun(options: RunOptions, settings: Settings, command: Sequence[str]) -> _Run:
    """What `options` ask for, read and checked. Raises HktuneError."""
    device, space_file = choose_device(options.device, options.space, settings)
    names = {shape.problem: shape.name for shape in load_shapes(options.shapes)}
    space = load_space(space_file)
    bench = _bench(device, space_file, options, settings)
    searches = _searches(space, names, options)
    directory = options.out or Path("out") / bench.identity.slug
    place = _Place(directory, names, space, bench.compiler, bench.identity, settings)
    context = RowContext(space.template, bench.identity, options.strategy, options.seed)
    ledger = Ledger(directory, context, options.fresh)
    _check_environment(directory, bench, command, options.seed)
    place.check()
    _sweep(directory, settings)
    before = ledger.rows()
    require_own(space, before, directory / "trials.csv")
    rivals = _rivals(options, bench, settings)
    return _Run(options, device, bench, searches, ledger, place, before, rivals, [])


def _rivals(options: RunOptions, bench: Bench, settings: Settings) -> list[Rival]:
    if isinstance(bench, EmulatedBench):
        return chosen_rivals(options.rivals, settings)
    if options.rivals:
        raise InputError("--rivals are raced on the emulated device, a GPU races the vendor's library: leave it out")
    return []


def _made(trials: Iterable[Trial]) -> set[tuple[str, Operation]]:
    """The variants that `trials` are of."""
    return {(trial.config_id, trial.operation.code) for trial in trials}


def _rows_at_the_end(
    ledger: Ledger, space: SearchSpace, finished: Mapping[Problem, str]
) -> tuple[list[Trial], list[HktuneError]]:
    """All rows, with those of `finished` shapes that no config is legal for. Where the file went away, it is what the
    file held when it was last read, and why that is not all."""
    try:
        ledger.explain_unservable(space, finished)
        return ledger.rows(), []
    except HktuneError as error:
        return ledger.known(), [error]


def _as_far_as_it_goes(search: Callable[[], list[HktuneError]], interruption: Interruption) -> list[HktuneError]:
    """What ended `search`, or parts of it. An interrupt does too, and none does from here on."""
    try:
        stopped = search()
        interruption.defer()
    except KeyboardInterrupt:
        interruption.requested = True
        return []
    except HktuneError as error:
        interruption.defer()
        return [error]
    return stopped


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
        return EmulatedBench(space, options.seed, settings, options.hipkittens, options.workers, options.limits)
    return GpuBench(
        kind=device,
        space=space,
        seed=options.seed,
        settings=settings,
        hipkittens=options.hipkittens,
        workers=options.workers,
        prebuilt=options.prebuilt,
        cache=options.cache,
        gpus=choose_gpus(device, options.gpus, settings),
        limits=options.limits,
    )


def _check_environment(directory: Path, bench: Bench, command: Sequence[str], seed: int) -> None:
    """Save this run's environment, unless an earlier one's times must not be mixed with it."""
    current = capture_environment(bench.identity, bench.compiler.identity, bench.judge, command, seed, now())
    saved = read_environment(directory)
    hard = [mismatch for mismatch in judge_environment(saved, current) if mismatch.level == "hard"] if saved else []
    if hard:
        raise StoreError(f"{directory} holds trials of another set-up ({hard[0]}): pass --fresh or another --out")
    write_environment(current, directory)


def _searches(space: SearchSpace, names: dict[Problem, str], options: RunOptions) -> list[Search]:
    of_operation = {problem.operation: _bound(space, problem, name) for problem, name in names.items()}
    built = {bound: read_built(options.prebuilt, bound) for bound in of_operation.values()} if options.prebuilt else {}
    searches = []
    for problem in names:
        own = of_operation[problem.operation]
        domain = ListedDomain(own, problem, built[own]) if built else own.domain(problem)
        strategy = create_strategy(options.strategy, domain, options.seed)
        searches.append(Search(problem, strategy, domain.is_legal, operation=own.template.operation))
    return searches


def _bound(space: SearchSpace, problem: Problem, name: str) -> SearchSpace:
    """`space` for the operation of `problem`, which is called `name`."""
    try:
        return space.for_operation(problem.operation)
    except InputError as unknown:
        raise InputError(f"{name}: {unknown}") from None


def _race_and_search(run: _Run, progress: Progress, works: list[OpenBench]) -> list[HktuneError]:
    """Time the rivals, then search; what ended some of the parts."""
    bench, problems = run.bench, [search.problem for search in run.searches]
    if isinstance(bench, EmulatedBench):
        budget_s = run.options.time_budget_s
        for rival in run.rivals:
            progress.phase(f"proving and timing kernels of {rival.name}")
            time_s = None if budget_s is None else budget_s * RIVALS_SHARE
            run.raced.append(race(rival, problems, bench, run.place.directory, time_s))
        bench = replace(bench, others=fastest(run.raced))
    return _search(run, bench, progress, works)


def _search(run: _Run, bench: Bench, progress: Progress, works: list[OpenBench]) -> list[HktuneError]:
    """Search all there is, on every GPU its part; what ended some of the parts. `works` gets what was opened for it."""
    options, ledger = run.options, run.ledger
    budget, quarantine = Budget(options.trials, options.time_budget_s), ledger.quarantine()
    search_of = {search.problem: search for search in run.searches}
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
            shared = SharedDirectory(run.place.directory, ledger, problems)
            stack.callback(shared.close)
            tuner = Tuner(
                own,
                work.executor,
                work.stopwatch,
                record=partial(ledger.record_all, options.trials),
                budget=budget,
                listener=progress.listener(),
                share=work.shares,
                peers=shared,
            )
            tasks.append(partial(_search_part, tuner, own, work, run.place.space, ledger, shared, progress))
        return side_by_side(tasks, [work.interrupt for work in works])


def _search_part(
    tuner: Tuner,
    searches: list[Search],
    work: OpenBench,
    space: SearchSpace,
    ledger: Ledger,
    shared: SharedDirectory,
    progress: Progress,
) -> None:
    """Run one loop to its end and confirm what it found."""
    problems = [search.problem for search in searches]
    tuner.replay(shared.news())
    progress.skipped(sum(len(search.tried) for search in searches))
    progress.phase("searching")
    tuner.run()
    with shared.alone_at("finishing", work.check_interrupt):
        time_yardsticks(space, searches, work, ledger.record)
        if work.comparing:
            progress.phase("measuring the best again")
            confirm(ledger.rows(), {each.problem: each.operation for each in searches}, work.comparing, ledger.append)
        progress.phase("timing winners at their neighbours' m")
        record = partial(ledger.record, stage=Stage.NEIGHBOUR)
        time_neighbours(space, problems, work, ledger.rows, record, ledger.append)


def _sweep(directory: Path, settings: Settings) -> None:
    """Remove the temporary files that earlier runs, which were killed, left in the places that this one writes to."""
    sweep(directory.resolve(), directory / "objects", temporary_folder())
    sweep_below(*(settings.cache_dir / name for name in ("objects", "proofs", "precompiled", "hipkittens")))


@dataclass
class _Place:
    """Where the table of a run goes, and what it is made with. Shapes of earlier runs keep the names that they have
    there."""

    directory: Path
    names: Mapping[Problem, str]
    space: SearchSpace
    compiler: CachedCompiler
    identity: Identity
    settings: Settings

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed on the way."""
        return tuple(
            note for note in (self.settings.note, self.compiler.trouble, self.space.template.not_for_production) if note
        )

    def check(self) -> None:
        """Raise now, InputError or MachineError, what would keep the table from being made at the end."""
        check_table_place(self.directory)
        for problem in [] if self.space.template.not_for_production else list(self.names)[:1]:
            for config in self.space.domain(problem).seeds[:1]:
                self.space.launch_rule(config, problem)

    def publish(self, trials: Sequence[Trial], finished: bool) -> list[HktuneError]:
        """Write table and objects; what kept it from that. A search that ended early, with nothing found, leaves the
        table of an earlier one as it is."""
        if self.space.template.not_for_production:
            return []
        found = any(trial.status is Status.OK for trial in trials)
        try:
            if found or finished or not (self.directory / "table.json").exists():
                self._publish(trials)
        except HktuneError as error:
            return [error]
        return []

    def _publish(self, trials: Sequence[Trial]) -> None:
        """The objects come from the cache, or from the same compiler again."""
        objects: dict[str, bytes] = {}
        template = self.space.template

        def launch_of(trial: Trial) -> tuple[str, LaunchRule]:
            candidate = candidate_of(template, trial)
            if trial.object_sha256 not in objects:
                code = built_again(template, self.compiler, candidate, trial.object_sha256)
                if isinstance(code, str):
                    raise StoreError(f"trial {trial.trial} cannot be built again to the same bytes: pass --fresh")
                objects[code.sha256] = code.data
            return template.symbol(candidate.config), self.space.launch_rule(candidate.config, trial.problem)

        fixed_order = frozenset({template.name} if template.fixed_order else ())
        options = BuildOptions(fixed_order, names={**saved_names(self.directory), **self.names})
        table = build_table(
            trials,
            launch_of,
            identity=self.identity,
            compiler=self.compiler.identity,
            version=__version__,
            created_at=now(),
            options=options,
        )
        write_table(table, objects, self.directory)
