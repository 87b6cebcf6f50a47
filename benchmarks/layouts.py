"""What the layouts, outputs and activations of the gfx950 GEMM take, modelled, next to bf16.nt.

    python benchmarks/layouts.py [--operations bf16.nn bf16.tn ..] [--problems 4096x4096x4096 ..] [--seeds 2 3 ..]

The space's seeds, or those of some places, are proved and profiled for each operation: one launch of whole tiles each,
with hazards. For each problem, the fastest of them, in us, what bounds it, and how much longer that is than bf16.nt's.
Sizes are those of the product of A and B: with gates, C has half of the n columns.
The last row is bf16.nt and then a kernel that does nothing but read and write C: at the peak of the memory that C is
in, and with the cost of a launch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from hktune.commands.arguments import add_board, add_hipkittens, add_space
from hktune.compile import Compiler, hip_compiler
from hktune.core.attended import attended_s
from hktune.core.board import board_named
from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.variant import CodeObject
from hktune.emulator.clock.launch_time import Modelled, modelled_time
from hktune.emulator.clock.memory_traffic import tile_order
from hktune.emulator.clock.profile import Profile
from hktune.emulator.clock.rates import rates_of
from hktune.space import SearchSpace, load_space
from hktune.verify.emulated_proof import ProofLaunch, ProofTask, prove_all
from hktune.workers.prover import COMPILE_DEADLINE_S, DEADLINE_S

SIZES = ("4096x4096x4096", "8192x8192x8192", "16x4096x4096", "512x11008x4096")
OPERATIONS = ("bf16.nn", "bf16.tn", "bf16.tt", "bf16.nt->f32", "bf16.tn->f32")


def main() -> None:
    options = parsed(__doc__, OPERATIONS)
    problems = [Problem(*map(int, size.split("x"))) for size in options.problems]
    compiler = hip_compiler(Settings.from_environment(os.environ), options.hipkittens)
    base: list[float] = []
    print("| operation | " + " | ".join(f"{each.m} x {each.n} x {each.k}" for each in problems) + " |")
    print("|---|" + "---|" * len(problems))
    for operation in (BF16_NT, *map(operation_of, options.operations)):
        space = load_space(options.space).for_operation(operation)
        profiles = profiled(space, compiler, seeds_at(options.space, options.seeds))
        asked = [replace(each, n=each.n // operation.b_columns, operation=operation) for each in problems]
        best = [fastest(space, profiles, each, options.board) for each in asked]
        base = base or [each.timing.time_us for each in best]
        cells = [cell(one, us if operation != BF16_NT else None) for one, us in zip(best, base, strict=True)]
        print(f"| {operation} | " + " | ".join(cells) + " |", flush=True)
    times = [us + pass_us(each, options.board) for us, each in zip(base, problems, strict=True)]
    cells = [f"{us:.1f}, {100 * (us / base_us - 1):+.1f} %" for us, base_us in zip(times, base, strict=True)]
    print(f"| {BF16_NT}, then a pass over C | " + " | ".join(cells) + " |")


def pass_us(problem: Problem, board: str) -> float:
    """The least time of a kernel that reads and writes C once."""
    rates, c_bytes = rates_of(board_named(board)), problem.m * problem.n * problem.operation.c_dtype.bytes
    tb_per_s = rates.mall_tb_per_s if c_bytes <= rates.mall_bytes else rates.hbm_tb_per_s
    return rates.launch_us + 2 * c_bytes / tb_per_s * 1e-6


def cell(one: Modelled, base_us: float | None) -> str:
    time_us = one.timing.time_us
    return f"{time_us:.1f}, {one.bound}" + ("" if base_us is None else f", {100 * (time_us / base_us - 1):+.1f} %")


def seeds_at(space: Path, places: Sequence[int]) -> list[Config]:
    """The seeds of bf16.nt at `places`, all where there are none."""
    seeds = load_space(space).seeds
    return [seeds[place] for place in places or range(len(seeds))]


def profiled(space: SearchSpace, compiler: Compiler, configs: Sequence[Config]) -> list[tuple[Config, Profile]]:
    """The profiles of those configs that are legal for the operation of `space`. Exits where one is wrong."""
    found = []
    for config in track(configs, str(space.template.operation), transient=True):
        if not space.is_legal(config):
            continue
        code = compiler.compile(space.template.render(config), COMPILE_DEADLINE_S)
        if not isinstance(code, CodeObject):
            raise SystemExit(f"{config}: {code}")
        what = space.template.proof_problems(config)[0]
        launch = ProofLaunch(what, space.template.launch(config, what.problem))
        task = ProofTask(
            code.sha256, code.symbol, space.arch, code.resources, space.template.tile(config), (launch,), seed=1
        )
        outcome = prove_all(code.data, task, attended_s() + DEADLINE_S)
        if isinstance(outcome, Failure):
            raise SystemExit(f"{config}: {outcome}")
        found.append((config, outcome.profile))
    return found


def fastest(space: SearchSpace, profiles: list[tuple[Config, Profile]], problem: Problem, board: str) -> Modelled:
    """The shortest modelled time of those that are legal for `problem`."""
    times = []
    for config, profile in profiles:
        template = space.template
        if space.is_legal(config, problem):
            launch, tile = template.launch(config, problem), template.tile(config)
            order = tile_order(template.order(config), space.arch)
            times.append(modelled_time(profile, problem, launch, tile, board_named(board), order))
    if not times:
        raise InputError(f"{problem}: no seed is legal")
    return min(times, key=lambda one: one.timing.time_us)


def parsed(description: str | None, operations: Sequence[str]) -> argparse.Namespace:
    """What was typed; `operations` are those of a call that names none."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", nargs="+", default=list(operations))
    parser.add_argument("--problems", nargs="+", default=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="places of seeds in the space (default: all)")
    add_space(parser, "the search space (default: gfx950's)", default=DEFAULT_SPACE)
    add_board(parser, "whose clock and power times are modelled with")
    add_hipkittens(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
