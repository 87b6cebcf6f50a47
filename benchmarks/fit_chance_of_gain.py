"""The chance that more trials gain 1 %, fitted to searches that went on, and how often it was so.

    python benchmarks/fit_chance_of_gain.py [--seeds N] [RECORDING ...]

Searches by `auto` and `hillclimb` are replayed on what was recorded on an H100 and an H200, with the seeds and the
estimate of the space, and on further RECORDINGs, which have neither. Each is looked at after 12, 24, ... trials, and
again after twice as many. What is printed is how often the next trials gained, by what was said: of the recordings of
one kind, a formula that was fitted to the others. Then the formula that is fitted to all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from hktune.core.shipped import space_file
from hktune.search import create_strategy
from hktune.space import load_space
from hktune.store.recordings import Recording, load_recordings
from hktune.tuning.searching.search_curve import GAIN, SearchCurve, chance
from hktune.tuning.simulation import replay

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDED = {
    "H200, sixteen shapes": ("sm90a-nvidia-h200/sixteen-shapes-1099-configs", 384),
    "H100, fifty shapes": ("sm90a-nvidia-h100-80gb-hbm3/trials.csv", 192),
    "H100, two shapes": ("sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs", 384),
}
STRATEGIES = ("auto", "hillclimb")
LOOKS = (12, 24, 48, 96, 192)
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0)


def searches(seeds: int, others: Sequence[Path]) -> Iterator[tuple[str, Sequence[float]]]:
    """The kind of recording that each search is of, and its costs in the order of its trials. Of other recordings, the
    kind is the file's name up to an underscore."""
    space = load_space(space_file("sm90a_gemm_bf16"))
    for name, (path, trials) in RECORDED.items():
        for recording in load_recordings(RESULTS / path):
            yield from ((name, costs) for costs in replayed(recording.within(space), trials, seeds))
    for path in others:
        for recording in load_recordings(path):
            yield from ((path.name.split("_")[0], costs) for costs in replayed(recording, 384, seeds))


def replayed(recording: Recording, trials: int, seeds: int) -> Iterator[Sequence[float]]:
    for seed in range(seeds):
        for name in STRATEGIES:
            yield replay(recording, create_strategy(name, recording.domain, seed), trials, 8).costs


def looks(costs: Sequence[float]) -> Iterator[tuple[list[float], bool]]:
    """What is known of a search after so many trials, and whether as many again gained."""
    for trials in LOOKS:
        now, later = list(costs[:trials]), costs[trials : 2 * trials]
        if len(later) >= trials - 4 and not math.isinf(min(now)):
            yield [1.0, *SearchCurve(now).features], min(later) * (1 + GAIN) < min(now)


def fitted(x: np.ndarray, y: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression to which each kind of recording matters as much."""
    share = np.array([1 / (kinds == kind).sum() for kind in kinds])

    def loss(weights: np.ndarray) -> float:
        errors = np.logaddexp(0, -(x @ weights) * (2 * y - 1))
        return float((share * errors).sum() / share.sum() + 1e-3 * (weights[1:] ** 2).sum())

    return np.asarray(minimize(loss, np.zeros(x.shape[1])).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    rows, gained, names = [], [], []
    for name, costs in searches(given.seeds, given.recordings):
        for features, gain in looks(costs):
            rows.append(features)
            gained.append(gain)
            names.append(name)
    x, y, kinds = np.array(rows), np.array(gained, dtype=float), np.array(names)
    said = np.zeros(len(y))
    for kind in dict.fromkeys(names):
        own = kinds == kind
        said[own] = 1 / (1 + np.exp(-x[own] @ fitted(x[~own], y[~own], kinds[~own])))
        print_calibration(kind, said[own], y[own])
    print_calibration("all, each by the others", said, y)
    print("of all: constant, log rate, log near:", *(f"{weight:.2f}" for weight in fitted(x, y, kinds)))
    print_calibration("all, by what is shipped", np.array([chance(*row[1:]) for row in x]), y)


def print_calibration(name: str, said: np.ndarray, gained: np.ndarray) -> None:
    parts = []
    for low, high in pairwise(BINS):
        those = (said >= low) & (said < high)
        if those.any():
            parts.append(f"said {said[those].mean():.2f}, was {gained[those].mean():.2f} of {those.sum()}")
    print(f"{name}: {'; '.join(parts)}")


if __name__ == "__main__":
    main()
