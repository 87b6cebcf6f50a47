"""Products of float8 with scales of blocks on one NVIDIA GPU: hktune's kernel, torch, and a kernel written in Triton.

    python benchmarks/block_scales.py DIR [--trials N] [--problems 512x4096x7168 ...]

First `hktune tune` searches DIR for so many trials of each problem (0: what DIR has is enough), next to
`torch._scaled_mm`. Then its best three are timed in rounds that they share with the fastest of the Triton kernel's
configs, on cold operands. Printed are the time of the fastest kernel, and how many times as long torch and Triton take.
A kernel of Triton's whose C is not the kernel's ends the script.

The Triton kernel is as its tutorials write a persistent product by tensor descriptors, with a scale of either operand
multiplied in after every 128 elements of K. Its configs are raced for each problem.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

import hktune
from hktune.compile import compiler_for
from hktune.core.config import Config
from hktune.core.outcome import Status, Timing
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.settings import settings_here
from hktune.core.shipped import SPACE_OF
from hktune.core.variant import CodeObject
from hktune.device.device import Kernel, TimedDevice
from hktune.device.opening import open_device
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import torch_stream
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.space import load_space
from hktune.store import read_trials
from hktune.template.templates import Templates

PROBLEMS = ("16x7168x2048", "64x24576x1536", "512x4096x7168", "2048x7168x16384", "4096x24576x1536")
"""DeepSeek-V3: down of the shared expert, queries, gate and up, attention's output, queries."""
OPERATION = "e4m3.nt.blocks->bf16"
FINALISTS = 3
BLOCK = 128


