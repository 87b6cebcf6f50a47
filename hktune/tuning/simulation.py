"""A search replayed on a recording: the strategies and the loop of a run, with outcomes that were recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, product

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search import Outcome, Strategy, create_strategy
from hktune.store.recordings import Recording
from hktune.tuning.searching.cost import slowness
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.progress import SILENT
from hktune.tuning.searching.searches import Budget, Search


@dataclass(frozen=True)
class Replay:
    """What one search found on a recording. `costs` are those of its trials in the order in which it learned of them,
    infinite where a config failed; a failure is a trial like any other. `best` is the least of the recording. Of
    processor time, `asking_s` went into asking and telling the strategy, `asks` times."""

    costs: tuple[float, ...]
    best: float
    asks: int
    asking_s: float

    def share(self, trials: int) -> float:
        """Of the optimum after so many trials: the best that was recorded over the best found, 0 where none was."""
        found = self._best_after[: max(trials, 0)]
        return self.best / found[-1] if found else 0.0

    def trials_to(self, within: float) -> int | None:
        """The trials until the first that is at most `within` (0.01: 1 %) slower than the optimum; None if none is."""
        limit = self.best * (1 + within)
        return next((trials for trials, cost in enumerate(self.costs, start=1) if cost <= limit), None)

    @property
    def ms_per_ask(self) -> float:
        """Milliseconds of processor time for each config asked for."""
        return 1e3 * self.asking_s / self.asks if self.asks else 0.0

    @cached_property
    def _best_after(self) -> list[float]:
        return list(accumulate(self.costs, min))


def replay(recording: Recording, strategy: Strategy, trials: int, in_flight: int) -> Replay:
    """Search `recording` with `strategy`, new and of its domain, for so many trials; so many are on their way at once,
    as `Tuner` has it. What was left early when it was recorded is so again, unless this search knows nothing faster: it
    would have measured it to the end. The recorded time stands for that then."""
    [found] = replay_run([recording], [strategy], trials, in_flight)
    return found


def replay_run(
    recordings: Sequence[Recording],
    strategies: Sequence[Strategy],
    trials: int,
    in_flight: int,
    weights: Sequence[float] = (),
) -> list[Replay]:
    """`replay` of recordings of different problems in one run, which shares out so many trials for each. `weights` are
    what the problems matter, by default all alike."""
    recorded = {recording.rows[0].problem: _Recorded(recording) for recording in recordings}
    timed = [_Timed(strategy) for strategy in strategies]
    searches = [
        Search(problem, strategy, each.recording.domain.is_legal, operation=problem.operation)
        for (problem, each), strategy in zip(recorded.items(), timed, strict=True)
    ]
    for search, weight in zip(searches, weights, strict=False):
        search.weight = weight

    def record(attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial | None]:
        return [recorded[problem].tried(attempt.config) for problem, _ in outcomes]

    stopwatch, budget = _RecordedStopwatch(recorded), Budget(trials)
    Tuner(searches, _AtOnce(in_flight), stopwatch, record, budget, SILENT, share=False, in_flight=in_flight).run()
    return [
        Replay(tuple(each.costs), each.best, strategy.asks, strategy.asking_s)
        for each, strategy in zip(recorded.values(), timed, strict=True)
    ]


class _Recorded:
    """The rows of one recording, and what a search has tried of them."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.rows = {row.config_id: row for row in recording.rows}
        self.best = min(map(slowness, recording.rows), default=math.inf)
        self.costs: list[float] = []
        self._fastest = math.inf

    def tried(self, config: Config) -> Trial:
        row = self.rows[config.id]
        if slowness(row) < self._fastest:
            row = replace(row, left_early=False)
            self._fastest = slowness(row)
        self.costs.append(slowness(row))
        return row


@dataclass(frozen=True)
class Simulated:
    """One search of one recording. `strategy`, `seed` and `in_flight` repeat it."""

    recording: Recording
    strategy: str
    seed: int
    in_flight: int
    replay: Replay


def simulate(
    recordings: Sequence[Recording], strategies: Sequence[str], trials: int, seeds: int, in_flight: int
) -> Iterator[Simulated]:
    """Every recording searched with every one of `strategies`, by name, from seeds 0 to `seeds` - 1. Raises InputError
    for a name that is not known, before anything is searched."""
    for name in strategies:
        create_strategy(name, recordings[0].domain, 0)
    for recording, name, seed in product(recordings, strategies, range(seeds)):
        strategy = create_strategy(name, recording.domain, seed)
        yield Simulated(recording, name, seed, in_flight, replay(recording, strategy, trials, in_flight))


class _Timed:
    """A strategy whose processor time is counted."""

    def __init__(self, strategy: Strategy) -> None:
        self.name = strategy.name
        self.asks = 0
        self.asking_s = 0.0
        self._strategy = strategy

    def ask(self, n: int) -> list[Config]:
        started = time.process_time()
        configs = self._strategy.ask(n)
        self.asking_s += time.process_time() - started
        self.asks += len(configs)
        return configs

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        started = time.process_time()
        self._strategy.tell(outcomes)
        self.asking_s += time.process_time() - started


class _AtOnce:
    """An Executor whose candidates come back at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.notes: Sequence[str] = ()
        self._pending: list[Candidate] = []

    @property
    def pending(self) -> int:
        return len(self._pending)

    def submit(self, candidate: Candidate) -> None:
        self._pending.append(candidate)

    def collect(self, timeout_s: float) -> list[Attempt]:
        del timeout_s
        done, self._pending = self._pending, []
        return [Attempt(each.config, operation=each.operation, template=each.template) for each in done]

    def close(self) -> None:
        """There is nothing to end."""


class _RecordedStopwatch:
    """A Stopwatch that says what was recorded."""

    source = Source.MEASURED

    def __init__(self, recorded: Mapping[Problem, _Recorded]) -> None:
        self._recorded = recorded

    def time(self, attempt: Attempt, problem: Problem) -> Timing | Failure:
        row = self._recorded[problem].rows[attempt.config.id]
        if row.time_us is None:
            return Failure(row.status, row.detail or "")
        return Timing(row.source or self.source, row.time_us)
