"""What searches must find on recordings: floors under the mean and under the worst seed. A change to a strategy is
judged by them. `docs/how-to/judge-a-strategy.md` says how they are counted."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest
from ragged_space import ragged_recording

from hktune.store.recordings import load_recordings
from hktune.tuning.run_options import RunOptions
from hktune.tuning.simulation import Replay, simulate

MEASURED = Path(__file__).resolve().parents[2] / "results/sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs"
DEFAULT = RunOptions.strategy
IN_FLIGHT = 8


SEEDS_OF = {DEFAULT: 5}
"""Searches of each strategy; of others, which take no time, ten."""


class Floor(NamedTuple):
    """The least share of the optimum after so many trials, in the mean of all seeds and of the worst."""

    recording: str
    strategy: str
    trials: int
    mean: float
    worst: float


# Seeds repeat themselves, so a share changes only with the code, or with the version of a library. The floors leave
# that some .02 below what was found on 2026-11-30 (SciPy 1.17.1).
FLOORS = [
    Floor("ragged", DEFAULT, 50, 0.94, 0.86),
    Floor("ragged", DEFAULT, 100, 0.98, 0.96),
    Floor("ragged", "hillclimb", 100, 0.92, 0.90),
    Floor("ragged", "random", 100, 0.80, 0.70),
    Floor("measured, m = 16", DEFAULT, 25, 0.965, 0.945),
    Floor("measured, m = 16", DEFAULT, 50, 0.98, 0.965),
    Floor("measured, m = 1024", DEFAULT, 25, 0.96, 0.93),
    Floor("measured, m = 1024", DEFAULT, 50, 0.98, 0.97),
    Floor("measured, m = 16", "hillclimb", 100, 0.98, 0.94),
    Floor("measured, m = 1024", "hillclimb", 100, 0.975, 0.96),
]


class Judge:
    """Searches of recordings, each made once: one made up, and two measured on an H100, 1,100 configs of hktune's own
    template without its seeds and its estimate."""

    def __init__(self, folder: Path) -> None:
        small, large = load_recordings(MEASURED)
        self._recordings = {
            "ragged": ragged_recording(folder),
            "measured, m = 16": small,
            "measured, m = 1024": large,
        }
        self._replays: dict[tuple[str, str], list[Replay]] = {}

    def shares(self, recording: str, strategy: str, trials: int) -> list[float]:
        """Of each seed, what it has found after so many trials."""
        if (recording, strategy) not in self._replays:
            most = max(floor.trials for floor in FLOORS if floor[:2] == (recording, strategy))
            searched = simulate([self._recordings[recording]], [strategy], most, SEEDS_OF.get(strategy, 10), IN_FLIGHT)
            self._replays[recording, strategy] = [one.replay for one in searched]
        return [replay.share(trials) for replay in self._replays[recording, strategy]]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("ragged"))


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.strategy}, {floor.recording}, {floor.trials}")
def test_a_search_finds_as_much_as_it_did(judge: Judge, floor: Floor) -> None:
    found = judge.shares(floor.recording, floor.strategy, floor.trials)
    assert fmean(found) >= floor.mean
    assert min(found) >= floor.worst


def test_the_default_beats_chance_by_far(judge: Judge) -> None:
    """Of what chance leaves to be found in as many trials, it finds more than half."""
    chance, default = (fmean(judge.shares("ragged", name, 100)) for name in ("random", DEFAULT))
    assert 1 - default < (1 - chance) / 2
