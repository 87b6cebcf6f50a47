"""What a kernel gains while it is the board's only load, next to what it gains in rounds that it shares.

    python benchmarks/steady_load.py results/sm90a-nvidia-h200 --seconds 60

Rounds that two kernels share, each for some 0.8 ms, have one clock for both: the board's power control answers far
slower. Where power is at its limit, a kernel that needs more energy thus slows the other one down, and is not seen to
slow itself. Here torch's own product and what the table launches take turns of 0.4 s, of which the last half counts.
For each entry of DIR, the largest first, this prints torch's time over the table's in shared rounds, in turns of their
own (the median and the least and most of pairs of turns), and torch's energy over the table's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import geometric_mean, median

import torch
from sibling_board import Bench  # type: ignore[import-not-found]

import hktune
from hktune.core.errors import DeviceError
from hktune.device.device import TimedDevice
from hktune.device.opening import open_device
from hktune.dispatch import read_table
from hktune.measure.comparison import compare
from hktune.measure.energy import EnergyMeter
from hktune.measure.stopping import CONFIRMING
from hktune.measure.timer import GraphTimer, Side

TURN_S = 0.4
TURNS = 3


def main() -> None:
    """Load the table, measure what it has, print a line for each problem and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    served = [entry.problem for entry in read_table(options.directory).entries if entry.choice != "vendor"]
    device = open_device("cuda")
    if not isinstance(device, TimedDevice):
        raise DeviceError("the device has no clock of its own")
    table = hktune.load(options.directory)
    table.warm()
    bench = Bench(device, served, table, table)
    found: list[tuple[float, float, float]] = []
    for problem in sorted(served, key=lambda each: -each.flops):
        if time.monotonic() > until:
            print(f"--seconds {options.seconds:g} are over: {len(served) - len(found)} problems were not begun")
            break
        torchs, tables = bench.sides(problem, [None, table])
        bench.timer.heat(torchs)
        (shared,) = compare(lambda orders, both=[torchs, tables]: bench.timer.play(both, orders), 1, CONFIRMING)
        pairs = [turns(device, bench.timer, torchs, tables, turn % 2 == 1) for turn in range(TURNS)]
        ratios = [one / other for one, other in pairs]
        one, other = EnergyMeter(device, bench.timer).measure([torchs, tables], [2, 2])
        energy = one.joules / other.joules if one and other else float("nan")
        found.append((shared.ratio.median, median(ratios), energy))
        print(
            f"{problem}: {median(own for _, own in pairs):.1f} us; torch / table {found[-1][0]:.3f} in shared rounds, "
            f"{found[-1][1]:.3f} ({min(ratios):.3f}..{max(ratios):.3f}) in turns, {energy:.3f} of energy",
            flush=True,
        )
    print("geometric means:", *(f"{geometric_mean(column):.4f}" for column in zip(*found, strict=True)))


def turns(device: TimedDevice, timer: GraphTimer, one: Side, other: Side, swap: bool) -> tuple[float, float]:
    """us a launch of either side under a load of its own; `swap` lets the other begin."""
    if swap:
        later, first = turns(device, timer, other, one, False)
        return first, later
    return steady_us(device, timer, one), steady_us(device, timer, other)


def steady_us(device: TimedDevice, timer: GraphTimer, side: Side) -> float:
    """us a launch in the last half of TURN_S seconds of nothing but this side."""
    graphs = max(int(TURN_S * 1e6 / (timer.launch_us(side) * side.launches)), 2)
    marks = []
    for count in range(graphs):
        if count in (graphs // 2, graphs - 1):
            marks.append(device.record(timer.stream))
        device.replay(side.graph, timer.stream)
    half, last = marks
    torch.cuda.synchronize()
    return device.elapsed_us(half, last) / ((graphs - 1 - graphs // 2) * side.launches)


if __name__ == "__main__":
    main()
