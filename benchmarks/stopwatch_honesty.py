"""Is the stopwatch honest? One kernel on both sides, and one slowed by a known 2 %, compared again and again on a GPU.

    python benchmarks/stopwatch_honesty.py --problem 4096x4096x4096 --comparisons 100

The slowed side is the same kernel with 51 launches in the graph where the other has 50, and 50 counted. Prints how many
intervals contain 1.00, how many tell the 2 % apart, and how far the medians strayed.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from hktune.core.candidate import Candidate
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.measure.comparison import Comparison
from hktune.measure.stopping import CONFIRMING, SCREENING
from hktune.measure.timer import Side
from hktune.space import load_space
from hktune.tuning.benches.device_choice import choose_device
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.workers.gpu_service import GpuService, Serving

LAUNCHES, SLOWED_LAUNCHES = 50, 51
RULES = {"screening": SCREENING, "confirming": CONFIRMING}


def main() -> None:
    """Open the GPU in this process, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problem", action="append", required=True, metavar="MxNxK")
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--slowed", type=int, help="of the slowed side; default: as many")
    parser.add_argument("--rule", choices=sorted(RULES), action="append", help="default: each")
    parser.add_argument("--prebuilt", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    kind, space = choose_device(options.device, None, settings)
    bench = GpuBench(kind, space, 0, settings, prebuilt=options.prebuilt)
    problems = tuple(parsed(text) for text in options.problem)
    serving = GpuService(kind, space, bench.make_compiler, problems, settings)()
    for problem in problems:
        for name in options.rule or RULES:
            slowed = options.comparisons if options.slowed is None else options.slowed
            examine(serving, bench, problem, name, options.comparisons, slowed)


def parsed(text: str) -> Problem:
    """The problem of a word like 4096x4096x4096."""
    m, n, k = map(int, text.split("x"))
    return Problem(m, n, k)


def examine(serving: Serving, bench: GpuBench, problem: Problem, name: str, comparisons: int, slowed: int) -> None:
    """Compare the space's default config with itself, and with itself slowed."""
    rule = RULES[name]
    attempt = bench()(Candidate(load_space(bench.space).config({})))
    pair = [serving.stopwatch.side(attempt, problem) for _ in range(2)]
    unequal = [stretched(serving, side, extra) for side, extra in zip(pair, (0, 1), strict=True)]
    same = [serving.stopwatch.compared_graphs(pair, rule)[0] for _ in range(comparisons)]
    slower = [serving.stopwatch.compared_graphs(unequal, rule)[0] for _ in range(slowed)]
    contained = sum(comparison.ratio.contains(1.0) for comparison in same)
    apart = sum(comparison.ratio.high < 1.0 for comparison in slower)
    expected = LAUNCHES / SLOWED_LAUNCHES
    right = sum(comparison.ratio.contains(expected) for comparison in slower)
    print(
        f"{problem} {name}: A/A interval contains 1.00 in {contained} of {comparisons}, medians {spread(same)}, "
        f"{rounds(same)} rounds; {SLOWED_LAUNCHES}/{LAUNCHES} launches told apart in {apart} of {slowed}, "
        f"interval contains {expected:.4f} in {right}, medians {spread(slower)}",
        flush=True,
    )


def stretched(serving: Serving, side: Side, extra: int) -> Side:
    """A graph of LAUNCHES (+ extra) launches of what `side` launches, counted as LAUNCHES."""
    enqueue = side.keeps
    assert callable(enqueue)

    def all_of_them() -> None:
        for launch in range(LAUNCHES + extra):
            enqueue(launch % 2)

    graph = serving.device.capture(all_of_them, serving.stopwatch.timer.stream)
    return replace(side, graph=graph, launches=LAUNCHES)


def spread(comparisons: list[Comparison]) -> str:
    """The range of the middle 95 % of the medians."""
    low, high = np.quantile([comparison.ratio.median for comparison in comparisons], [0.025, 0.975])
    return f"{low:.4f}..{high:.4f}"


def rounds(comparisons: list[Comparison]) -> str:
    """Rounds that comparisons took, in the median."""
    return f"{np.median([comparison.rounds for comparison in comparisons]):.0f}"


if __name__ == "__main__":
    main()
