"""The energy of a launch, by a counter of the board that moves in steps.

NVML's counter has a resolution of 1 mJ, but moves only every 20 to 100 ms. So energy is taken between two of its steps:
the GPU is kept busy with one kernel, the counter is read all the time, and the moments are noted at which it was seen
to have moved. That is the mean power between two steps. Times the duration of a launch in the same stretch it is the
energy of a launch, whatever the length of the steps.

A reading may take milliseconds (4.3 on an H200, whose counter moves every 100 ms), so each moment is late by as much.
But steps come at an even pace. What they are apart is learned from all that were seen, first for a second, then in
every window. A window of two steps is then twice that, and a late reading does not count.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from hktune.device.device import Event, TimedDevice
from hktune.measure.timer import GraphTimer, Side

SETTLE_S = 0.05
"""Work before a window may begin: the one before drew another power."""

WINDOW_S = 0.18
"""What a window lasts at least: two steps of 100 ms, or nine of 20, with what they are early."""

WATCH_S = 1.0
"""The counter is watched for so long before the first window."""

PATIENCE_S = 1.0
"""A counter that has not ended a window so long after it should have is no use."""

POLL_S = 0.0005
"""Between two readings of the counter."""

EVEN = 3.0
"""Steps that are so many times as far apart as readings are taken for even ones."""

AHEAD_S, AHEAD_SHARE = 0.03, 1.1
"""So much work is queued ahead of the time that has passed, so that the GPU is never idle: for a host that is held up,
and for launches that turn out shorter than they were thought to be."""

RESOLUTION = 0.01
"""What windows are not trusted with, whatever they say. Chosen before a GPU was asked: benchmarks/energy.py says how
far windows of one kernel are apart."""


@dataclass(frozen=True)
class Energy:
    """What the whole board draws during one launch, in joules, with the ends of its interval."""

    joules: float
    low: float
    high: float


@dataclass(frozen=True)
class Energies:
    """Of one problem: of the vendor's library, and of attempts in the order asked for. None where none was found."""

    baseline: Energy | None
    attempts: tuple[Energy | None, ...]


@dataclass(frozen=True)
class Window:
    """What was seen between two steps of the counter. `unsure` is the share by which `joules` of a launch may be off,
    since nobody knows when between two readings it moved, or how far its steps are apart."""

    joules: float
    unsure: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class _Step:
    """The counter was seen to have moved `at_s` after the work began, at most `late_s` after it did."""

    at_s: float
    late_s: float
    energy_j: float


