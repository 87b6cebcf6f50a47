"""One tuning run, assembled: shapes, space, compiler, workers, stopwatch, store; then the loop; then the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hktune.core.calibration import read_calibration
from hktune.core.errors import HktuneError, InputError, StoreError
from hktune.core.interruption import Interruption
from hktune.core.operation import Operation
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.publish import sweep, sweep_below, temporary_folder
from hktune.core.settings import Settings
from hktune.core.shipped import space_word
from hktune.core.trial import Trial
from hktune.search import create_strategy
from hktune.space import SearchSpace, load_spaces, template_of
from hktune.space.listed import ListedDomain
from hktune.store import (
    Environment,
    capture_environment,
    judge_environment,
    read_environment,
    write_environment,
)
from hktune.store.studies.study_mirror import StudyMirror
from hktune.store.studies.study_place import StudyPlace
from hktune.tuning.benches.contract import Bench, OpenBench
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.benches.prebuilt import read_built
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.candidates import candidate_searches, candidate_spaces
from hktune.tuning.confirming.confirmation import deciding
from hktune.tuning.ledger import Ledger, SharedDirectory
from hktune.tuning.own_trials import require_own
from hktune.tuning.part import Part, search_part
from hktune.tuning.priors.earlier import Earlier
from hktune.tuning.rivals import Raced, Rival, chosen_rivals, fastest, keep_comparable, race
from hktune.tuning.run_options import RunOptions, asked_bench, asked_cluster, asked_device, calibrated_spaces
from hktune.tuning.run_summary import RunSummary
from hktune.tuning.searching.progress import Progress
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.searching.strategies_apart import StrategiesApart
from hktune.tuning.side_by_side import side_by_side
from hktune.tuning.table_place import TablePlace
from hktune.tuning.trial_rows import RowContext, now
from hktune.workers.gpu_worker import total_usage

if TYPE_CHECKING:
    from hktune.tuning.cluster.ray_search import RemoteSearch
    from hktune.workers.ray_cluster import Cluster

Work: TypeAlias = "OpenBench | RemoteSearch"
"""What was at work: it says what of GPUs it used, and what a person should know of it."""

RIVALS_SHARE = 0.25
"""Of a time budget, so much for rivals."""


def tune(
    options: RunOptions,
    settings: Settings,
    command: Sequence[str],
    progress: Progress,
    callbacks: Callbacks | None = None,
) -> RunSummary:
    """Tune every shape of `options.shapes`; leave trials, table, objects and environment in the results directory.

    Ctrl-C, SIGTERM and SIGHUP end the search, not the run: the table is built from what was found. So does what this
    machine cannot go on with; the summary says why. `callbacks` hear of every row that is stored. Raises HktuneError,
    one line, and KeyboardInterrupt, before anything is tried; at the end what a callback raised.
    """
    started = time.monotonic()
    interruption = Interruption()
    works: list[Work] = []
    with interruption.heard(), asked_cluster(options) as cluster:
        run = _begun(options, settings, command, callbacks or Callbacks(), cluster)
        place, ledger = run.place, run.ledger
        progress.expect(place.names, run.most_trials)
        stopped = _as_far_as_it_goes(partial(_race_and_search, run, progress, works), interruption)
        progress.phase("building the table")
        finished = not interruption.requested and not stopped
        trials, lost = _rows_at_the_end(ledger, place.spaces.own, place.names if finished else {})
        untabled = place.publish(deciding(trials), finished and not lost)
        stopped += [*lost, *untabled]
        run.trouble.extend(_finished_study(run, trials, progress, interruption))
    if run.callbacks.failed:
        raise run.callbacks.failed
    return RunSummary(
        names=place.names,
        trials=trials,
        directory=place.directory,
        elapsed_s=time.monotonic() - started,
        variants=len(_made(trials) - _made(run.before)),
        interrupted=interruption.requested,
        spaces=place.spaces,
        again=_again(run.device, options),
        command=tuple(command),
        usage=total_usage(work.usage for work in works if work.usage),
        stopped=tuple(dict.fromkeys(map(str, stopped))),
        notes=(*ledger.notes, *place.notes, *run.notes, *(note for work in works for note in work.notes)),
        raced=tuple(run.raced),
        trials_lost=bool(lost),
        no_table=bool(untabled or place.spaces.own.template.not_for_production),
    )


@dataclass(frozen=True)
class _Run:
    """What a run has before anything is tried; `before` are the rows of earlier ones, `most_trials` what may be
    recorded. `raced` and `trouble` fill as rivals are raced. `elsewhere` searches on GPUs that are not this
    machine's.
    """

    options: RunOptions
    device: str
    bench: Bench
    searches: list[Search]
    ledger: Ledger
    place: TablePlace
    before: list[Trial]
    rivals: list[Rival]
    most_trials: int
    environment: Environment
    earlier: Earlier
    callbacks: Callbacks
    context: RowContext
    elsewhere: RemoteSearch | None
    study: StudyMirror | None = None
    raced: list[Raced] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.place.settings

    @property
    def notes(self) -> list[str]:
        """What was noticed of kernels of others."""
        found = [*(one.trouble for one in self.raced if one.trouble), *self.trouble]
        own = self.place.spaces.own.template.sha256
        if self.options.candidates and all(search.template == own for search in self.searches):
            asked = ",".join(self.options.candidates)
            return [*found, f"--candidates {asked}: none computes a shape, or its files are not here (see --aiter)"]
        return found


def _begun(
    options: RunOptions, settings: Settings, command: Sequence[str], callbacks: Callbacks, cluster: Cluster | None
) -> _Run:
    """What `options` ask for, read and checked. Raises HktuneError."""
    device, space_file = asked_device(options, settings, cluster)
    found = options.found_shapes
    shapes = found.shapes
    names = {shape.problem: shape.name for shape in shapes}
    of_candidates = candidate_spaces(options.candidates)
    calibration = read_calibration(options.calibration) if options.calibration else None
    spaces = calibrated_spaces(load_spaces((space_file, *of_candidates)), device, calibration)
    rivals = [] if options.vendor_only else _rivals(options, device, spaces.own, settings)
    others = of_candidates if device == "emulated" else _with_rivals(of_candidates, rivals)
    bench, elsewhere = asked_bench(device, space_file, others, options, settings, calibration, cluster)
    earlier = Earlier(options.prior, spaces.own)
    searches = _searches(spaces.own, names, options, earlier)
    of_others = candidate_searches(spaces, list(names), options.strategy, options.seed, settings)
    searches += of_others
    most_trials = 0 if options.vendor_only else sum(search.most(options.trials) for search in searches)
    weights = {shape.problem: shape.weight for shape in shapes}
    for search in searches:
        search.weight = weights[search.problem]
    directory = options.out or Path("out") / bench.identity.slug
    place = TablePlace(directory, names, spaces, bench.compiler, bench.identity, settings)
    context = RowContext(spaces.templates, bench.identity, options.strategy, options.seed)
    ledger = Ledger(directory, context, options.fresh, callbacks)
    environment = _check_environment(directory, bench, command, options.seed)
    place.check()
    _sweep(directory, settings)
    before = ledger.rows()
    require_own(spaces, before, directory / "trials.csv")
    study = _begun_study(options, place, environment, before, callbacks)
    noted = [found.note] if found.note else []
    given = (options, device, bench, searches, ledger, place, before, rivals, most_trials, environment, earlier)
    return _Run(*given, callbacks, context, elsewhere, study, trouble=noted)


def _begun_study(
    options: RunOptions, place: TablePlace, environment: Environment, before: Sequence[Trial], callbacks: Callbacks
) -> StudyMirror | None:
    """What writes the rows to Optuna's studies, where that is asked for."""
    if options.study is None:
        return None
    study = StudyMirror(StudyPlace(options.study), place.names, place.spaces, environment)
    callbacks.also(study)
    study.begin(before)
    return study


