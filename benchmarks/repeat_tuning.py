"""Two tunings of the same shapes: how often they pick another winner, and what the other's pick costs.

    python benchmarks/repeat_tuning.py DIR DIR

Each directory holds trials of one GPU. Both winners of every shape, and the vendor, are measured again in shared rounds
on this GPU: the regret of a run is the time of its pick over the faster one's, minus 1.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import geometric_mean

from hktune.core.outcome import Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.trial import Trial
from hktune.space import load_space
from hktune.store import read_trials
from hktune.template import Templates
from hktune.tuning.benches.device_choice import choose_device
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.confirming.confirmation import attempt_of, deciding, finalists


def main() -> None:
    """Read both, measure where they differ, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directories", nargs=2, type=Path)
    parser.add_argument("--prebuilt", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    kind, space = choose_device(options.device, None, settings)
    templates = Templates(load_space(space).template)
    first, second = (winners(directory) for directory in options.directories)
    problems = sorted(first.keys() & second.keys())
    differing = [problem for problem in problems if first[problem].config_id != second[problem].config_id]
    work = GpuBench(kind, space, 0, settings, prebuilt=options.prebuilt).open(differing, {})
    regrets: dict[Problem, tuple[float, float]] = dict.fromkeys(problems, (0.0, 0.0))
    try:
        for problem in differing:
            picks = [attempt_of(rows[problem], problem, templates) for rows in (first, second)]
            times = [time for time in work.stopwatch.confirm(picks, problem).finalists if isinstance(time, Timing)]
            best_us = min(time.time_us for time in times)
            regrets[problem] = (times[0].time_us / best_us - 1, times[1].time_us / best_us - 1)
            faster, slower = sorted(times, key=lambda time: time.time_us)
            apart = (faster.time_us_high or faster.time_us) < (slower.time_us_low or slower.time_us)
            print(f"{problem}: {times[0].time_us:.2f} and {times[1].time_us:.2f} us, apart: {apart}", flush=True)
    finally:
        work.close()
    print(f"{len(problems)} shapes tuned twice; another winner in {len(differing)}")
    for index, name in enumerate(("first", "second")):
        own = [regret[index] for regret in regrets.values()]
        mean = geometric_mean(1 + regret for regret in own) - 1
        print(f"regret of the {name} run: mean {mean:.4%}, worst {max(own):.4%}")


def winners(directory: Path) -> dict[Problem, Trial]:
    """The fastest kernel of every problem, as a table would have it were there no vendor."""
    rows = deciding(read_trials(directory / "trials.csv"))
    best: dict[Problem, Trial] = {}
    for problem in {row.problem for row in rows}:
        close = finalists([row for row in rows if row.problem == problem])
        if close:
            best[problem] = close[0]
    return best


if __name__ == "__main__":
    main()
