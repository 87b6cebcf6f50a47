"""What other tuners' searches find on the recordings that `hktune simulate` reads, printed as it prints.

    python benchmarks/search_rivals.py RECORDING... [--trials 150] [--seeds 10] [--rivals NAME,...] [--json]

Needs `pip install kernel_tuner` next to hktune; the figures of the documentation are of Kernel Tuner 1.5.0 and Optuna
5.0.0, in an environment of their own. Every search has every outcome before it is asked again (1 in flight): Kernel
Tuner's simulation can do no other. It counts as hktune does. A trial is a config that was tried, one that fails too.
A proposal that is illegal or known costs none. Legal is what was recorded: Kernel Tuner gets that list as its
restriction, and Optuna learns of what is off it as a failed trial.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.report.console import make_console
from hktune.report.simulated import as_json, print_simulated
from hktune.space import Parameter
from hktune.store.recordings import Recording, load_recordings
from hktune.tuning.searching.cost import slowness
from hktune.tuning.simulation import Replay, Simulated

PROPOSALS_MAX = 20  # for each trial: a search that proposes the same again and again has ended
KERNEL_TUNER = (
    "random_sample",
    "genetic_algorithm",
    "simulated_annealing",
    "dual_annealing",
    "diff_evo",
    "pso",
    "greedy_ils",
    "bayes_opt",
    "hybrid_vndx",
    "adaptive_tabu_greywolf",
)
OPTUNA = ("optuna", "optuna_ordered")
Search = Callable[[int, int], Replay]
"""Of trials and a seed."""


class Tried:
    """What a search has tried: configs in order, each once."""

    def __init__(self, recording: Recording) -> None:
        self._cost_of = {row.config_id: slowness(row) for row in recording.rows}
        self._best = min(self._cost_of.values())
        self._found: dict[str, float] = {}
        self._started_s = time.process_time()

    def __len__(self) -> int:
        return len(self._found)

    def cost(self, config: Config) -> float | None:
        """What `config` costs, which is tried with that; infinite where it fails, None where it is not legal."""
        cost = self._cost_of.get(config.id)
        if cost is not None:
            self._found.setdefault(config.id, cost)
        return cost

    def replay(self, trials: int) -> Replay:
        costs = tuple(self._found.values())[:trials]
        return Replay(costs, self._best, len(costs), time.process_time() - self._started_s)


def optuna(recording: Recording, trials: int, seed: int, ordered: bool) -> Replay:
    """Optuna's default sampler. Values are categories, as most write them down, or, `ordered`, steps along a list."""
    import optuna as library
    from optuna.trial import TrialState

    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(sampler=library.samplers.TPESampler(seed=seed))
    parameters = recording.domain.parameters
    asked = {parameter.name: _distribution(parameter, ordered) for parameter in parameters}
    tried = Tried(recording)
    for _ in range(trials * PROPOSALS_MAX):
        if len(tried) >= min(trials, len(recording.rows)):
            break
        trial = study.ask(asked)
        config = Config({each.name: each.values[trial.params[each.name]] for each in parameters})
        cost = tried.cost(config)
        if cost is None or math.isinf(cost):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, cost)
    return tried.replay(trials)


def _distribution(parameter: Parameter, ordered: bool) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    places = range(len(parameter.values))
    is_number = not isinstance(parameter.values[0], str)
    return IntDistribution(0, places[-1]) if ordered and is_number else CategoricalDistribution(places)


def kernel_tuner(recording: Recording, cache: Path, trials: int, seed: int, name: str) -> Replay:
    """One of Kernel Tuner's strategies, in its own simulation of `cache`, which has the rows of `recording`."""
    import kernel_tuner as library
    import numpy as np
    from constraint import FunctionConstraint

    random.seed(seed)
    np.random.seed(seed)
    legal = {tuple(config.values()) for config in recording.configs}
    parameters = recording.domain.parameters
    tried = Tried(recording)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results, _ = library.tune_kernel(
            kernel_name="recorded",
            kernel_source="",
            problem_size=(1,),
            arguments=[],
            tune_params={parameter.name: list(parameter.values) for parameter in parameters},
            restrictions=[FunctionConstraint(lambda *values: values in legal)],
            strategy=name,
            strategy_options={"max_fevals": min(trials, len(recording.rows))},
            cache=str(cache),
            simulation_mode=True,
            quiet=True,
            verbose=False,
        )
    for result in results:
        tried.cost(Config({parameter.name: result[parameter.name] for parameter in parameters}))
    return tried.replay(trials)


def write_cache(recording: Recording, path: Path) -> None:
    """The rows as a cache file of Kernel Tuner, which takes a failure for a result of no time."""
    names = [parameter.name for parameter in recording.domain.parameters]
    timings = dict.fromkeys(("compile_time", "verification_time", "benchmark_time", "strategy_time"), 0)
    entries = {}
    for config, row in zip(recording.configs, recording.rows, strict=True):
        time_ms = slowness(row) if row.status is Status.OK else "RuntimeFailedConfig"
        key = ",".join(str(config[name]) for name in names)
        entries[key] = {**{name: config[name] for name in names}, "time": time_ms, "framework_time": 0, **timings}
    values = {parameter.name: list(parameter.values) for parameter in recording.domain.parameters}
    head = {"device_name": "recorded", "kernel_name": "recorded", "problem_size": [1], "objective": "time"}
    path.write_text(json.dumps({**head, "tune_params_keys": names, "tune_params": values, "cache": entries}), "utf-8")


def search_of(name: str, recording: Recording, cache: Path) -> Search:
    """The search of `recording`, whose rows `cache` has too, that is printed as `name`."""
    if name in OPTUNA:
        return partial(optuna, recording, ordered=name == "optuna_ordered")
    return partial(kernel_tuner, recording, cache, name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rivals", default=",".join((*KERNEL_TUNER, *OPTUNA)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable()
    found = []
    for recording in (each for path in options.recordings for each in load_recordings(path)):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache.json"
            write_cache(recording, cache)
            for name in options.rivals.split(","):
                search = search_of(name, recording, cache)
                for seed in range(options.seeds):
                    found.append(Simulated(recording, name, seed, 1, search(options.trials, seed)))
                    if options.json:
                        print(as_json(found[-1], options.trials), flush=True)
                print(f"{recording.name}: {name} done", file=sys.stderr)
    if not options.json:
        print_simulated(make_console(), found, options.trials)


if __name__ == "__main__":
    main()