def _finished_study(run: _Run, trials: Sequence[Trial], progress: Progress, interruption: Interruption) -> list[str]:
    """Wait until the studies have all rows; what they could not be given."""
    if run.study is None:
        return []
    progress.phase("writing the studies")
    return run.study.finish(trials, lambda: interruption.requested)


def _rivals(options: RunOptions, device: str, own: SearchSpace, settings: Settings) -> list[Rival]:
    """Whose kernels are raced. On a GPU, a kernel that is a candidate is no rival too: it would be measured twice."""
    chosen = chosen_rivals(options.rivals, settings, own.arch.name)
    if device == "emulated":
        return chosen
    candidates = {own.template.name, *map(template_of, candidate_spaces(options.candidates))}
    return [left for rival in chosen if (left := _without(rival, candidates)).spaces]


def _without(rival: Rival, templates: set[str]) -> Rival:
    """`rival` without its spaces of `templates`."""
    return replace(rival, spaces=tuple(path for path in rival.spaces if template_of(path) not in templates))


def _with_rivals(candidates: tuple[Path, ...], rivals: Sequence[Rival]) -> tuple[Path, ...]:
    """The spaces of both."""
    return (*candidates, *(path for rival in rivals for path in rival.spaces))


def _made(trials: Iterable[Trial]) -> set[tuple[tuple[str | None, str], Operation]]:
    """The variants that `trials` are of."""
    return {(trial.made_from, trial.operation.code) for trial in trials if trial.is_kernel}


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


def _check_environment(directory: Path, bench: Bench, command: Sequence[str], seed: int) -> Environment:
    """Save this run's environment, unless an earlier one's times must not be mixed with it."""
    current = capture_environment(bench.identity, bench.compiler.identity, bench.judge, command, seed, now())
    saved = read_environment(directory)
    hard = [mismatch for mismatch in judge_environment(saved, current) if mismatch.level == "hard"] if saved else []
    if hard:
        raise StoreError(f"{directory} holds trials of another set-up ({hard[0]}): pass --fresh or another --out")
    write_environment(current, directory)
    return current


