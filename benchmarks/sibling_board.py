"""What the table of a sibling board costs on this GPU, next to this board's own table and torch's library.

    python benchmarks/sibling_board.py results/sm90a-nvidia-h100-80gb-hbm3 results/sm90a-nvidia-h200 --seconds 50

A is the sibling's directory, which is loaded by the word allow_sibling_board; B is this board's. For every problem of
A, those that B has too first, torch's own call is served by either table and by neither, all in the same rounds, cold.
Printed are the time by A, the regret (time by A over time by B, less 1, with the ends of its 99 % interval), and what A
gains over torch. A product that is not torch's within the bound of float32 sums ends the script. `--seconds` is when no
further problem is begun.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import geometric_mean

import torch
from torch import Tensor

import hktune
from hktune.core.errors import DeviceError
from hktune.core.problem import Problem
from hktune.device.device import TimedDevice
from hktune.device.opening import open_device
from hktune.dispatch import read_table
from hktune.measure.agreement import disagreement
from hktune.measure.arena import Arena, OperandSet
from hktune.measure.baseline import TorchBaseline
from hktune.measure.comparison import compare
from hktune.measure.statistics import Interval
from hktune.measure.stopping import CONFIRMING
from hktune.measure.timer import GraphTimer, Side
from hktune.runtime import LoadedTable

Enqueue = Callable[[OperandSet], None]


def main() -> None:
    """Load both tables, time what A has, print a line for each problem and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, metavar="A")
    parser.add_argument("second", type=Path, metavar="B")
    parser.add_argument("--seconds", type=float, default=50.0)
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    entries = read_table(options.first).entries
    own = {entry.problem for entry in read_table(options.second).entries}
    problems = sorted((entry.problem for entry in entries), key=lambda problem: problem not in own)
    device = open_device("cuda")
    if not isinstance(device, TimedDevice):
        raise DeviceError("the device has no clock of its own")
    second, first = hktune.load(options.second), hktune.load(options.first, allow_sibling_board=True)
    for table in (first, second):
        print(table)
        table.warm()
    bench = Bench(device, problems, first, second)
    regrets, gains = [], []
    for problem in problems:
        if time.monotonic() > until:
            print(f"--seconds {options.seconds:g} are over: {len(problems) - len(gains)} problems were not begun")
            break
        by_first, regret, over_torch = bench.timed(problem, problem in own)
        gains.append(1 / over_torch.median)
        regrets += [regret.median] if regret else []
        print(f"{problem}: by A {by_first:.1f} us{said(regret)}, torch / A {gains[-1]:.3f}", flush=True)
    if regrets:
        worst = max(regrets) - 1
        print(f"regret {geometric_mean(regrets) - 1:+.2%} over {len(regrets)} problems of both, worst {worst:+.1%}")
    print(f"torch / A {geometric_mean(gains):.4f} in the geometric mean over {len(gains)} problems of A")
    print(first.stats())


def said(regret: Interval | None) -> str:
    """The regret with the ends of its interval; nothing where B has no row of the problem."""
    if regret is None:
        return ""
    return f", regret {regret.median - 1:+.1%} ({regret.low - 1:+.1%}..{regret.high - 1:+.1%})"


class Bench:
    """Graphs of one GPU: torch's call, served by each of two tables and by none."""

    def __init__(self, device: TimedDevice, problems: list[Problem], sibling: LoadedTable, own: LoadedTable) -> None:
        self.timer = GraphTimer(device)
        self._arena = Arena(problems, "cold", device.last_level_cache_bytes, seed=0)
        self._torch = TorchBaseline("cublas")
        self._sibling, self._own = sibling, own

    def timed(self, problem: Problem, is_own: bool) -> tuple[float, Interval | None, Interval]:
        """us by the sibling's table; that over the time by the own table, if it has the problem; and over torch's."""
        sides = self.sides(problem, [self._sibling, None, *([self._own] if is_own else [])])
        self.timer.heat(sides[0])
        found = compare(lambda orders: self.timer.play(sides, orders), len(sides) - 1, CONFIRMING)
        by_torch, *by_own = found
        return by_torch.baseline_us.median, by_own[0].ratio if by_own else None, by_torch.ratio

    def sides(self, problem: Problem, ways: Sequence[LoadedTable | None]) -> list[Side]:
        """torch's own call served by each of `ways`; by none where that is None."""
        sets = self._arena.sets(problem)
        enqueue = self._torch.prepare(problem, sets[0], self.timer.stream)
        torch.cuda.synchronize()
        reference = sets[0]["c"].clone()
        return [self._side(enqueue, sets, way, reference, problem) for way in ways]

    def _side(
        self, enqueue: Enqueue, sets: list[OperandSet], table: LoadedTable | None, reference: Tensor, problem: Problem
    ) -> Side:
        """torch's own call captured with `table` enabled, once its product was found right."""
        c = sets[0]["c"]
        with hktune.enable(table) if table else nullcontext():
            c.fill_(float("nan"))
            torch.cuda.synchronize()
            enqueue(sets[0])
            torch.cuda.synchronize()
            wrong = disagreement(c, reference, problem.k, problem.operation.c_dtype)
            if wrong:
                raise DeviceError(f"{problem} by {table}: {wrong}")
            return self.timer.side(lambda index: enqueue(sets[index]), len(sets))


if __name__ == "__main__":
    main()
