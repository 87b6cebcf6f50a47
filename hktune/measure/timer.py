"""The time of launches on a GPU: graphs between events, queued so that the host never shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hktune.device.device import Clocks, Graph, TimedDevice

GRAPH_US = 300.0
"""How long a graph should take at least: the host queues one in some 10 us, and the few us between two graphs, which
fall to the second, stay under 2 % of it and are the same for every side."""

LAUNCHES_MAX = 64


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

    def side(self, enqueue: Callable[[int], None], sets: int, estimate_us: float) -> Side:
        """Capture `enqueue(i)` for i = 0, 1, ... of `sets` operand sets: each set equally often, GRAPH_US in all."""
        passes = max(1, min(round(GRAPH_US / max(estimate_us, 0.1) / sets + 0.5), LAUNCHES_MAX // sets or 1))
        launches = sets * passes

        def every_set() -> None:
            for launch in range(launches):
                enqueue(launch % sets)

        return Side(self._device.capture(every_set, self.stream), launches, enqueue)

    def estimate_us(self, enqueue: Callable[[int], None]) -> float:
        """One launch's rough time, after a first one that loads and warms what it needs."""
        enqueue(0)
        start = self._device.record(self.stream)
        enqueue(0)
        end = self._device.record(self.stream)
        return self._device.elapsed_us(start, end)

    def play(self, sides: Sequence[Side], orders: Sequence[Sequence[int]]) -> list[list[float]]:
        """us per launch of each side, in the order of each round; see `comparison.Play`.

        An untimed graph leads, behind which the host gets ahead; all rounds are queued before the first is waited for.
        """
        self._device.replay(sides[orders[0][0]].graph, self.stream)
        marks = [self._device.record(self.stream)]
        for order in orders:
            for side in order:
                self._device.replay(sides[side].graph, self.stream)
                marks.append(self._device.record(self.stream))
        self.clocks = self._device.clocks()
        spans = [self._device.elapsed_us(start, end) for start, end in itertools.pairwise(marks)]
        self.busy_us += sum(spans)
        flat = iter(spans)
        return [[next(flat) / sides[side].launches for side in order] for order in orders]