def _searches(space: SearchSpace, names: dict[Problem, str], options: RunOptions, earlier: Earlier) -> list[Search]:
    of_operation = {problem.operation: _bound(space, problem, name) for problem, name in names.items()}
    built = {bound: read_built(options.prebuilt, bound) for bound in of_operation.values()} if options.prebuilt else {}
    searches = []
    for problem in names:
        own = of_operation[problem.operation]
        domain = earlier.leads(ListedDomain(own, problem, built[own]) if built else own.domain(problem))
        strategy = create_strategy(options.strategy, domain, options.seed)
        code, template = own.template.operation, own.template.sha256
        searches.append(Search(problem, strategy, domain.is_legal, operation=code, template=template))
    return searches


def _bound(space: SearchSpace, problem: Problem, name: str) -> SearchSpace:
    """`space` for the operation of `problem`, which is called `name`."""
    try:
        return space.for_operation(problem.operation)
    except InputError as unknown:
        raise InputError(f"{name}: {unknown}") from None


def _race_and_search(run: _Run, progress: Progress, works: list[Work]) -> list[HktuneError]:
    """Time the rivals, then search in the time that is left; what ended some of the parts."""
    bench, started, budget_s = run.bench, time.monotonic(), run.options.time_budget_s
    source = Source.MODELLED if run.device == "emulated" else Source.MEASURED
    run.trouble.extend(run.earlier.learn(run.before, run.place.names, source))
    if isinstance(bench, EmulatedBench):
        _race(run, bench, progress)
        bench = replace(bench, fastest=fastest(run.raced))
    left_s = None if budget_s is None else max(budget_s - (time.monotonic() - started), 0.0)
    return _search(run, bench, Budget(run.options.trials, left_s, run.options.patience), progress, works)


def _race(run: _Run, bench: EmulatedBench, progress: Progress) -> None:
    """Time the rivals. What keeps them from it stops nothing else."""
    directory, budget_s = run.place.directory, run.options.time_budget_s
    try:
        if run.rivals:
            keep_comparable(directory, run.environment, run.options.fresh)
    except HktuneError as error:
        run.trouble.append(f"no rival is raced: {error}")
        return
    for rival in run.rivals:
        progress.phase(f"proving and timing kernels of {rival.name}")
        time_s = None if budget_s is None else budget_s * RIVALS_SHARE / len(run.rivals)
        run.raced.append(race(rival, list(run.place.names), bench, directory, time_s))


def _search(run: _Run, bench: Bench, budget: Budget, progress: Progress, works: list[Work]) -> list[HktuneError]:
    """Search all there is, on every GPU its part; what ended some of the parts. `works` gets what was opened for it."""
    parts = []
    for own, problems in bench.parts(list(run.place.names)):
        wanted = set(problems)
        searches = [search for search in run.searches if search.problem in wanted]
        options = run.options
        given = (run.settings, options.vendor_only, options.energy_budget_s, options.steady)
        parts.append((own, Part(searches, run.place.spaces, budget, run.rivals, *given)))
    if run.elsewhere is not None:
        works.append(run.elsewhere)
        try:
            return run.elsewhere.run([part for _, part in parts], run.ledger, run.context, progress, run.callbacks)
        finally:
            run.trouble.extend(run.elsewhere.trouble)
    return _search_here(run, parts, progress, works)


def _search_here(
    run: _Run, parts: Sequence[tuple[Bench, Part]], progress: Progress, works: list[Work]
) -> list[HktuneError]:
    """Search `parts`, each on its bench, by loops of this process."""
    quarantine = run.ledger.quarantine()
    with ExitStack() as stack:
        tasks, interrupts = [], []
        for bench, part in parts:
            work = bench.open(part.problems, quarantine)
            stack.callback(work.close)
            works.append(work)
            interrupts.append(work.interrupt)
            if len(parts) > 1:
                apart = StrategiesApart(part.searches)
                stack.callback(apart.close)
                part = replace(part, searches=apart.searches)
            shared = SharedDirectory(run.place.directory, run.ledger, part.problems)
            stack.callback(shared.close)
            own = partial(search_part, part, work, run.ledger, shared, progress)
            tasks.append(partial(own, run.trouble, lambda: run.callbacks.enough))
        return side_by_side(tasks, interrupts)


def _sweep(directory: Path, settings: Settings) -> None:
    """Remove the temporary files that earlier runs, which were killed, left in the places that this one writes to."""
    sweep(directory.resolve(), directory / "objects", temporary_folder())
    sweep_below(*(settings.cache_dir / name for name in ("objects", "proofs", "precompiled", "hipkittens")))
