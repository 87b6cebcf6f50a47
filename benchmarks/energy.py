"""The board's energy counter: how often it moves, how far windows of one kernel are apart, and what products take.

    python benchmarks/energy.py --shapes shapes.yaml --seconds 50

Opens the GPU in this process. First the counter is read as fast as it can be while the GPU is busy: its steps. Then
torch's product of each shape is measured again and again, cold: the energy of a launch, how far the windows stray from
their mean, and the mean power. A/A: windows are taken in pairs, and of each two pairs the intervals are compared, as of
two kernels that tie. They should never be apart. `--seconds` is when no further shape is begun.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from hktune.core.errors import DeviceError
from hktune.core.problem import Problem
from hktune.device.device import TimedDevice
from hktune.device.opening import find_device
from hktune.exchange import read_shapes
from hktune.measure.arena import Arena
from hktune.measure.baseline import TorchBaseline
from hktune.measure.energy import Energy, EnergyMeter
from hktune.measure.timer import GraphTimer, Side

WATCHED_S = 2.0
PAIRS = 4


def main() -> None:
    """Print the counter's steps, then a line for each shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=50.0)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    device = find_device()
    if not isinstance(device, TimedDevice) or device.energy_j() is None:
        raise DeviceError(f"{device.identity.name} does not count its energy")
    problems = [shape.problem for shape in read_shapes(options.shapes).shapes]
    arena = Arena(problems, "cold", device.last_level_cache_bytes, seed=0)
    timer, torchs = GraphTimer(device), TorchBaseline("cublas")
    meter, apart = EnergyMeter(device, timer), 0
    for number, problem in enumerate(sorted(problems, key=lambda each: -each.flops)):
        if time.monotonic() > until:
            break
        side = captured(timer, arena, torchs, problem)
        if number == 0:
            print_steps(device, timer, side)
        pairs = [found for _ in range(PAIRS) if (found := meter.measure([side], [2])[0])]
        apart += sum(are_apart(one, other) for one, other in pairwise(pairs))
        print_shape(problem, pairs, timer.launch_us(side))
    print(f"{apart} of all pairs of windows of one kernel were apart beyond their intervals")


def captured(timer: GraphTimer, arena: Arena, torchs: TorchBaseline, problem: Problem) -> Side:
    """A graph of torch's product."""
    sets = arena.sets(problem)
    enqueue = torchs.prepare(problem, sets[0], timer.stream)
    return timer.side(lambda index: enqueue(sets[index]), len(sets))


def print_steps(device: TimedDevice, timer: GraphTimer, side: Side) -> None:
    """How often the counter moves while the GPU is at work, and what one reading takes."""
    graphs = int(WATCHED_S * 1e6 / (timer.launch_us(side) * side.launches)) + 1
    for _ in range(graphs):
        device.replay(side.graph, timer.stream)
    began, readings = time.monotonic(), list[tuple[float, float]]()
    while time.monotonic() - began < 0.9 * WATCHED_S:
        readings.append((time.monotonic(), device.energy_j() or 0.0))
    device.synchronize()
    moved = [at for (_, before), (at, after) in pairwise(readings) if after != before]
    steps_ms = sorted(1e3 * (after - before) for before, after in pairwise(moved))
    reading_us = 1e6 * (readings[-1][0] - readings[0][0]) / (len(readings) - 1)
    spread = f"{steps_ms[0]:.1f}..{median(steps_ms):.1f}..{steps_ms[-1]:.1f} ms" if steps_ms else "none"
    print(
        f"{device.identity.name}: {len(moved)} steps, {spread} apart; a reading takes {reading_us:.0f} us", flush=True
    )


def print_shape(problem: Problem, pairs: list[Energy], launch_us: float) -> None:
    """The energy of a launch, and how far pairs of windows are from their mean."""
    if not pairs:
        print(f"{problem}: the counter did not move as it should")
        return
    mean = sum(each.joules for each in pairs) / len(pairs)
    strayed = max(abs(each.joules / mean - 1) for each in pairs)
    width = max((each.high - each.low) / each.joules for each in pairs)
    per_flop = 1e12 * mean / problem.flops
    print(
        f"{problem}: {1e3 * mean:.4g} mJ, {mean / launch_us * 1e6:.0f} W, {per_flop:.3f} pJ a FLOP; "
        f"pairs of windows within {strayed:.2%} of their mean, intervals {width:.1%} wide",
        flush=True,
    )


def are_apart(one: Energy, other: Energy) -> bool:
    """Whether the intervals say that they need unlike energies."""
    return one.high < other.low or other.high < one.low


if __name__ == "__main__":
    main()
