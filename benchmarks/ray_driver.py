"""Does one driver keep up with a thousand GPUs of a Ray cluster? Made-up GPUs, several to an actor, real everything
else of the driver: actors, streams of rows, the ledger and trials.csv.

    python benchmarks/ray_driver.py [--gpus 1000] [--actors 8] [--trial-s 1.0] [--seconds 30]

A thousand actors do not fit on one machine. So each of a few real ones sends the reports of many GPUs, each its own
stream: a trial every `--trial-s` seconds, each by itself. Rows and parts are those of a real template. Says how many
trials a second were due and were stored, what of the driver's processor a part and then a trial took, and how far the
file was behind at the end.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.outcome import Source, Stage, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search import create_strategy
from hktune.space import SearchSpace, load_spaces
from hktune.store import TrialStore
from hktune.template import Templates
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.cluster.ray_part import GpuFacts, Report, SentPart
from hktune.tuning.cluster.ray_search import RemoteGpu, RemoteSearch
from hktune.tuning.ledger import Ledger
from hktune.tuning.part import Part
from hktune.tuning.searching.progress import Silent
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.trial_rows import RowContext

H200 = Identity("cuda", "sm90a", "made up", 132)
SPACE = SPACES / "sm90a_gemm_bf16.yaml"


class Silence(Silent):
    """A Progress that nobody looks at."""

    def phase(self, what: str) -> None: ...

    def expect(self, names: object, total: int) -> None: ...

    def skipped(self, trials: int) -> None: ...

    def listener(self) -> Silent:
        return self


class Meter:
    """Hears of each row that is stored, and notes what the driver had taken of its processor at the first and last."""

    def __init__(self) -> None:
        self.rows, self.first_s, self.last_s = 0, 0.0, 0.0

    def __call__(self, trial: Trial) -> None:
        del trial
        self.rows += 1
        self.last_s = time.process_time()
        self.first_s = self.first_s or self.last_s

    @property
    def trial_ms(self) -> float:
        """Of each row after the first."""
        return (self.last_s - self.first_s) / (self.rows - 1) * 1e3


class MadeUpGpus:
    """Stands in for many GpuActors. Each search has a thread, and sends each row by itself, when it is due: the most
    that a driver can be asked for."""

    def __init__(self, trial_s: float, trials: int) -> None:
        self._trial_s, self._trials = trial_s, trials

    def search(self, sent: SentPart) -> Iterator[Report]:
        """The rows of the part's one problem."""
        [problem] = sent.part.problems
        rows = made_up_rows(sent.part.spaces.own, sent.context, problem, self._trials)
        started_s = time.monotonic() - random.uniform(0.0, self._trial_s)
        for number, row in enumerate(rows, 1):
            time.sleep(max(0.0, started_s + number * self._trial_s - time.monotonic()))
            yield Report(rows=[row], variants=2, phase="searching", ended=number == len(rows))

    def finish(self) -> None: ...

    def interrupt(self) -> None: ...


def made_up_rows(space: SearchSpace, context: RowContext, problem: Problem, trials: int) -> list[Trial]:
    """So many rows of a problem, each of another config, with all cells that a measured one has."""
    config = space.seeds[0]
    timing = Timing(Source.MEASURED, 10.0, 9.9, 10.1, 8, cache="cold", baseline="vendor", baseline_us=12.0, gpu=0)
    attempt = Attempt(config, None, "0" * 64, None, "made up 1.0", 0.5, 0.5, 1e-3, template=space.template.sha256)
    row = context.row(attempt, problem, timing, Stage.SCREENED)
    named = [Config({**config, "made_up": number}) for number in range(trials)]
    return [replace(row, config_id=each.id, config=each.json) for each in named]


def parts_of(gpus: int) -> tuple[list[Part], RowContext]:
    """A part for each GPU, of one problem and with a strategy as in a run."""
    spaces = load_spaces((SPACE,))
    context = RowContext(Templates(spaces.own.template), H200, "random", 0)
    settings = Settings(Path(tempfile.gettempdir()))
    parts = []
    for gpu in range(gpus):
        problem = Problem(1024, 4096 + 64 * gpu, 4096)
        domain = spaces.own.domain(problem)
        search = Search(problem, create_strategy("random", domain, 0), domain.is_legal)
        parts.append(Part([search], spaces, Budget(96), (), settings))
    return parts, context


def remote(gpus: int, actors: int, trial_s: float, trials: int) -> RemoteSearch:
    """The GPUs, shared out over so many actors."""
    options = {"num_cpus": 0.01, "max_concurrency": -(-gpus // actors) + 2}
    made: list[Any] = [ray.remote(MadeUpGpus).options(**options).remote(trial_s, trials) for _ in range(actors)]
    facts = GpuFacts("", H200, {})
    there = [RemoteGpu(made[number % actors], number, ray.put(facts)) for number in range(gpus)]
    return RemoteSearch(there, lambda number: there[number], facts)


def run(gpus: int, actors: int, trial_s: float, seconds: float) -> str:
    """One run, and what it came to."""
    trials = int(seconds / trial_s)
    parts, context = parts_of(gpus)
    search = remote(gpus, actors, trial_s, trials)
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        ledger = Ledger(Path(folder), context, False, meter)
        started_s, cpu_s = time.monotonic(), time.process_time()
        stopped = search.run(parts, ledger, context, Silence(), Callbacks())
        elapsed_s, part_ms = time.monotonic() - started_s, (meter.first_s - cpu_s) / gpus * 1e3
        stored = len(TrialStore(Path(folder)).read())
    assert not stopped
    assert stored == gpus * trials
    return (
        f"{gpus} GPUs, a trial every {trial_s:g} s each: {gpus / trial_s:.0f} trials/s due, {stored / elapsed_s:.0f} "
        f"stored; of the driver {part_ms:.1f} ms a part, then {meter.trial_ms:.2f} ms a trial; "
        f"{elapsed_s - seconds:.1f} s longer than the GPUs"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--actors", type=int, default=8)
    parser.add_argument("--trial-s", type=float, nargs="+", default=[5.0, 1.0])
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    here = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", runtime_env={"env_vars": here})
    for trial_s in options.trial_s:
        print(run(options.gpus, options.actors, trial_s, options.seconds), flush=True)
