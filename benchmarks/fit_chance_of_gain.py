"""The chance that more trials gain 1 %, fitted to searches that went on, and how often it was so.

    python benchmarks/fit_chance_of_gain.py [--seeds N]

Searches are replayed on what was recorded on an H100 and an H200, with the seeds and the estimate of the space. Rows
of two runs of 96 trials are added in the order in which they were found. Each search is looked at after 12, 24, ...
trials, and again after twice as many. Every fifth search is left out of the fit, and its calibration printed first.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from hktune.core.outcome import Stage
from hktune.core.shipped import space_file
from hktune.core.trial import by_problem
from hktune.search import create_strategy
from hktune.space import load_space
from hktune.store.recordings import load_recordings
from hktune.store.trials import read_trials
from hktune.tuning.cost import slowness
from hktune.tuning.search_curve import GAIN, SearchCurve, gain_features
from hktune.tuning.simulation import replay

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDED = {
    "sm90a-nvidia-h200/sixteen-shapes-1099-configs": 400,
    "sm90a-nvidia-h100-80gb-hbm3/trials.csv": 200,
    "sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs": 400,
}
RUNS = {"sm90a-nvidia-h200": "sm90a/gemm_bf16", "gfx950-emulated": "gfx950/gemm_bf16"}
LOOKS = (12, 24, 48, 96, 192)
BINS = (0.0, 0.1, 0.2, 1.0)


def searches(seeds: int) -> Iterator[tuple[str, Sequence[float]]]:
    """Where each search is from, and its costs in the order of its trials."""
    space = load_space(space_file("sm90a_gemm_bf16"))
    for name, trials in RECORDED.items():
        for recording in load_recordings(RESULTS / name):
            within = recording.within(space)
            for seed in range(seeds):
                yield name, replay(within, create_strategy("hillclimb", within.domain, seed), trials, 8).costs
    for name, template in RUNS.items():
        rows = [row for row in read_trials(RESULTS / name / "trials.csv") if row.template == template]
        for own in by_problem(row for row in rows if row.stage is Stage.SCREENED).values():
            yield f"{name}, its own rows", list(map(slowness, own))


def looks(costs: Sequence[float]) -> Iterator[tuple[list[float], bool]]:
    """What is known of a search after so many trials, and whether as many again gained."""
    for trials in LOOKS:
        now, later = list(costs[:trials]), costs[trials : 2 * trials]
        if len(later) >= trials - 4 and not math.isinf(min(now)):
            yield [1.0, *gain_features(now, SearchCurve(now).since_gain)], min(later) * (1 + GAIN) < min(now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    rows, gained, names, kept = [], [], [], []
    for number, (name, costs) in enumerate(searches(parser.parse_args().seeds)):
        for features, gain in looks(costs):
            rows.append(features)
            gained.append(gain)
            names.append(name)
            kept.append(number % 5 == 0)
    x, y, held_out = np.array(rows), np.array(gained, dtype=float), np.array(kept)

    def loss(weights: np.ndarray) -> float:
        signs = 2 * y[~held_out] - 1
        return float(np.logaddexp(0, -(x[~held_out] @ weights) * signs).mean() + 1e-3 * (weights[1:] ** 2).sum())

    weights = minimize(loss, np.zeros(x.shape[1])).x
    print("constant, since gain, log near:", *(f"{weight:.2f}" for weight in weights))
    said = 1 / (1 + np.exp(-x @ weights))
    print_calibration("left out", said[held_out], y[held_out])
    for name in dict.fromkeys(names):
        own = np.array([each == name for each in names])
        print_calibration(name, said[own], y[own])


def print_calibration(name: str, said: np.ndarray, gained: np.ndarray) -> None:
    parts = []
    for low, high in pairwise(BINS):
        those = (said >= low) & (said < high)
        if those.any():
            parts.append(f"said {said[those].mean():.2f}, was {gained[those].mean():.2f} of {those.sum()}")
    print(f"{name}: {'; '.join(parts)}")


if __name__ == "__main__":
    main()
