"""What sharing out trials, and trying what was fast on other shapes, are worth: all shapes of a recording as one run.

    python benchmarks/one_run.py RECORDING [--trials N] [--seeds S] [--strategy NAME] [--space NAME]

Each line is one way to search: with and without lessons of other shapes, with trials shared out or the same for each
shape. In the first lines all weights are 1; in the others each is 1, 4, 16 or 64, drawn anew for each seed. Without
--space, searches know the recorded configs alone: no seeds and no estimate. Printed is by how much the best found is
slower than the best recorded: in the geometric mean of the shapes, weighted, and the mean over seeds of the worst.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from hktune.core.shipped import space_file
from hktune.search import create_strategy
from hktune.space import load_space
from hktune.store.recordings import Recording, load_recordings
from hktune.tuning.searching import lessons, turns
from hktune.tuning.simulation import replay_run

WEIGHTS = (1.0, 4.0, 16.0, 64.0)
LESSONS = {"no lessons": 10**9, "lessons": lessons.FIRST}
FLOORS = {"each its own": 1.0, "shared out": turns.FLOOR}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--space")
    given = parser.parse_args()
    recordings = load_recordings(given.recording)
    if given.space:
        space = load_space(space_file(given.space))
        recordings = [recording.within(space) for recording in recordings]
    for skewed, (floor, share), (first, ask) in product((False, True), FLOORS.items(), LESSONS.items()):
        if share < 1 and not skewed:
            continue  # where all weights are alike each shape has its own
        turns.FLOOR, lessons.FIRST = share, ask
        found = [searched(recordings, given.strategy, seed, given.trials, skewed) for seed in range(given.seeds)]
        mean, worst, most = (sum(column) / len(column) for column in zip(*found, strict=True))
        weights = "weights 1 to 64" if skewed else "all weights 1"
        figures = f"{mean:.4f}, worst {worst:.3f}, most trials of a shape {most:.0f}"
        print(f"{weights}, {floor}, {first}: {figures}", flush=True)


def searched(
    recordings: Sequence[Recording], strategy: str, seed: int, trials: int, skewed: bool
) -> tuple[float, float, int]:
    """By how much the best found is slower, in the weighted mean and at worst; and the most trials that a shape had."""
    rng = random.Random(seed)
    weights = [rng.choice(WEIGHTS) if skewed else 1.0 for _ in recordings]
    strategies = [create_strategy(strategy, recording.domain, seed) for recording in recordings]
    found = replay_run(recordings, strategies, trials, 8, weights)
    logs = [math.log(min(each.costs) / each.best) for each in found]
    mean = sum(weight * log for weight, log in zip(weights, logs, strict=True)) / sum(weights)
    return math.expm1(mean), math.expm1(max(logs)), max(len(each.costs) for each in found)


if __name__ == "__main__":
    main()
