"""After the search: every shape's winner is timed at its neighbours' m too.

So a table knows where, between two tuned m, one kernel hands over to the other.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.operation import Operation
from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import ComparingStopwatch
from hktune.space import SearchSpace, Spaces
from hktune.tables import cross_trials
from hktune.template import Templates
from hktune.tuning.benches.contract import OpenBench
from hktune.tuning.confirming.confirmation import deciding, measure_together
from hktune.tuning.searching.cost import slowness
from hktune.tuning.searching.loop import POLL_S, Record
from hktune.tuning.trial_rows import candidate_of

ROUNDS = 3
"""A cross trial may make a new winner, which its neighbours have not met."""


def time_neighbours(
    spaces: Spaces,
    problems: Container[Problem],
    work: OpenBench,
    rows: Callable[[], list[Trial]],
    record: Record,
    append: Callable[[Trial], Trial],
) -> None:
    """Time what `tables.cross_trials` wants of `problems`, where it is legal; on a GPU with the shape's own best.
    `spaces` are those of the trials.

    `rows` reads the trials, `record` and `append` store one.
    """
    for _ in range(ROUNDS):
        trials = rows()
        wanted: defaultdict[Problem, list[Trial]] = defaultdict(list)
        for winner, problem in cross_trials(deciding(trials)):
            if problem in problems and _serves(spaces.of(winner.template_sha256), winner, problem):
                wanted[problem].append(winner)
        if not wanted:
            return
        if work.comparing:
            _measure(wanted, trials, spaces.templates, work.comparing, append)
        else:
            problems_of: defaultdict[Candidate, list[Problem]] = defaultdict(list)
            for problem, winners in wanted.items():
                for winner in winners:
                    template = spaces.of(winner.template_sha256).template
                    problems_of[candidate_of(template, _moved(winner, problem))].append(problem)
            try_configs(problems_of, work, record)


def try_configs(problems_of: Mapping[Candidate, Sequence[Problem]], work: OpenBench, record: Record) -> None:
    """Prove each candidate and time it on its problems; `record` stores each outcome."""
    waiting = deque(problems_of)
    while waiting or work.executor.pending:
        while waiting and work.executor.pending < work.executor.capacity:
            work.executor.submit(waiting.popleft())
        for attempt in work.executor.collect(POLL_S):
            for problem in problems_of[attempt.candidate]:
                record(attempt, problem, attempt.failure or work.stopwatch.time(attempt, problem))


def _serves(space: SearchSpace, winner: Trial, problem: Problem) -> bool:
    """Whether the config of `winner` is legal for `problem`."""
    return space.is_legal(Config.from_json(winner.config), problem)


def _measure(
    wanted: dict[Problem, list[Trial]],
    trials: Sequence[Trial],
    templates: Templates,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
) -> None:
    ok = [trial for trial in trials if trial.status is Status.OK]
    kernels = [trial for trial in ok if trial.is_kernel]

    def code(trial: Trial, problem: Problem) -> Operation:
        return templates.of(trial.template_sha256).code_operation(problem.operation)

    of_code = {(trial.made_from, code(trial, trial.problem)): trial for trial in kernels}
    rows_of = by_problem(deciding(ok))
    for problem, winners in wanted.items():
        best = min(rows_of[problem], key=slowness)
        moved = [_moved(of_code[winner.made_from, code(winner, problem)], problem) for winner in winners]
        measure_together([best, *moved], problem, templates, stopwatch, append, Stage.NEIGHBOUR)


def _moved(trial: Trial, problem: Problem) -> Trial:
    """`trial` as one of `problem`: the config may have been tried on other n and k alone."""
    return replace(trial, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation)
