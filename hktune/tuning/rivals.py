"""Kernels of others that a run on the emulated device races: each is proved, and its time modelled, as the run's own
are. So a run without a GPU has something to be faster than."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from hktune.compile.object_files import ObjectFiles
from hktune.core.command_words import words_of
from hktune.core.config import Config
from hktune.core.errors import HktuneError, InputError, StoreError
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.remedy import with_remedy
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.core.trial import Trial
from hktune.search import create_strategy
from hktune.space import SearchSpace, load_space
from hktune.space.listed import ListedDomain
from hktune.store import Environment, judge_environment, read_environment, write_environment
from hktune.template import Template, Templates
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.ledger import Ledger, Room, set_aside
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.progress import SILENT
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.trial_rows import RowContext

FOLDER = "rivals"
"""Where in a results directory their trials are: a results directory of its own kind, which no table is made of."""

PROPOSED = 4
"""So many configs of each space are proved for a shape, the best by the space's estimate; without one, all its seeds.
What is proved for one shape is timed on all."""
_LISTED_MAX = 1024
"""A space of no more configs is ordered by the estimate as a whole; of a larger one its seeds are."""
_ANY_NUMBER = 1_000_000


@dataclass(frozen=True)
class Rival:
    """`word` is what a user calls it, `name` what a report does; `spaces` are those of its kernels, for `arch`."""

    word: str
    name: str
    spaces: tuple[Path, ...]
    arch: str = "gfx950"


_PARTS = ("large", "prefetch", "splitk", "outf32")
AITER = Rival("aiter", "AITER", tuple(SPACES / f"gfx950_aiter_bf16_{part}.yaml" for part in _PARTS))
TRITON = Rival("triton", "Triton", (SPACES / "gfx950_triton_gemm.yaml",))
RIVALS = {rival.word: rival for rival in (AITER, TRITON)}


@dataclass(frozen=True)
class Raced:
    """What a rival came to: of each problem, its fastest proved trial. `trouble` says why there is not more."""

    rival: Rival
    best: Mapping[Problem, Trial]
    trouble: str | None = None


def race(
    rival: Rival, problems: Sequence[Problem], bench: EmulatedBench, directory: Path, time_s: float | None = None
) -> Raced:
    """Prove the rival's kernels that are here and model their time on `problems`; `directory` is that of the run, and
    keeps the rows. `time_s` is what it may take in all, and what was begun is finished. What goes wrong is the rival's
    trouble and stops nothing else."""
    best: dict[Problem, Trial] = {}
    until = None if time_s is None else time.monotonic() + time_s
    try:
        for path in rival.spaces:
            left_s = None if until is None else max(until - time.monotonic(), 0.0)
            for problem, trial in _raced(load_space(path), path, problems, bench, directory, left_s):
                if problem not in best or _time_us(trial) < _time_us(best[problem]):
                    best[problem] = trial
    except HktuneError as error:
        return Raced(rival, best, f"{rival.name} is not raced to the end: {error}")
    return Raced(rival, best)


def keep_comparable(directory: Path, environment: Environment, fresh: bool) -> None:
    """Set the rivals' rows of earlier runs in `directory` aside where they were proved and modelled otherwise than in
    `environment`, or with `fresh`. Raises StoreError."""
    folder = directory / FOLDER
    saved = read_environment(folder)
    other = saved is not None and any(found.level == "hard" for found in judge_environment(saved, environment))
    if fresh or other or saved is None:
        set_aside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(with_remedy(f"{folder}: cannot be made", error, "pass another DIR")) from None
    write_environment(environment, folder)


def fastest(raced: Sequence[Raced]) -> dict[Problem, tuple[str, float]]:
    """Of each problem, the fastest kernel of any rival: what a row calls it, and its time in us."""
    found: dict[Problem, tuple[str, float]] = {}
    for one in raced:
        for problem, trial in one.best.items():
            if problem not in found or _time_us(trial) < found[problem][1]:
                found[problem] = (_label(one.rival, problem, trial), _time_us(trial))
    return found


def same_product(problem: Problem, template: Template) -> Problem | None:
    """`problem` as `template` computes it: the same, or with a C of float32, which is more to write. None where it
    can do neither."""
    wide = replace(problem.operation, c="f32")
    known = [operation for operation in (problem.operation, wide) if template.does(operation)]
    return replace(problem, operation=known[0]) if known else None


def _raced(
    space: SearchSpace,
    path: Path,
    problems: Sequence[Problem],
    bench: EmulatedBench,
    directory: Path,
    time_s: float | None,
) -> Iterator[tuple[Problem, Trial]]:
    """Each of `problems` with the fastest trial of it in one space."""
    twins = {twin: problem for problem in problems if (twin := same_product(problem, space.template))}
    searches = [search for twin in twins if (search := _search(space, twin, bench))]
    if not searches:
        return
    context = RowContext(Templates(space.template), bench.identity, "exhaustive", bench.seed)
    ledger = Ledger(directory / FOLDER, context, fresh=False)
    work = replace(bench, space=path, others=()).open([search.problem for search in searches], {})
    try:
        record = partial(ledger.record_all, Room())
        budget = Budget(_ANY_NUMBER, time_s)
        tuner = Tuner(searches, work.executor, work.stopwatch, record=record, budget=budget, listener=SILENT)
        tuner.replay(ledger.rows())
        tuner.run()
    finally:
        work.close()
    rows = [row for row in ledger.rows() if row.status is Status.OK and row.problem in twins]
    for row in sorted(rows, key=_time_us, reverse=True):
        yield twins[row.problem], row


def _search(space: SearchSpace, problem: Problem, bench: EmulatedBench) -> Search | None:
    """What is proved for `problem` of what is here; None where nothing is."""
    own = space.for_operation(problem.operation)
    listed = ListedDomain(own, problem, proposed(own, problem, bench.settings))
    if listed.is_empty:
        return None
    strategy = create_strategy("exhaustive", listed, bench.seed)
    return Search(problem, strategy, own.domain(problem).is_legal, operation=own.template.operation)


def proposed(
    space: SearchSpace, problem: Problem, settings: Settings, fits: Callable[[Config], bool] | None = None
) -> list[Config]:
    """What of `space` is raced on `problem`: PROPOSED says how many of what is here and `fits`."""
    domain = space.domain(problem)
    listed = filter(fits, domain.enumerate() if space.raw_count <= _LISTED_MAX else domain.seeds)
    in_order = ListedDomain(space, problem, listed).enumerate()
    here = (config for config in in_order if is_here(space, config, settings))
    return list(islice(here, PROPOSED if domain.has_estimate else None))


def is_here(space: SearchSpace, config: Config, settings: Settings) -> bool:
    """Whether what `config` needs besides a compiler is on this machine."""
    if objects := space.template.objects:
        return ObjectFiles(settings).has(objects.file(config))
    return space.template.language != "triton" or find_spec("triton") is not None


def _label(rival: Rival, problem: Problem, trial: Trial) -> str:
    config = " ".join(words_of(Config.from_json(trial.config)))
    wider = "" if trial.operation == problem.operation else f", as {trial.operation}"
    return f"{rival.name}: {config}{wider} (modelled)"


def _time_us(trial: Trial) -> float:
    assert trial.time_us is not None, "an ok trial has a time"
    return trial.time_us


def chosen_rivals(words: Sequence[str] | None, settings: Settings, arch: str = "gfx950") -> list[Rival]:
    """The rivals that `words` name; without words, those of the settings that are here. Raises InputError for one that
    is not known, has no kernels for `arch`, or is asked for and not here."""
    for word in words if words is not None else settings.rivals or ():
        if word not in RIVALS:
            raise InputError(f"no rival {word}: known are {', '.join(RIVALS)}, or none alone")
    if words is None:
        usual = RIVALS if settings.rivals is None else settings.rivals
        return [RIVALS[word] for word in usual if RIVALS[word].arch == arch and _any_here(RIVALS[word], settings)]
    for word in words:
        if RIVALS[word].arch != arch:
            raise InputError(f"{RIVALS[word].name}'s kernels are for {RIVALS[word].arch}, this is {arch}: leave it out")
        if not _any_here(RIVALS[word], settings):
            raise InputError(f"{RIVALS[word].name} is not here: pip install 'hktune[{word}]'")
    return [RIVALS[word] for word in words]


def _any_here(rival: Rival, settings: Settings) -> bool:
    spaces = [load_space(path) for path in rival.spaces]
    return any(
        is_here(space, config, settings) for space in spaces for config in islice(space.enumerate(), _LISTED_MAX)
    )
