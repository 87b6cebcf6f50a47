"""After the search: every shape's winner is timed at its neighbours' m too.

So a table knows where, between two tuned m, one kernel hands over to the other.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial, by_problem
from hktune.measure.stopwatch import ComparingStopwatch
from hktune.space import SearchSpace
from hktune.tables import cross_trials
from hktune.template import Template
from hktune.tuning.benches import OpenBench
from hktune.tuning.confirmation import deciding, measure_together
from hktune.tuning.cost import slowness
from hktune.tuning.loop import POLL_S, Record

ROUNDS = 3
"""A cross trial may make a new winner, which its neighbours have not met."""


def time_neighbours(
    space: SearchSpace,
    problems: Container[Problem],
    work: OpenBench,
    rows: Callable[[], list[Trial]],
    record: Record,
    append: Callable[[Trial], Trial],
) -> None:
    """Time what `dispatch.cross_trials` wants of `problems`, where it is legal; on a GPU with the shape's own best.

    `rows` reads the trials, `record` and `append` store one.
    """
    for _ in range(ROUNDS):
        trials = rows()
        wanted: defaultdict[Problem, list[Config]] = defaultdict(list)
        for config, problem in cross_trials(deciding(trials)):
            if problem in problems and space.is_legal(config, problem):
                wanted[problem].append(config)
        if not wanted:
            return
        if work.comparing:
            _measure(wanted, trials, space.template, work.comparing, append)
        else:
            problems_of: defaultdict[Candidate, list[Problem]] = defaultdict(list)
            for problem, configs in wanted.items():
                operation = space.template.code_operation(problem.operation)
                for config in configs:
                    problems_of[Candidate(config, operation)].append(problem)
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


def _measure(
    wanted: dict[Problem, list[Config]],
    trials: Sequence[Trial],
    template: Template,
    stopwatch: ComparingStopwatch,
    append: Callable[[Trial], Trial],
) -> None:
    ok = [trial for trial in trials if trial.status is Status.OK]
    of_code = {(trial.config_id, template.code_operation(trial.operation)): trial for trial in ok}
    rows_of = by_problem(deciding(ok))
    for problem, configs in wanted.items():
        best = min(rows_of[problem], key=slowness)
        operation = template.code_operation(problem.operation)
        moved = [_moved(of_code[config.id, operation], problem) for config in configs]
        measure_together([best, *moved], problem, operation, stopwatch, append, Stage.NEIGHBOUR)


def _moved(trial: Trial, problem: Problem) -> Trial:
    """`trial` as one of `problem`: the config may have been tried on other n and k alone."""
    return replace(trial, m=problem.m, n=problem.n, k=problem.k, operation=problem.operation)