class EnergyMeter:
    """Measures on the stream of `timer`. One thread at a time; `now_s` is the host's clock, `pause` waits by it."""

    def __init__(
        self,
        device: TimedDevice,
        timer: GraphTimer,
        now_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device = device
        self._timer = timer
        self._now_s = now_s
        self._pause = pause
        self._pace = _Pace()

    def measure(self, sides: Sequence[Side], windows: Sequence[int]) -> list[Energy | None]:
        """The energy of a launch of each side, by so many windows of each. They take turns, there and back, so that
        what drifts favours nobody. All are None where the device has no counter."""
        if not sides or self._device.energy_j() is None:
            return [None] * len(sides)
        if not self._pace.steps and self.window(sides[0], WATCH_S) is None:
            return [None] * len(sides)
        found: list[list[Window | None]] = [[] for _ in sides]
        for turn in range(max(windows, default=0)):
            order = [index for index, count in enumerate(windows) if turn < count]
            for index in order if turn % 2 == 0 else reversed(order):
                found[index].append(self.window(sides[index]))
        return [_energy(own) for own in found]

    def window(self, side: Side, least_s: float = WINDOW_S) -> Window | None:
        """One window of `side`, of `least_s` at least; None where the counter does not move as it should."""
        work = _Work(self._device, self._timer, side)
        try:
            steps = self._steps(work, least_s)
        finally:
            work.finish()
        if not steps:
            return None
        first, last = steps[0], steps[-1]
        self._pace.learn(steps)
        seconds, unsure = self._pace.length(steps)
        power_w = (last.energy_j - first.energy_j) / seconds
        joules = power_w * work.launch_us(first.at_s, last.at_s) * 1e-6
        return Window(joules, unsure, len(steps) - 1, seconds)

    def _steps(self, work: _Work, least_s: float) -> list[_Step]:
        """The steps of the counter from SETTLE_S on, `least_s` from the first to the last; none where it does not move
        so, or has none."""
        steps: list[_Step] = []
        began_s, last_s, last_j = self._now_s(), 0.0, self._device.energy_j()
        while last_s < PATIENCE_S + least_s:
            work.keep_ahead_of(last_s)
            self._pause(POLL_S)
            energy_j, at_s = self._device.energy_j(), self._now_s() - began_s
            if energy_j is None:
                break
            if energy_j != last_j and at_s >= SETTLE_S:
                steps.append(_Step(at_s, at_s - last_s, energy_j))
                if at_s - steps[0].at_s >= least_s:
                    return steps
            last_s, last_j = at_s, energy_j
        return []


@dataclass
class _Pace:
    """How far the counter's steps are apart, by all that were seen: `steps` in `seconds` of so many `windows`, whose
    ends were late by `late_s` at most."""

    seconds: float = 0.0
    steps: int = 0
    windows: int = 0
    late_s: float = 0.0

    def learn(self, seen: Sequence[_Step]) -> None:
        """Add a window. A step that was not seen, while the host was held up, counts too."""
        between_s = [later.at_s - step.at_s for step, later in itertools.pairwise(seen)]
        usual_s = self.seconds / self.steps if self.steps else median(between_s)
        self.seconds += sum(between_s)
        self.steps += sum(max(round(each_s / usual_s), 1) for each_s in between_s)
        self.windows += 1
        self.late_s = max(self.late_s, _late_s(seen))

    def length(self, seen: Sequence[_Step]) -> tuple[float, float]:
        """The seconds from the first of these steps to the last, and the share by which that may be off."""
        seen_s, late_s, period_s = seen[-1].at_s - seen[0].at_s, _late_s(seen), self.seconds / self.steps
        even_s = round(seen_s / period_s) * period_s
        if EVEN * late_s > period_s or abs(seen_s - even_s) > 2 * late_s:
            return seen_s, late_s / seen_s
        return even_s, self.late_s * math.sqrt(self.windows) / self.seconds


def _late_s(seen: Sequence[_Step]) -> float:
    return max(seen[0].late_s, seen[-1].late_s)


class _Work:
    """Graphs of one side, of which there is always enough queued."""

    def __init__(self, device: TimedDevice, timer: GraphTimer, side: Side) -> None:
        self._device, self._timer, self._side = device, timer, side
        self._graph_s = timer.launch_us(side) * side.launches * 1e-6
        self._marks: list[Event] = [device.record(timer.stream)]
        self._ends_s: list[float] = []

    def keep_ahead_of(self, passed_s: float) -> None:
        """Queue what is missing when `passed_s` have passed since the first was."""
        while (len(self._marks) - 1) * self._graph_s < AHEAD_SHARE * passed_s + AHEAD_S:
            self._device.replay(self._side.graph, self._timer.stream)
            self._marks.append(self._device.record(self._timer.stream))

    def finish(self) -> None:
        """Wait for all that is queued."""
        spans_us = [self._device.elapsed_us(start, end) for start, end in itertools.pairwise(self._marks)]
        self._timer.busy_us += sum(spans_us)
        self._ends_s = [end_us * 1e-6 for end_us in itertools.accumulate(spans_us)]

    def launch_us(self, from_s: float, to_s: float) -> float:
        """us per launch of what ended between these moments, seen from the first graph's beginning; of all graphs,
        where hardly one did."""
        inside = [end_s for end_s in self._ends_s if from_s <= end_s <= to_s]
        graph_s = (
            (inside[-1] - inside[0]) / (len(inside) - 1) if len(inside) > 2 else self._ends_s[-1] / len(self._ends_s)
        )
        return graph_s * 1e6 / self._side.launches


def _energy(windows: Sequence[Window | None]) -> Energy | None:
    """What windows of one kernel say together; None where one of them was none."""
    whole = [window for window in windows if window is not None]
    if not whole or len(whole) < len(windows):
        return None
    joules = sum(window.joules for window in whole) / len(whole)
    low = min(window.joules * (1 - window.unsure) for window in whole) * (1 - RESOLUTION)
    high = max(window.joules * (1 + window.unsure) for window in whole) * (1 + RESOLUTION)
    return Energy(joules, low, high)
