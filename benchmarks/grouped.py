"""Grouped and batched products next to torch's own, on one NVIDIA GPU: a mixture of experts, prefill and decode.

    python benchmarks/grouped.py DIR [--trials N] [--problems 512x14336x4096:grouped8.bf16.nt ...]

First `hktune tune` searches DIR for so many trials of each problem (0: what DIR has is enough). Its finalists are timed
in rounds that they share with `torch._grouped_mm`, `torch.bmm` or `torch.baddbmm`, on cold operands. Rows go to groups
by chance, all alike. Printed are the time of the fastest kernel, torch's, their ratio, and the least time in which the
device memory could be read and written: bytes at the rate that the specification gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import hktune
from hktune.core.group_sizes import routed_ends, row_ranges
from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.trial import Trial
from hktune.store import read_trials

PROBLEMS = (
    "512x14336x4096:grouped8.bf16.nt",  # Mixtral-8x7B, gate or up
    "64x2816x2048:grouped64.bf16.nt",
    "8192x2816x2048:grouped64.bf16.nt",
    "64x768x2048:grouped128.bf16.nt",  # Qwen3-30B-A3B, gate or up, of 8 tokens
    "512x768x2048:grouped128.bf16.nt",  # of 64
    "4096x768x2048:grouped128.bf16.nt",  # of 512
    "4096x2048x768:grouped128.bf16.nt",  # and down
    "2048x4096x7168:grouped32.bf16.nt",  # DeepSeek-V3, gate and up of a GPU's 32 experts of 256
    "2048x7168x2048:grouped32.bf16.nt",  # and down
    "2048x2048x7168:grouped256.bf16.nt",  # gate or up of all 256, of 256 tokens
    "2816x2048x4096:grouped16.bf16.tn",  # the gradient of 16 experts' weights
    "128x512x128:batched128.bf16.nn",  # DeepSeek-V3, a step of 128 tokens: queries of 128 heads
    "512x512x128:batched64.bf16.nt+residual",  # a mask is added to the scores of 64 heads
)
BYTES_PER_US = 4.8e6  # NVIDIA H200: 4.8 TB/s


def main() -> None:
    """Tune, and print a line for each problem, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--trials", type=int, default=48, metavar="N")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, metavar="PROBLEM")
    options = parser.parse_args()
    problems = [problem_of(text) for text in options.problems]
    if options.trials:
        hktune.tune(problems, out=options.directory, device="cuda", gpus=1, trials=options.trials, progress=False)
    rows = read_trials(options.directory / "trials.csv")
    print("| problem | used | us | torch, us | ratio | memory, us | config |\n|---|---|---|---|---|---|---|")
    ratios = [line(problem, rows) for problem in problems]
    print(f"| geometric mean | | | | {geometric_mean(ratios):.3f} | | |")


def line(problem: Problem, rows: Sequence[Trial]) -> float:
    """Prints the line of one problem; torch's time over the best kernel's."""
    own = [row for row in rows if row.problem == problem and row.status is Status.OK and row.stage is Stage.CONFIRMED]
    best = min(own, key=lambda row: row.time_us or 0.0)
    assert best.time_us is not None
    assert best.baseline_us is not None
    ratio = best.baseline_us / best.time_us
    floor_us = touched_bytes(problem) / BYTES_PER_US
    cells = [problem, used_groups(problem), f"{best.time_us:.1f}", f"{best.baseline_us:.1f}", f"{ratio:.3f}"]
    print(f"| {' | '.join(map(str, [*cells, f'{floor_us:.1f}', best.config]))} |", flush=True)
    return ratio


def used_groups(problem: Problem) -> int:
    """How many groups have rows, as they are timed."""
    if not problem.operation.is_grouped:
        return problem.groups
    return sum(end > first for first, end in row_ranges(routed_ends(problem.divided, problem.groups, 0)))


def touched_bytes(problem: Problem) -> int:
    """What must be read or written once: B of used groups only."""
    if not problem.operation.divides_rows:
        return problem.bytes
    of_b = problem.n * problem.k * problem.operation.b_dtype.bytes
    return problem.bytes - (problem.groups - used_groups(problem)) * of_b


if __name__ == "__main__":
    main()
