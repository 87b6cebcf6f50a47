"""What the formats of the gfx950 GEMM take, modelled, next to bf16.nt on the same shape and to their own roofline.

    python benchmarks/formats.py [--operations e4m3.nt.rows->bf16 ..] [--problems 4096x4096x4096 ..] [--seeds 2 3 ..]

The seeds of bf16.nt, or those of some places, are proved and profiled for each operation that they are legal for, and
with them the seeds that are for its formats alone. For each problem: the fastest of them in us, how many times as fast
as bf16.nt's fastest it is, and the share of its roofline. The roofline is the longer of the problem's operations at the
peak rate of its format, at the board's highest clock, and of its bytes at the peak of memory.
"""

from __future__ import annotations

import os
from dataclasses import replace

from layouts import fastest, parsed, profiled, seeds_at

from hktune.compile import hip_compiler
from hktune.core.board import board_named
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.emulator.clock.launch_time import Modelled
from hktune.emulator.clock.rates import rates_of
from hktune.space import load_space

OPERATIONS = (
    *("e4m3.nt.rows->bf16", "e4m3.nt.blocks->bf16", "mxfp8.nt->bf16", "mxfp6.nt->bf16", "mxfp4.nt->bf16"),
    "i8.nt.rows->bf16",
)
HBM_TB_PER_S = 8.0  # AMD's data sheets of the MI350X and the MI355X, 2025


def main() -> None:
    options = parsed(__doc__, OPERATIONS)
    problems = [Problem(*map(int, size.split("x"))) for size in options.problems]
    compiler = hip_compiler(Settings.from_environment(os.environ), options.hipkittens)
    usual, configs = load_space(options.space).seeds, seeds_at(options.space, options.seeds)
    base: list[float] = []
    print("| operation | " + " | ".join(f"{each.m} x {each.n} x {each.k}" for each in problems) + " |")
    print("|---|" + "---|" * len(problems))
    for operation in (BF16_NT, *map(operation_of, options.operations)):
        space = load_space(options.space).for_operation(operation)
        own = [seed for seed in space.seeds if seed not in usual]
        profiles = profiled(space, compiler, [*own, *configs])
        asked = [replace(each, operation=operation) for each in problems]
        best = [fastest(space, profiles, each, options.board) for each in asked]
        base = base or [each.timing.time_us for each in best]
        cells = [cell(*one, options.board) for one in zip(best, asked, base, strict=True)]
        print(f"| {operation} | " + " | ".join(cells) + " |", flush=True)


def cell(one: Modelled, problem: Problem, base_us: float, board: str) -> str:
    time_us = one.timing.time_us
    faster = "" if problem.operation == BF16_NT else f", {base_us / time_us:.2f} x"
    return f"{time_us:.1f}{faster}, {100 * roofline_us(problem, board) / time_us:.0f} %"


def roofline_us(problem: Problem, name: str) -> float:
    """The least that the board's peaks allow."""
    board = board_named(name)
    per_clk = rates_of(board).peak_flops_per_clk_cu(problem.operation) * board.arch.compute_units
    return max(problem.flops / (per_clk * board.max_clock_ghz * 1e3), problem.bytes / HBM_TB_PER_S * 1e-6)


if __name__ == "__main__":
    main()
