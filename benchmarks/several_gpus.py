"""How many GPUs can one Python process keep busy? Made-up GPUs, each of which takes 25 ms for every trial.

    python benchmarks/several_gpus.py [--gpus 4] [--strategy tpe]

Each has its search loop in a thread and its worker process, as in a run; a trial is stored as in a run, but nothing is
compiled. Once with the strategies in the process of the loops, once apart, as `hktune tune` has them. Says how many
trials a second came of it, and how much of the loops' process a trial took.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hktune.core.config import Config
from hktune.core.identity import Identity
from hktune.core.outcome import Failure, Source, Timing
from hktune.core.problem import Problem
from hktune.core.shipped import SPACES
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.search import create_strategy
from hktune.space import SearchSpace, load_space
from hktune.store import TrialStore
from hktune.template import Templates
from hktune.tuning.searching.loop import Tuner
from hktune.tuning.searching.searches import Budget, Search
from hktune.tuning.searching.strategies_apart import StrategiesApart
from hktune.tuning.side_by_side import side_by_side
from hktune.tuning.trial_rows import RowContext
from hktune.workers.gpu_worker import Answer, ContainedStopwatch, GpuExecutor, GpuWorker, Request, Screen, Serve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fakes import InstantExecutor  # type: ignore[import-not-found]

TRIAL_S = 0.025
TRIALS = 96


class Silent:
    """A listener that is not interested."""

    def working(self, variants: int) -> None:
        pass

    def recorded(self, trial: Trial) -> None:
        pass


def serve(request: Request | None) -> Answer:
    """Proves at once; a time takes TRIAL_S and follows from the config."""
    if isinstance(request, Screen):
        time.sleep(TRIAL_S)
        time_us = 10.0 + int(request.attempt.config.id[:4], 16) / 6000
        return Answer(Timing(Source.MEASURED, time_us, baseline="none", baseline_us=12.0))
    return Answer(request.attempt if request is not None and "attempt" in vars(request) else None)


def make_serve() -> Serve:
    """What the worker process calls."""
    return serve


def unneeded(config: Config, problem: Problem | None) -> str:
    """The line that reproduces a failure; nothing fails here."""
    return f"{config.id} on {problem}"


def searches(space: SearchSpace, gpu: int, strategy: str) -> list[Search]:
    """Two problems for each GPU."""
    domains = [space.domain(Problem(1024, 4096 + 64 * gpu, k)) for k in (4096, 8192)]
    return [Search(each.problem, create_strategy(strategy, each, 0), each.is_legal) for each in domains if each.problem]


def run(gpus: int, strategy: str, apart: bool) -> str:
    """One run of all loops to their end; what it came to."""
    space = load_space(SPACES / "sm90a_gemm_bf16.yaml")
    context = RowContext(Templates(space.template), Identity("cuda", "sm90a", "made up", 132), strategy, 0)
    with ExitStack() as stack:
        store = TrialStore(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        tuners = []
        for gpu in range(gpus):
            own = searches(space, gpu, strategy)
            if apart:
                process = StrategiesApart(own)
                stack.callback(process.close)
                own = process.searches
            stopwatch = ContainedStopwatch(GpuWorker(make_serve), unneeded)
            stopwatch.prove(Attempt(space.config({})))  # starts the worker
            executor = GpuExecutor(InstantExecutor(capacity=2), stopwatch)
            stack.callback(executor.close)

            def record(attempt: Attempt, outcomes: Sequence[tuple[Problem, Timing | Failure]]) -> list[Trial]:
                return store.extend(context.row(attempt, problem, outcome) for problem, outcome in outcomes)

            tuners.append(Tuner(own, executor, stopwatch, record, Budget(TRIALS), Silent(), share=False))
        started_s, cpu_s = time.monotonic(), time.process_time()
        side_by_side([tuner.run for tuner in tuners], [])
        elapsed_s, used_s = time.monotonic() - started_s, time.process_time() - cpu_s
        trials = len(store.read())
    where = "apart" if apart else "here"
    return f"strategies {where}: {trials / elapsed_s:.0f} trials/s, {used_s / trials * 1e3:.1f} ms of this process each"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--strategy", default="tpe")
    options = parser.parse_args()
    for apart in (False, True):
        print(run(options.gpus, options.strategy, apart))