@triton.jit
def scaled_product(
    a, b, c, scale_a, scale_b, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """C [m,n] = A [m,k] with scales [m, k/128] by B [n,k] with scales [n/128, k/128]; matrices are descriptors."""
    down, across, steps = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N), tl.cdiv(k, BLOCK_K)
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS, flatten=True):
        group = tile // (GROUP * across)
        height = min(down - group * GROUP, GROUP)
        row = (group * GROUP + tile % (GROUP * across) % height) * BLOCK_M
        column = tile % (GROUP * across) // height * BLOCK_N
        rows = row + tl.arange(0, BLOCK_M)
        total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(steps):
            of_a = tl.load(scale_a + rows * steps + step, mask=rows < m, other=0.0)
            of_b = tl.load(scale_b + column // BLOCK_K * steps + step)
            product = tl.dot(a.load([row, step * BLOCK_K]), b.load([column, step * BLOCK_K]).T)
            total += product * (of_a * of_b)[:, None]
        c.store([row, column], total.to(tl.bfloat16))


CONFIGS = (
    *((16, 64, 4, 4), (16, 64, 4, 6), (16, 128, 4, 4), (64, 64, 4, 6), (64, 128, 4, 4), (64, 128, 4, 6)),
    *((128, 64, 4, 4), (128, 128, 8, 3), (128, 128, 8, 4), (128, 128, 4, 4)),
)
"""Rows and columns of a tile, warps, stages. Columns divide 128: a tile is of one block of B."""


class TritonBaseline:
    """Baseline: the fastest of the kernel's configs on the first operands, by events around ten launches of each."""

    name = "triton"

    def __init__(self) -> None:
        self.chosen: dict[Problem, tuple[int, ...]] = {}

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline."""
        external, known = torch_stream(stream), {}
        fitting = [config for config in CONFIGS if config[0] <= max(16, 2 * problem.m)]
        best = min(fitting, key=lambda config: took_us(problem, operands, config))
        self.chosen[problem] = best

        def enqueue(operands: OperandSet) -> None:
            at = operands["a"].data_ptr()
            if at not in known:
                known[at] = launch_of(problem, operands, best)
            with torch.cuda.stream(external):
                known[at]()

        enqueue(operands)
        external.synchronize()
        return enqueue


def launch_of(problem: Problem, operands: OperandSet, config: tuple[int, ...]) -> Callable[[], Any]:
    """One launch on these operands."""
    block_m, block_n, warps, stages = config
    a, b, c = (operands[name] for name in ("a", "b", "c"))
    described = [
        TensorDescriptor.from_tensor(matrix, list(block))
        for matrix, block in ((a, (block_m, BLOCK)), (b, (block_n, BLOCK)), (c, (block_m, block_n)))
    ]
    programs = torch.cuda.get_device_properties(a.device).multi_processor_count
    tiles = triton.cdiv(problem.m, block_m) * triton.cdiv(problem.n, block_n)
    programs = min(programs * (1 if block_m * block_n > 64 * 128 else 2), tiles)
    scales = operands["scale_a"], operands["scale_b"]
    return lambda: scaled_product[(programs,)](
        *described, *scales, problem.m, problem.n, problem.k, block_m, block_n, BLOCK, 8, programs,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip


def took_us(problem: Problem, operands: OperandSet, config: tuple[int, ...]) -> float:
    """Of one launch; infinite where the config does not fit the GPU."""
    try:
        launch = launch_of(problem, operands, config)
        launch()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(10):
            launch()
        end.record()
        end.synchronize()
    except triton.runtime.errors.OutOfResources:
        return float("inf")
    return float(begin.elapsed_time(end)) * 100


def main() -> None:
    """Tune, time, and print a line for each problem, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--trials", type=int, default=24, metavar="N")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, metavar="MxNxK")
    options = parser.parse_args()
    problems = [problem_of(f"{sizes}:{OPERATION}") for sizes in options.problems]
    if options.trials:
        hktune.tune(problems, out=options.directory, device="cuda", gpus=1, trials=options.trials, progress=False)
    ratios = list(timed(problems, options.directory))
    means = [geometric_mean(each) for each in zip(*ratios, strict=True)]
    print("| geometric mean | | " + " | ".join(f"{mean:.3f}" for mean in means) + " | |")


def timed(problems: list[Problem], directory: Path) -> Any:
    """Prints a line for each problem, and gives how many times as long torch, Triton, and the better of them take."""
    rows, settings, device = read_trials(directory / "trials.csv"), settings_here(), open_device("cuda")
    assert isinstance(device, TimedDevice), "a GPU"
    space = load_space(SPACE_OF[device.identity.arch])
    compiler, baseline = compiler_for(space.template.language, settings), TritonBaseline()
    kernels: dict[str, Kernel] = {}
    stopwatch = MeasuredStopwatch(
        device, Templates(space.template), lambda attempt: kernels[attempt.config.id], (baseline,), problems
    )
    print("| m x n x k | us | torch | Triton | better of both | configs |\n|---|---|---|---|---|---|")
    for problem in problems:
        own = [row for row in rows if row.problem == problem and row.status is Status.OK and row.baseline_us]
        best = sorted(own, key=lambda row: row.time_us or 0.0)
        by_torch = min(row.baseline_us / row.time_us for row in best[:1] if row.baseline_us and row.time_us)
        attempts = []
        for config in itertools.islice(dict.fromkeys(row.config for row in best), FINALISTS):
            of_operation = space.for_operation(problem.operation)
            chosen = Config.from_json(config)
            code = compiler.compile(of_operation.template.render(chosen), 120.0)
            assert isinstance(code, CodeObject), code
            kernels[chosen.id] = device.load(code.data, code.symbol)
            attempts.append(Attempt(chosen, operation=problem.operation))
        times = [stopwatch.time(each, problem) for each in attempts]
        agreeing = [each for each in times if isinstance(each, Timing)]
        assert agreeing, f"{problem}: {times}"
        fastest = min(agreeing, key=lambda each: each.time_us)
        assert fastest.baseline_us is not None, "the Triton kernel is the baseline"
        by_triton = fastest.baseline_us / fastest.time_us
        ratios = (by_torch, by_triton, min(by_torch, by_triton))
        cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        size = f"{problem.m} x {problem.n} x {problem.k}"
        print(f"| {size} | {fastest.time_us:.1f} | {cells} | Triton {baseline.chosen[problem]} |", flush=True)
        yield ratios


if __name__ == "__main__":
    main()
