"""One tuning run: begun, its rivals raced, its shapes searched for, and what it leaves when that is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from hktune.core.errors import HktuneError, SpaceError, TemplateError
from hktune.core.interruption import Interruption
from hktune.core.operation import Operation
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import space_word
from hktune.core.trial import Trial
from hktune.space import SearchSpace
from hktune.tuning.begun_run import BegunRun, begin
from hktune.tuning.benches.contract import Bench
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.confirming.confirmation import deciding
from hktune.tuning.ledger import Ledger, SharedDirectory
from hktune.tuning.part import Part, search_part
from hktune.tuning.rivals import fastest, keep_comparable, race
from hktune.tuning.run_options import RunOptions, asked_cluster
from hktune.tuning.run_summary import RunSummary
from hktune.tuning.searching.progress import Progress
from hktune.tuning.searching.searches import Budget
from hktune.tuning.searching.strategies_apart import StrategiesApart
from hktune.tuning.side_by_side import side_by_side
from hktune.workers.gpu_worker import total_usage

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
    with interruption.heard(), asked_cluster(options) as cluster:
        run = begin(options, settings, command, callbacks or Callbacks(), cluster)
        progress.expect(run.place.names, run.most_trials)
        stopped = _as_far_as_it_goes(partial(_race_and_search, run, progress), interruption)
        end = _ended(run, stopped, progress, interruption)
    if run.callbacks.failed:
        raise run.callbacks.failed
    return _summary(run, end, command, interruption.requested, time.monotonic() - started)


@dataclass(frozen=True)
class _End:
    """What a run has when all is done: its rows, and those of earlier runs; what of its search was `stopped`; what rows
    were `lost` with; and why there is no table."""

    trials: list[Trial]
    stopped: Sequence[HktuneError]
    lost: Sequence[HktuneError]
    untabled: Sequence[HktuneError]


def _ended(run: BegunRun, stopped: Sequence[HktuneError], progress: Progress, interruption: Interruption) -> _End:
    """Build the table, and wait for the studies."""
    place = run.place
    progress.phase("building the table")
    finished = not interruption.requested and not stopped
    trials, lost = _rows_at_the_end(run.ledger, place.spaces.own, place.names if finished else {})
    untabled = place.publish(deciding(trials), finished and not lost)
    run.trouble.extend(_finished_study(run, trials, progress, interruption))
    return _End(trials, stopped, lost, untabled)


def _summary(run: BegunRun, end: _End, command: Sequence[str], interrupted: bool, elapsed_s: float) -> RunSummary:
    """What a run came to, which took so long."""
    place, trials = run.place, end.trials
    return RunSummary(
        names=place.names,
        trials=trials,
        directory=place.directory,
        elapsed_s=elapsed_s,
        variants=len(_made(trials) - _made(run.before)),
        interrupted=interrupted,
        spaces=place.spaces,
        again=_again(run.device, run.options),
        command=tuple(command),
        usage=total_usage(work.usage for work in run.works if work.usage),
        stopped=tuple(dict.fromkeys(map(str, (*end.stopped, *end.lost, *end.untabled)))),
        notes=(*run.ledger.notes, *place.notes, *run.notes, *(note for work in run.works for note in work.notes)),
        raced=tuple(run.raced),
        trials_lost=bool(end.lost),
        to_correct=any(isinstance(error, SpaceError | TemplateError) for error in end.stopped),
        no_table=bool(end.untabled or place.spaces.own.template.not_for_production),
    )


def _finished_study(
    run: BegunRun, trials: Sequence[Trial], progress: Progress, interruption: Interruption
) -> list[str]:
    """Wait until the studies have all rows; what they could not be given."""
    if run.study is None:
        return []
    progress.phase("writing the studies")
    return run.study.finish(trials, lambda: interruption.requested)


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


def _race_and_search(run: BegunRun, progress: Progress) -> list[HktuneError]:
    """Time the rivals, then search in the time that is left; what ended some of the parts."""
    bench, started, budget_s = run.bench, time.monotonic(), run.options.time_budget_s
    source = Source.MODELLED if run.device == "emulated" else Source.MEASURED
    run.trouble.extend(run.earlier.learn(run.before, run.place.names, source))
    if isinstance(bench, EmulatedBench):
        _race(run, bench, progress)
        bench = replace(bench, fastest=fastest(run.raced))
    left_s = None if budget_s is None else max(budget_s - (time.monotonic() - started), 0.0)
    return _search(run, bench, Budget(run.options.trials, left_s, run.options.patience), progress)


def _race(run: BegunRun, bench: EmulatedBench, progress: Progress) -> None:
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


def _search(run: BegunRun, bench: Bench, budget: Budget, progress: Progress) -> list[HktuneError]:
    """Search all there is, on every GPU its part; what ended some of the parts."""
    parts = []
    for own, problems in bench.parts(list(run.place.names)):
        wanted = set(problems)
        searches = [search for search in run.searches if search.problem in wanted]
        options = run.options
        given = (run.settings, options.vendor_only, options.energy_budget_s, options.steady)
        parts.append((own, Part(searches, run.place.spaces, budget, run.rivals, *given)))
    if run.elsewhere is not None:
        run.works.append(run.elsewhere)
        try:
            return run.elsewhere.run([part for _, part in parts], run.ledger, run.context, progress, run.callbacks)
        finally:
            run.trouble.extend(run.elsewhere.trouble)
    return _search_here(run, parts, progress)


def _search_here(run: BegunRun, parts: Sequence[tuple[Bench, Part]], progress: Progress) -> list[HktuneError]:
    """Search `parts`, each on its bench, by loops of this process."""
    quarantine = run.ledger.quarantine()
    with ExitStack() as stack:
        tasks, interrupts = [], []
        for bench, part in parts:
            work = bench.open(part.problems, quarantine)
            stack.callback(work.close)
            run.works.append(work)
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
