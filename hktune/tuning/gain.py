"""What tuning gained: how many times as fast the best of a shape is as what would have run without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tuning.searching.cost import slowness


@dataclass(frozen=True)
class Yardstick:
    """What the best is compared with: its short name, what it is in words, and its trial of each problem that has a
    time there."""

    name: str
    meaning: str
    trials: Mapping[Problem, Trial]

    @property
    def bounds(self) -> int:
        """How many of its trials were left early: what is gained over these is at least what `gain` says."""
        return sum(trial.left_early for trial in self.trials.values())

    def gain(self, best: Trial) -> float | None:
        """How many times as fast `best` is as the yardstick on its problem; above 1 is faster. Where each was measured
        with the vendor's library, both are taken relative to that: the clocks of two rounds differ."""
        other = self.trials.get(best.problem)
        if other is None or other.time_us is None or best.time_us is None:
            return None
        if best.baseline_us and other.baseline_us:
            return slowness(other) / slowness(best)
        return other.time_us / best.time_us


def first_trials(rows: Mapping[Problem, Sequence[Trial]]) -> dict[Problem, Trial]:
    """Of each problem, the first trial that has a time: what the search began with."""
    firsts = ((problem, next((row for row in own if row.time_us is not None), None)) for problem, own in rows.items())
    return {problem: first for problem, first in firsts if first is not None}


def trials_of(rows: Mapping[Problem, Sequence[Trial]], config_ids: Mapping[Problem, str]) -> dict[Problem, Trial]:
    """Of each problem, the last trial with a time of the config that `config_ids` names for it."""
    found: dict[Problem, Trial] = {}
    for problem, own in rows.items():
        config_id = config_ids.get(problem)
        found.update((problem, row) for row in own if row.config_id == config_id and row.time_us is not None)
    return found
