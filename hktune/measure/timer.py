"""The time of launches on a GPU: graphs between events, queued so that the host never shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hktune.device.device import Clocks, Graph, TimedDevice

GRAPH_US = 800.0
"""How long a graph should take at least. The host queues one in some 10 us. The few us between two graphs count for
the second one: they stay under 1 % of it, and are the same for every side."""

LAUNCHES_MAX = 64

HEAT_US = 150_000.0
"""An H100 that starts a large product at 1980 MHz is down to 1500 by its power cap within some 100 ms."""

TURN_US, SETTLING = 300_000.0, 0.5
"""How long a side has the device for itself in a turn, and the part of it that is not timed. The power control of an
H200 answers within some 100 ms."""

LONE_US = 20.0
"""By how much, at most, one launch between two events takes longer than one among many in a graph."""


@dataclass(frozen=True)
class Side:
    """One contestant: a graph of so many launches, each on the next set of operands."""

    graph: Graph
    launches: int
    keeps: object = None
    """What the graph's launches refer to: kernels and buffers live as long as this."""


class GraphTimer:
    """Captures launches on a stream of its own and times graphs of them. One thread at a time."""

    def __init__(self, device: TimedDevice) -> None:
        self._device = device
        self.stream = device.create_stream()
        self.clocks = Clocks()
        """What the sensors read during the last rounds, while the GPU was busy with them."""
        self.busy_us = 0.0
        """Device time of all rounds so far."""

    def side(self, enqueue: Callable[[int], None], sets: int) -> Side:
        """Capture `enqueue(i)` for i = 0, 1, ... of `sets` operand sets: each set equally often, GRAPH_US in all."""
        once = self._captured(enqueue, sets, 1)
        passes = min(math.ceil(GRAPH_US / (sets * self.launch_us(once))), max(LAUNCHES_MAX // sets, 1))
        return self._captured(enqueue, sets, passes) if passes > 1 else once

    def glance_us(self, enqueue: Callable[[int], None], lead: Side) -> float:
        """The time of one launch, by up to LONE_US too long; by more, if the host takes longer than the graph of `lead`
        to queue it behind that. Without one, a busy host made 1.4 ms of 23 us."""
        self._device.replay(lead.graph, self.stream)
        start = self._device.record(self.stream)
        enqueue(0)
        end = self._device.record(self.stream)
        return self._device.elapsed_us(start, end)

    def _captured(self, enqueue: Callable[[int], None], sets: int, passes: int) -> Side:
        def every_set() -> None:
            for launch in range(sets * passes):
                enqueue(launch % sets)

        return Side(self._device.capture(every_set, self.stream), sets * passes, enqueue)

    def play(self, sides: Sequence[Side], orders: Sequence[Sequence[int]]) -> list[list[float]]:
        """us per launch of each side, in the order of each round; see `comparison.Play`.

        An untimed graph leads, behind which the host gets ahead; all rounds are queued before the first is waited for.
        """
        spans = self._spans(sides, orders, read_clocks=True)
        flat = iter(spans)
        return [[next(flat) / sides[side].launches for side in order] for order in orders]

    def take_turns(self, sides: Sequence[Side], orders: Sequence[Sequence[int]]) -> list[list[float]]:
        """The same as `play`, where each side has the device for TURN_US: its clock is what its own power allows."""
        return [[self._turn_us(sides[side]) for side in order] for order in orders]

    def _turn_us(self, side: Side) -> float:
        """us per launch under a load of nothing else, once it has settled."""
        graphs = max(round(TURN_US / (self.launch_us(side) * side.launches)), 2)
        spans = self._spans([side], [[0] * graphs], read_clocks=True)
        timed = spans[round(SETTLING * graphs) :]
        return sum(timed) / (len(timed) * side.launches)

    def heat(self, side: Side) -> None:
        """Keep the device busy with `side` for HEAT_US, so that clock and power are those of steady load."""
        graphs = math.ceil(HEAT_US / (self.launch_us(side) * side.launches))
        self._spans([side], [[0] * graphs], read_clocks=False)

    def launch_us(self, side: Side) -> float:
        """us per launch, from one graph behind another: good to a few percent."""
        return self._spans([side], [[0]], read_clocks=False)[0] / side.launches

    def _spans(self, sides: Sequence[Side], orders: Sequence[Sequence[int]], read_clocks: bool) -> list[float]:
        self._device.replay(sides[orders[0][0]].graph, self.stream)
        marks = [self._device.record(self.stream)]
        for order in orders:
            for side in order:
                self._device.replay(sides[side].graph, self.stream)
                marks.append(self._device.record(self.stream))
        if read_clocks:
            self.clocks = self._device.clocks()
        spans = [self._device.elapsed_us(start, end) for start, end in itertools.pairwise(marks)]
        self.busy_us += sum(spans)
        return spans
