"""Whether the clock orders kernels of one shape as machines do: configs of the space that look like measured kernels.

    python benchmarks/like_kernels.py MEASURED.csv [--seed 0]

MEASURED.csv has several rows per shape: m, n, k, block_m, block_n, block_k, stages, warps_m, warps_n, split_k and
time_us, of FlyDSL's kernels; it may have group_rows. Each row's kernel is stood in for by the config of the space with
the same block, depth, stages (at most 4: more of 64 are fewer of 128) and waves. Rows that no config is like are left
out. Each config is compiled and proved on the emulator (cached between runs), and modelled with the row's split of k,
at whose end FlyDSL adds to C. So the errors are of model and likeness together.
"""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from exact_kernels import Modelling, time_of
from rich.progress import track

from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import SpaceError
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import DEFAULT_SPACE
from hktune.emulator.clock.launch_time import LATENCIES_CLK, Profile
from hktune.emulator.clock.memory_traffic import tile_order
from hktune.emulator.clock.rates import rates_of
from hktune.space import SearchSpace, load_space
from hktune.tuning.benches.emulated_bench import EmulatedBench

GEOMETRY = ["block_m", "block_n", "block_k", "stages", "warps_m", "warps_n"]
STAGES_MAX, DEPTH_MAX = 4, 128
EIGHT_WAVES = {"block_m": 256, "block_n": 256, "block_k": 64, "warps_m": 2, "warps_n": 4}
"""The one block for which FlyDSL's kernels load and multiply in quarters, with barriers and priorities in between."""
PINGPONG = {"schedule": "pingpong", "refill": "late", "lgkmcnt_clusters": 1, "spread": 4}
SLICES_AND_CLUSTERS = ((2, 1), (4, 1), (1, 0))
"""Of these, the first that is legal: parts of a K-tile, and clusters whose reads are in flight."""

RATES = rates_of(MI355X)
WAITS_TO_ADD, ATOMIC_TB_PER_S = 3, 1.4
"""Of the kernels that share k. The rate was fitted to them: from 16 to 256 workgroups they take 1.3 us longer."""


