"""What a run has before anything is tried: what a caller asks for, read, checked and opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hktune.core.calibration import read_calibration
from hktune.core.errors import InputError, StoreError
from hktune.core.problem import Problem
from hktune.core.publish import sweep, sweep_below, temporary_folder
from hktune.core.settings import Settings
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
from hktune.tuning.benches.prebuilt import read_built
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.candidates import candidate_searches, candidate_spaces
from hktune.tuning.ledger import Ledger
from hktune.tuning.own_trials import require_own
from hktune.tuning.priors.earlier import Earlier
from hktune.tuning.rivals import Raced, Rival, chosen_rivals
from hktune.tuning.run_options import RunOptions, asked_bench, asked_device, calibrated_spaces, check_vendor_only
from hktune.tuning.searching.searches import Search
from hktune.tuning.table_place import TablePlace
from hktune.tuning.trial_rows import RowContext, now

if TYPE_CHECKING:
    from hktune.tuning.cluster.ray_search import RemoteSearch
    from hktune.workers.ray_cluster import Cluster

Work: TypeAlias = "OpenBench | RemoteSearch"
"""What was at work: it says what of GPUs it used, and what a person should know of it."""


@dataclass(frozen=True)
class BegunRun:
    """What a run has before anything is tried; `before` are the rows of earlier ones, `most_trials` what may be
    recorded. `raced` and `trouble` fill as rivals are raced, `works` as searches begin. `elsewhere` searches on GPUs
    that are not this machine's.
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
    works: list[Work] = field(default_factory=list)

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


def begin(
    options: RunOptions, settings: Settings, command: Sequence[str], callbacks: Callbacks, cluster: Cluster | None
) -> BegunRun:
    """What `options` ask for, read and checked. Raises HktuneError."""
    check_vendor_only(options)
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
    spaces = spaces.on(bench.identity.compute_units)
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
    return BegunRun(*given, callbacks, context, elsewhere, study, trouble=noted)


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


def _check_environment(directory: Path, bench: Bench, command: Sequence[str], seed: int) -> Environment:
    """Save this run's environment, unless an earlier one's times must not be mixed with it."""
    current = capture_environment(bench.identity, bench.compiler.identity, bench.judge, command, seed, now())
    saved = read_environment(directory)
    hard = [mismatch for mismatch in judge_environment(saved, current) if mismatch.level == "hard"] if saved else []
    if hard:
        raise StoreError(f"{directory} holds trials of another set-up ({hard[0]}): pass --fresh or another --out")
    write_environment(current, directory)
    return current


def _sweep(directory: Path, settings: Settings) -> None:
    """Remove the temporary files that earlier runs, which were killed, left in the places that this one writes to."""
    sweep(directory.resolve(), directory / "objects", temporary_folder())
    sweep_below(*(settings.cache_dir / name for name in ("objects", "proofs", "precompiled", "hipkittens")))
