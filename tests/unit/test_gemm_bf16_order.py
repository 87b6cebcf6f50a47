"""The order of workgroups: one to one for every grid, as the clock is told, and as the emitted kernel walks it."""

from __future__ import annotations

import numpy as np
import pytest
from gemm_bf16_variants import built, model, output_of, proof, space
from hypothesis import given, settings
from hypothesis import strategies as st

from hktune.core.arch import GFX950
from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.launch import WorkgroupOrder
from hktune.core.problem import Problem
from hktune.emulator.clock.memory_traffic import row_major, tile_order, tiles_of
from hktune.verify import Proof, random_operands

XCDS = 8
CHUNKS = next(parameter.values for parameter in space().parameters if parameter.name == "xcd_chunk")
GROUPS = next(parameter.values for parameter in space().parameters if parameter.name == "group_rows")
GRIDS = [(1, 1), (3, 5), (7, 3), (2, 17), (13, 2)]


def one_tile(workgroup: int, tiles_m: int, tiles_n: int, chunk: int, group: int) -> tuple[int, int]:
    """The order said another way: tiles go chunk by chunk to the XCDs in turn, as long as whole turns are left."""
    turn, whole = XCDS * chunk, tiles_m * tiles_n // (XCDS * chunk)
    tile = workgroup
    if workgroup // turn < whole:
        number = workgroup // XCDS  # among the workgroups of its XCD
        tile = (number // chunk * XCDS + workgroup % XCDS) * chunk + number % chunk
    band, within = divmod(tile, group * tiles_n)
    rows = range(band * group, min((band + 1) * group, tiles_m))
    column, row = divmod(within, len(rows))
    return rows[row], column


@pytest.mark.parametrize("chunk", [2, 8, 32])
def test_it_is_a_permutation_of_every_grid_up_to_64_by_64(chunk: int) -> None:
    for tiles_m in range(1, 65):
        for tiles_n in range(1, 65):
            ids = np.arange(tiles_m * tiles_n, dtype=np.int64)
            rows, columns = tiles_of(ids, tiles_m, tiles_n, XCDS, chunk, GROUPS[(tiles_m + tiles_n) % len(GROUPS)])
            assert rows.min() >= 0
            assert columns.min() >= 0
            assert rows.max() < tiles_m
            assert columns.max() < tiles_n
            assert np.bincount(rows * tiles_n + columns, minlength=len(ids)).max() == 1, (tiles_m, tiles_n)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(CHUNKS), st.sampled_from(GROUPS), st.randoms())
@settings(max_examples=100, deadline=None)
def test_random_grids_are_permuted_as_said_the_other_way(tiles_m, tiles_n, chunk, group, random) -> None:  # type: ignore[no-untyped-def]
    ids = np.arange(tiles_m * tiles_n, dtype=np.int64)
    rows, columns = tiles_of(ids, tiles_m, tiles_n, XCDS, chunk, group)
    assert len(np.unique(rows * tiles_n + columns)) == len(ids)
    for workgroup in random.sample(range(len(ids)), min(20, len(ids))):
        assert (rows[workgroup], columns[workgroup]) == one_tile(workgroup, tiles_m, tiles_n, chunk, group)


@pytest.mark.parametrize(
    ("tiles_m", "tiles_n", "columns"), [(3, 70, 32), (8, 64, 32), (5, 7, 32), (4, 9, 2), (1, 33, 32)]
)
def test_groups_of_columns_are_walked_row_by_row(tiles_m: int, tiles_n: int, columns: int) -> None:
    bands = [range(first, min(first + columns, tiles_n)) for first in range(0, tiles_n, columns)]
    expected = [(row, column) for band in bands for row in range(tiles_m) for column in band]
    ids = np.arange(tiles_m * tiles_n, dtype=np.int64)
    rows, places = tiles_of(ids, tiles_m, tiles_n, XCDS, 1, 1, columns)
    assert list(zip(rows.tolist(), places.tolist(), strict=True)) == expected


def test_chunks_and_groups_of_one_are_the_plain_order() -> None:
    ids = np.arange(35, dtype=np.int64)
    assert np.array_equal(tiles_of(ids, 5, 7, XCDS, 1, 1), row_major(ids, 5, 7))
    assert tile_order(WorkgroupOrder(), GFX950) is row_major


def ordered(chunk: int, group: int) -> Config:
    small = {"block_m": 32, "block_n": 32, "k_step": 32, "warps_m": 1, "warps_n": 2, "split": 1}
    config = space().config({**small, "xcd_chunk": chunk, "group_rows": group})
    assert not space().violations(config)
    return config


@pytest.mark.parametrize(("tiles_m", "tiles_n"), GRIDS)
@pytest.mark.parametrize(("chunk", "group"), [(1, 4), (2, 1), (2, 4), (4, 2)])
def test_the_kernel_writes_every_tile_of_odd_grids(tiles_m: int, tiles_n: int, chunk: int, group: int) -> None:
    """As many workgroups as tiles, and every element right: each tile is written, so each only once."""
    config = ordered(chunk, group)
    problem = Problem(32 * tiles_m, 32 * tiles_n, 64)
    launch = space().template.launch(config, problem)
    assert launch.grid == (tiles_m * tiles_n, 1, 1)
    assert isinstance(proof(built(config), launch, problem), Proof)


@pytest.mark.parametrize("workgroups", [1, 3, 9, 20])
def test_the_first_workgroups_of_the_kernel_write_the_tiles_that_the_clock_expects(workgroups: int) -> None:
    config, tiles_m, tiles_n = ordered(2, 4), 7, 5
    assert space().template.order(config) == WorkgroupOrder(2, 4)
    written = tiles_written(config, Problem(32 * tiles_m, 32 * tiles_n, 32), workgroups)
    rows, columns = tile_order(WorkgroupOrder(2, 4), GFX950)(np.arange(workgroups, dtype=np.int64), tiles_m, tiles_n)
    assert written == set(zip(rows.tolist(), columns.tolist(), strict=True))


def tiles_written(config: Config, problem: Problem, workgroups: int) -> set[tuple[int, int]]:
    c = output_of(config, problem, random_operands(problem, seed=1), workgroups)
    rows, columns = np.nonzero(c != BF16.poison_bits)
    derived = model(config)
    return set(zip((rows // derived["block_m"]).tolist(), (columns // derived["block_n"]).tolist(), strict=True))
