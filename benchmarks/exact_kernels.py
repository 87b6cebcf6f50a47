"""How far the clock is from real machines for kernels that are here byte by byte: modelled against measured times.

    python benchmarks/exact_kernels.py MEASURED.csv [--aiter DIR] [--seed 0] [--rows]

MEASURED.csv has a row per shape: m, n, k, out_dtype, kernel (a symbol), split_k and time_us. out_dtype is bfloat16 or
float32, of a bf16 product, or an operation such as mxfp4.nt->bf16. Each kernel that a shipped template describes and
whose file is here is proved on the emulator (cached between runs), with the fewest workgroups that can share its k. The
clock models the row's problem with the row's split. Nothing is left to a search, so the errors are the model's alone.

Kernels that fail their proof are named, and their rows left out. A kernel that is described for a C of float32 only is
modelled with that, whatever the row has; but one that shares k and has a bf16 path is modelled with that path for rows
of bf16 (bf16_shares.py).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from bf16_shares import traced

from hktune.commands.arguments import add_aiter, add_board, settings_of
from hktune.core.arch import GFX950
from hktune.core.board import DEFAULT_BOARD, Board, board_named
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.launch import Launch, Tile
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import KERNELS, SPACES
from hktune.emulator.clock.launch_time import Modelled, Profile, modelled_time
from hktune.emulator.clock.memory_traffic import Order, tile_order
from hktune.emulator.clock.rates import Rates
from hktune.measure.stopwatch import Attempt
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.rivals import is_here, same_product
from hktune.workers.prover import Prover

OPERATIONS = {"bfloat16": operation_of("bf16.nt"), "float32": operation_of("bf16.nt->f32")}
Modelling = tuple[Profile, Problem, Launch, Tile, Order]
"""What models the time of one row."""


def _operation(word: str) -> Operation:
    return OPERATIONS.get(word) or operation_of(word)


@dataclass(frozen=True)
class Kernel:
    """A described kernel: the first config that names it, and what proves that."""

    space: SearchSpace
    config: Config
    prover: Prover

    def proved(self, operation: Operation) -> Attempt:
        """The kernel proved for `operation`, with a line where it fails. Its profile is the same for every split."""
        attempt = self.prover(Candidate(self.config, self.space.template.code_operation(operation)))
        if attempt.failure:
            print(f"left out: {self.space.template.name} {self.config['kernel']}: {attempt.failure.detail:.180}")
        return attempt

    def profile(self, wanted: Operation) -> Profile | None:
        """The profile for C as `wanted`, or as the template has it; None where the kernel fails."""
        template = self.space.template
        if "workspace" in {argument.name for argument in template.arguments} and wanted == OPERATIONS["bfloat16"]:
            return traced(self.prover, self.config, KERNELS / template.name)
        return self.proved(wanted if wanted in template.operations else template.operation).profile

    def of(self, problem: Problem, split_k: int) -> Config | None:
        """The config that shares k by `split_k`; None where the kernel cannot, or cannot do `problem`."""
        if "split_k" not in self.config:
            return self.config if split_k == 1 and self._does(self.config, problem) else None
        config = self.space.config({**self.config, "split_k": split_k})
        return config if self._does(config, problem) else None

    def _does(self, config: Config, problem: Problem) -> bool:
        return self.space.for_operation(problem.operation).is_legal(config, problem)


def described(settings: Settings, seed: int) -> dict[str, Kernel]:
    """The kernels of the shipped templates whose files are here, by symbol."""
    found: dict[str, Kernel] = {}
    for path in sorted(SPACES.glob("*.yaml")):
        space = load_space(path)
        objects = space.template.objects
        if objects is None:
            continue
        prover = EmulatedBench(path, seed, settings)()
        for config in space.enumerate():
            if is_here(space, config, settings):
                found.setdefault(objects.symbol(config), Kernel(space, config, prover))
    return found


def modellings(measured: pd.DataFrame, kernels: dict[str, Kernel]) -> tuple[pd.DataFrame, list[Modelling]]:
    """The rows whose kernel is here, and what models each."""
    profiles: dict[tuple[str, Operation], Profile | None] = {}
    found: list[tuple[int, Modelling]] = []
    for index, row in measured.iterrows():
        kernel = kernels.get(row["kernel"])
        wanted = Problem(int(row["m"]), int(row["n"]), int(row["k"]), _operation(row["out_dtype"]))
        problem = same_product(wanted, kernel.space.template) if kernel else None
        config = kernel.of(problem, max(int(row["split_k"]), 1)) if kernel and problem else None
        if kernel is None or problem is None or config is None:
            continue
        key = row["kernel"], wanted.operation
        if key not in profiles:
            profiles[key] = kernel.profile(wanted.operation)
        profile, template = profiles[key], kernel.space.template.for_operation(problem.operation)
        if profile is None:
            continue
        order = tile_order(template.order(config), GFX950)
        found.append((index, (profile, wanted, template.launch(config, problem), template.tile(config), order)))
    return measured.loc[[index for index, _ in found]], [modelling for _, modelling in found]


def time_of(what: Modelling, rates: Rates | None = None, board: Board = DEFAULT_BOARD) -> Modelled:
    profile, problem, launch, tile, order = what
    return modelled_time(profile, problem, launch, tile, board, order, rates)


def modelled(measured: pd.DataFrame, kernels: dict[str, Kernel], board: Board = DEFAULT_BOARD) -> pd.DataFrame:
    """The rows whose kernel is here, with its modelled time and what bounds it."""
    rows, what = modellings(measured, kernels)
    times = [time_of(each, board=board) for each in what]
    rows = rows.assign(modelled_us=[each.timing.time_us for each in times], bound=[each.bound for each in times])
    return rows.assign(ratio=rows.modelled_us / rows.time_us, split_k=rows.split_k.clip(lower=1))


def classes(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Which rows each line of the report is about."""
    m, k, split = rows.m, rows.k, rows.split_k
    limits = [(0, 64), (64, 1024), (1024, 1 << 30)]
    names = ["m <= 64", "64 < m <= 1024", "m > 1024"]
    return {
        "all": m > 0,
        **{f"  {_short(symbol)}": rows.kernel == symbol for symbol in sorted(set(rows.kernel), key=_short)},
        "k <= 2048": k <= 2048,
        "split k": split > 1,
        "  in 9 or more": split >= 9,
        "float32 output": rows.out_dtype == "float32",
        **{name: (m > low) & (m <= high) for name, (low, high) in zip(names, limits, strict=True)},
    }


