"""What failed, by kind, with an example of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hktune.core.outcome import Status
from hktune.core.trial import Trial


@dataclass(frozen=True)
class FailureKind:
    """One way to fail: how many trials did, of how many configs and shapes, and the first of them."""

    status: Status
    trials: int
    configs: int
    shapes: int
    quarantined: int
    first: Trial


def failure_kinds(trials: Sequence[Trial]) -> list[FailureKind]:
    """Of each way to fail, most frequent first."""
    counts = Counter(trial.status for trial in trials if trial.status is not Status.OK)
    return [_kind(status, [each for each in trials if each.status is status]) for status, _ in counts.most_common()]


def _kind(status: Status, trials: Sequence[Trial]) -> FailureKind:
    configs, shapes = {each.made_from for each in trials}, {each.problem for each in trials}
    quarantined = sum(each.quarantined for each in trials)
    return FailureKind(status, len(trials), len(configs), len(shapes), quarantined, trials[0])
