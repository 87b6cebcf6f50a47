"""Two results directories beside each other: what the second does faster and slower than the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hktune.core.board import device_name
from hktune.core.problem import Problem
from hktune.report.results.gains import Gain, Totals, Verdict, Weighed, gain_over_trial, totals
from hktune.report.results.results import Results, ShapeResult
from hktune.store import Mismatch, judge_environment


@dataclass(frozen=True)
class Change:
    """One shape in both directories. `gain` is how many times as fast the second's kernel is as the first's; None where
    either has no kernel, or one time is measured and the other modelled."""

    before: ShapeResult
    after: ShapeResult
    gain: Gain | None

    @property
    def lost_us(self) -> float:
        """The time that all calls of the shape lose: what changes are sorted by. Below 0 it is gained."""
        if self.gain is None or self.before.best is None or self.before.best.time_us is None:
            return 0.0
        return self.after.weight * self.before.best.time_us * (1 / self.gain.ratio - 1)

    @property
    def same_kernel(self) -> bool:
        """Whether both are one config of one template."""
        before, after = self.before.best, self.after.best
        return before is not None and after is not None and before.made_from == after.made_from


@dataclass(frozen=True)
class Comparison:
    """Two directories. What is of the first alone, or of the second, is in `only_before` and `only_after`."""

    before: Results
    after: Results
    changes: Sequence[Change]
    only_before: Sequence[Problem]
    only_after: Sequence[Problem]

    @cached_property
    def totals(self) -> Totals | None:
        """What the second gained over the first in all; None where no shape can be compared."""
        return totals(
            [
                Weighed(change.after.weight, change.after.best.time_us, change.gain)
                for change in self.changes
                if change.gain and change.after.best and change.after.best.time_us
            ]
        )

    @property
    def regressions(self) -> list[Change]:
        """What the second does slower beyond doubt, what costs most first."""
        return [change for change in self.changes if change.gain and change.gain.verdict is Verdict.LOSS]

    @property
    def lost_kernels(self) -> list[Change]:
        """The shapes that have a kernel in the first, and none in the second."""
        return [change for change in self.changes if change.before.best and not change.after.best]

    @property
    def differing_sources(self) -> list[Change]:
        """The shapes whose time is measured in one and modelled in the other."""
        both = (change for change in self.changes if change.before.best and change.after.best)
        return [change for change in both if change.before.source is not change.after.source]

    @property
    def devices(self) -> tuple[str, str]:
        """What each was made on."""
        return _devices(self.before), _devices(self.after)

    @property
    def of_unlike_devices(self) -> bool:
        """Whether the ratios compare devices too, and not kernels alone."""
        return self.devices[0] != self.devices[1]

    @property
    def differences(self) -> list[Mismatch] | None:
        """How the environments differ, what forbids comparing times first; None where one of them is not known."""
        if self.before.environment is None or self.after.environment is None:
            return None
        return judge_environment(self.before.environment, self.after.environment)


def compare(before: Results, after: Results) -> Comparison:
    """The shapes of both, those that cost most time first."""
    first = {shape.problem: shape for shape in before.shapes}
    second = {shape.problem: shape for shape in after.shapes}
    changes = [_change(first[problem], shape) for problem, shape in second.items() if problem in first]
    changes.sort(key=lambda change: (-change.lost_us, change.after.problem))
    only_before = [problem for problem in first if problem not in second]
    return Comparison(before, after, changes, only_before, [problem for problem in second if problem not in first])


def _change(before: ShapeResult, after: ShapeResult) -> Change:
    return Change(before, after, gain_over_trial(after.best, before.best) if after.best else None)


def _devices(results: Results) -> str:
    if results.environment:
        return str(device_name(results.environment.identity.name))
    return ", ".join(sorted({str(device_name(name)) for name in results.devices})) or "an unknown device"