def _short(symbol: str) -> str:
    """The name in a mangled symbol of AITER's, without what all of them have."""
    return symbol.removeprefix("_ZN5aiter").lstrip("0123456789").removesuffix("E").removeprefix("bf16gemm_")


def report(rows: pd.DataFrame) -> None:
    """Of each class: mean absolute error, geometric mean of modelled over measured, its spread as a factor, the largest
    error, and Spearman's rank correlation."""
    print(f"{'':34} {'rows':>5} {'error':>7} {'mean':>6} {'spread':>7} {'worst':>6} {'rank':>7}")
    for name, chosen in classes(rows).items():
        group = rows[chosen]
        if len(group) < 2:
            continue
        logs, errors = np.log(group.ratio), (group.ratio - 1).abs()
        ranks = group.modelled_us.rank().corr(group.time_us.rank())
        print(
            f"{name:34} {len(group):5} {errors.mean():7.1%} {np.exp(logs.mean()):6.3f} {np.exp(logs.std()):7.3f} "
            f"{errors.max():6.0%} {ranks:7.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    add_aiter(parser)
    add_board(parser, "whose clock and power times are modelled with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", action="store_true", help="print every shape")
    options = parser.parse_args()
    measured = pd.read_csv(options.measured)
    board = board_named(options.board)
    rows = modelled(measured, described(settings_of(options), options.seed), board)
    if rows.empty:
        raise SystemExit("no row's kernel is here: pip install 'hktune[aiter]' or pass --aiter DIR")
    if options.rows:
        shown = rows.assign(kernel=rows.kernel.map(_short))
        print(shown.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(f"{len(rows)} of {len(measured)} rows have a kernel that is here")
    report(rows)


if __name__ == "__main__":
    main()