def alike(space: SearchSpace, row: dict[str, int]) -> Config | None:
    """The config that stands in for the kernel of `row`; None where there is none."""
    geometry = {name: row[name] for name in GEOMETRY if name not in ("block_k", "stages")}
    geometry["group_rows"] = max(row.get("group_rows", 1), 1)
    depth, stages = row["block_k"], row["stages"]
    if stages > STAGES_MAX and depth < DEPTH_MAX:
        depth, stages = 2 * depth, -(-stages // 2)
    stages = min(stages, STAGES_MAX)
    if all(row[name] == value for name, value in EIGHT_WAVES.items()):
        choices = [PINGPONG]
    else:
        loads = {"vmcnt_tiles": min(max(stages - 2, 0), 2), "split": 1}
        choices = [{**loads, "slices": slices, "lgkmcnt_clusters": ahead} for slices, ahead in SLICES_AND_CLUSTERS]
    for choice in choices:
        try:
            config = space.config({**geometry, **choice, "k_step": depth, "stages": stages})
        except SpaceError:
            return None
        if space.is_legal(config):
            return config
    return None


def launch_of(space: SearchSpace, config: Config, problem: Problem, split_k: int) -> Launch:
    """As FlyDSL launches its kernel: k shared by any number of workgroups, with nothing to gather."""
    tile = space.template.tile(config)
    tiles = -(-problem.m // tile.m) * -(-problem.n // tile.n)
    return replace(space.template.launch(config, problem), grid=(tiles * split_k, 1, 1))


def adding(profile: Profile, tile: Tile, problem: Problem, workgroups: int) -> Profile:
    """`profile` with the end of FlyDSL's kernels that share k. They wait for the flag that says that C is cleared, then
    for a counter, then for their atomics: pairs of bf16, so that each line of C is touched four times."""
    added_bytes = 2 * min(tile.m, problem.m) * tile.n
    touched_clk = 4 * added_bytes / RATES.line_bytes * RATES.tcp_store_line_clk
    drained_clk = workgroups * added_bytes / ATOMIC_TB_PER_S * 1e-3 * RATES.clock_ghz[0][1]
    waits_clk = [WAITS_TO_ADD * latency_clk + touched_clk + drained_clk for latency_clk in LATENCIES_CLK]
    ends = [
        replace(each, epilogue_clk=tuple(map(sum, zip(each.epilogue_clk, waits_clk, strict=True))))
        for each in profile.residencies
    ]
    return replace(profile, residencies=tuple(ends))


def modellings(measured: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, list[Modelling]]:
    """The rows that a proved config is like, and what models each."""
    space = load_space(DEFAULT_SPACE)
    prover = EmulatedBench(DEFAULT_SPACE, seed, Settings.from_environment(os.environ))()
    configs = [alike(space, row) for row in measured.to_dict("records")]
    profiles = {
        config: prover(Candidate(config)).profile
        for config in track(dict.fromkeys(filter(None, configs)), "proving", transient=True)
    }
    found = []
    for row, config in zip(measured.itertuples(), configs, strict=True):
        profile = profiles[config] if config else None
        if config is None or profile is None:
            continue
        problem, tile = Problem(int(row.m), int(row.n), int(row.k)), space.template.tile(config)
        launch, order = launch_of(space, config, problem, int(row.split_k)), space.template.order(config)
        if row.split_k > 1:
            profile = adding(profile, tile, problem, launch.grid[0])
        found.append((row.Index, (profile, problem, launch, tile, tile_order(order, GFX950))))
    return measured.loc[[index for index, _ in found]], [modelling for _, modelling in found]


def report(rows: pd.DataFrame) -> None:
    """Of each class: mean absolute error, geometric mean of modelled over measured, its spread, within 1.3x."""
    groups = -(-rows.m // rows.block_m) * -(-rows.n // rows.block_n) * rows.split_k
    classes = {
        "all": rows.m > 0,
        "k not split": rows.split_k == 1,
        "split in 2 to 4": rows.split_k.between(2, 4),
        "split in 5 to 8": rows.split_k.between(5, 8),
        "split in 9 or more": rows.split_k > 8,
        "k <= 1024": rows.k <= 1024,
        "at most 64 workgroups": groups <= 64,
        "65 to 256 workgroups": groups.between(65, 256),
        "more workgroups": groups > 256,
    }
    print(f"{'':24} {'rows':>5} {'error':>7} {'mean':>6} {'spread':>7} {'in 1.3':>7}")
    for name, chosen in classes.items():
        logs = np.log(rows[chosen].ratio)
        within = (logs.abs() <= np.log(1.3)).mean()
        error = (rows[chosen].ratio - 1).abs().mean()
        print(
            f"{name:24} {len(logs):5} {error:7.1%} {np.exp(logs.mean()):6.3f} {np.exp(logs.std()):7.3f} {within:7.0%}"
        )


def report_pairs(rows: pd.DataFrame) -> None:
    """How many pairs of kernels of one shape are ordered right, and what the modelled choice loses."""
    shapes = [group for _, group in rows.groupby(["m", "n", "k"]) if len(group) > 1]
    pairs = [
        (
            max(a.time_us, b.time_us) / min(a.time_us, b.time_us),
            (a.time_us < b.time_us) == (a.modelled_us < b.modelled_us),
        )
        for group in shapes
        for a, b in itertools.combinations(group.itertuples(), 2)
    ]
    for apart in (1.10, 1.03):
        right = [ordered for factor, ordered in pairs if factor > apart]
        print(f"pairs more than {apart - 1:.0%} apart: {len(right)}, ordered right {np.mean(right):.0%}")
    lost = [group.time_us[group.modelled_us.idxmin()] / group.time_us.min() for group in shapes]
    print(
        f"the modelled choice is {np.exp(np.mean(np.log(lost))) - 1:.1%} slower than the best, over {len(lost)} shapes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    measured = pd.read_csv(options.measured)
    rows, what = modellings(measured, options.seed)
    times = [time_of(each).timing.time_us for each in what]
    rows = rows.assign(modelled_us=times)
    rows = rows.assign(ratio=rows.modelled_us / rows.time_us)
    print(f"{len(rows)} of {len(measured)} rows have a config that is like their kernel")
    report(rows)
    report_pairs(rows)


if __name__ == "__main__":
    main()
