"""Batched and grouped products of the gfx950 GEMM: under every schedule, where they are wrong, wherever groups end, and
which tiles workgroups take. Their clock, against counts of what each round wants."""

from __future__ import annotations

import heapq
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from gemm_bf16_variants import HALF_OF_WARP, INTERLEAVED, PINGPONG, SHARED, compiled, space
from test_exact_sums import proofs_of

from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.group_sizes import row_ranges
from hktune.core.launch import Tile, WorkgroupOrder
from hktune.core.operation import operation_of
from hktune.core.outcome import Failure
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.core.problem_tiles import tiles_of
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.launch_time import LATENCIES_CLK, Profile, Residency, longer_by_unequal_k, modelled_time
from hktune.emulator.clock.memory_traffic import problem_order, rounds_of
from hktune.measure.modelled import with_interval
from hktune.verify import Proof, random_operands

SMALL = {"block_m": 32, "block_n": 32, "k_step": 32, "warps_m": 1, "warps_n": 2, "split": 1}
ORDERED = SMALL | {"xcd_chunk": 2, "group_rows": 2}
KEPT = ("", "")
Bits = npt.NDArray[np.uint16]


PROVED = [
    ("batched.bf16.nt", ORDERED),
    ("grouped.bf16.nt", SHARED),
    ("grouped.bf16.tn", SHARED),
    ("grouped.bf16.nt+silu+gated", HALF_OF_WARP),
    ("grouped.e4m3.nt.rows->bf16", HALF_OF_WARP | {"slices": 1}),
]
PROVED_TOO = [
    ("batched.f16.tt->f32", SHARED),
    ("batched.bf16.nn", PINGPONG),
    ("batched.f16.tn", INTERLEAVED),
    ("grouped.f16.nn", ORDERED),
    ("grouped.bf16.nn->f32", INTERLEAVED),
    ("grouped.f16.nt", PINGPONG),
    ("grouped.f16.nt+silu+gated_interleaved", HALF_OF_WARP),
    ("batched.i8.nt.rows->f16", SHARED),
    ("batched.bf16.nn+residual", SHARED),
    ("grouped.f16.tn->f32", PINGPONG),
    ("grouped.bf16.tn->f32", INTERLEAVED),
]


@pytest.mark.parametrize(
    ("text", "values"), [*PROVED, *(pytest.param(*each, marks=pytest.mark.slow) for each in PROVED_TOO)]
)
def test_every_schedule_proves_them(text: str, values: dict[str, object]) -> None:
    outcomes = proofs_of(text, values, KEPT)
    assert all(isinstance(outcome, Proof) for outcome in outcomes), outcomes


MUTANTS = {
    "one B for all": ("batched.bf16.nt", SMALL, "own.number * halfwords_in(stride_b) + (", "("),
    "rows of A that are the first product's": ("batched.bf16.tn", SMALL, "own.number * halfwords_in(stride_a) + ", ""),
    "one C for all": ("batched.f16.nn", SMALL, "own.number * stride_c + ", ""),
    "rows of C in place of rows of a group": ("grouped.bf16.nt", SMALL, "(GROUPS_OF_K ? k : m) = own.size;", ""),
    "sums that stop at a row of lanes": ("grouped.f16.nn", SMALL, "lane_31_to_upper_half, 0xc", "0x111, 0"),
    "as many groups as a wave has lanes": ("grouped.f16.nt", SMALL, "first < groups; first +=", "first < 1; first +="),
    "tiles that are the next group's": ("grouped.bf16.nt", SMALL, "of_lane(behind - tiles)", "of_lane(behind)"),
    "no room for tiles that are not full": (
        "grouped.bf16.nt", SHARED, "m / BLOCK_M + min(m, groups)", "blocks_of_rows(m)",
    ),
    "B from the first element of K on": ("grouped.f16.tn", SMALL, "(GROUPS_OF_K ? own.first * ldb : 0)", "0"),
    "K of the next group, too": ("grouped.bf16.tn", SMALL, "own.size = max(", "own.size = 1 + max("),
    "scales of the first group's columns": (
        "grouped.i8.nt.rows->f32", HALF_OF_WARP, "int64_t(own.number) * ldscale_b", "0",
    ),
    "scales of the first rows": ("grouped.i8.nt.rows->f32", HALF_OF_WARP, "* ldscale_a + own.first", "* ldscale_a"),
    "a residual for all": ("batched.f16.nt+residual", SMALL, "own.number * stride_residual", "0"),
    "a bias for all": ("grouped.bf16.nt", SMALL, "bias += int64_t(own.number) * n", "bias += n"),
    "a bias of gates as long as C is wide": (
        "grouped.bf16.nt+silu+gated", HALF_OF_WARP, "own.number) * n * (BLOCK_N / BLOCK_COLS)", "own.number) * n",
    ),
    "sums that begin with another group's": (
        "grouped.bf16.tn->f32", SMALL, "if (accumulate && share == 0) return load_block(block_target(c,",
        "if (accumulate && share == 0) return load_block(block_target(c - own.number * stride_c,",
    ),
    "groups of nothing that have something": ("grouped.bf16.tn", SMALL, "(!GROUPS_OF_K || k_left > 0)", "k_left < 99"),
}  # fmt: skip


QUICK = ("one B for all", "sums that stop at a row of lanes", "K of the next group, too")


@pytest.mark.parametrize(
    "mutant", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in MUTANTS]
)
def test_a_kernel_that_is_wrong_is_not_proved(mutant: str) -> None:
    text, values, right, wrong = MUTANTS[mutant]
    outcomes = proofs_of(text, values, (right, wrong))
    assert any(isinstance(outcome, Failure) for outcome in outcomes), outcomes


def output_of(
    config: Config,
    problem: Problem,
    ends: list[int] | None = None,
    workgroups: int | None = None,
    held: Bits | None = None,
) -> Bits:
    """C [rows,n] as the first workgroups (None: all) leave it, poison or what it `held` where they do not write."""
    bound = space().for_operation(problem.operation)
    code, launch = compiled(bound.template.render(config)), bound.template.launch(config, problem)
    if workgroups is not None:
        launch = replace(launch, grid=(workgroups, 1, 1))
    device, stored = EmulatedDevice(), operands(problem)
    c = np.full((problem.rows, problem.n), BF16.poison_bits, np.uint16)
    c = c if held is None else held.reshape(c.shape).copy()
    offsets = stored.get("offsets") if ends is None else np.array(ends, np.int32)
    arrays = {"a": stored["a"], "b": stored["b"], "c": c, **({} if offsets is None else {"offsets": offsets})}
    if launch.workspace_bytes:
        arrays["workspace"] = np.zeros(launch.workspace_bytes, np.uint8)
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    device.launch(device.load(code.data, code.symbol), launch, launch.bound({**buffers, **problem.numbers()}))
    device.read(buffers["c"], c)
    return c


@lru_cache
def operands(problem: Problem) -> dict[str, Bits]:
    return dict(random_operands(problem, 1).stored)


def numbers(bits: Bits) -> npt.NDArray[np.float64]:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    "ends",
    [
        [0, 0, 0, 50],  # the last has all
        [50, 50, 50, 50],
        [33, 40, 40, 41],  # rows behind the last group stay
        [0, 0, 0, 0],
        [-7, 20, 90, 50],  # none begins before C, or ends behind it
        [40, 10, 45, 2_000_000_000],
    ],
)
def test_groups_may_end_anywhere(ends: list[int]) -> None:
    problem = Problem(50, 40, 32, operation_of("grouped4.bf16.nt"))
    stored = operands(problem)
    c = output_of(space().config(SMALL), problem, ends)
    a, b, found = numbers(stored["a"]), numbers(stored["b"]), numbers(c)
    written = np.zeros(50, bool)
    of_group = row_ranges(np.clip(ends, 0, 50))
    for group, (first, end) in enumerate(of_group):
        own = [row for row in range(first, end) if sum(begin <= row < after for begin, after in of_group) == 1]
        exact = a[own] @ b[group].T
        assert np.allclose(found[own], exact, rtol=2**-8, atol=2**-4)
        written[first:end] = True
    assert (c[~written] == BF16.poison_bits).all()
    assert not (c[written] == BF16.poison_bits).any()


@pytest.mark.parametrize(
    "ends", [[0, 0, 50, 50], [50] * 4, [33, 40, 40, 41], [0] * 4, [-7, 20, 90, 50], [40, 10, 45, 99]]
)
def test_groups_of_k_may_end_anywhere_and_what_has_none_is_zero(ends: list[int]) -> None:
    problem = Problem(40, 24, 50, operation_of("grouped4.bf16.tn"))
    stored = operands(problem)
    c = numbers(output_of(space().config(SMALL), problem, ends)).reshape(4, 40, 24)
    a, b = numbers(stored["a"]), numbers(stored["b"])
    for group, (first, end) in enumerate(row_ranges(np.clip(ends, 0, 50))):
        exact = a[first:end].T @ b[first:end] if end > first else np.zeros((40, 24))
        assert np.allclose(c[group], exact, rtol=2**-8, atol=2**-4)


@pytest.mark.parametrize("values", [SMALL, SHARED])
def test_what_a_group_without_any_k_adds_to_keeps_its_bits(values: dict[str, object]) -> None:
    """A negative zero and a NaN with a payload, too."""
    problem = Problem(40, 24, 136, operation_of("grouped4.bf16.tn+accumulate"))
    stored, held = operands(problem), operands(problem)["c"].copy()
    held[1, 0, :2] = 0x8000, 0x7FE5
    c = output_of(space().config(values), problem, [70, 70, 136, 136], held=held).reshape(4, 40, 24)
    assert (c[[1, 3]] == held[[1, 3]]).all()
    a, b, before = numbers(stored["a"]), numbers(stored["b"]), numbers(held)
    for group, (first, end) in ((0, (0, 70)), (2, (70, 136))):
        assert np.allclose(numbers(c[group]), before[group] + a[first:end].T @ b[first:end], rtol=2**-8, atol=2**-4)


def test_matrices_may_be_anywhere_and_one_may_be_for_all() -> None:
    problem, random = Problem(40, 24, 32, operation_of("batched3.bf16.nt")), np.random.default_rng(3)
    bits = {"a": (40, 3, 32), "b": (24, 32), "c": (3, 45, 40)}
    arrays = {name: random.integers(0x3F00, 0x4000, shape).astype(np.uint16) for name, shape in bits.items()}
    arrays["c"][:] = BF16.poison_bits
    device, bound = EmulatedDevice(), space().for_operation(problem.operation)
    config = space().config(SMALL)
    code, launch = compiled(bound.template.render(config)), bound.template.launch(config, problem)
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    strides = {"lda": 96, "stride_a": 32, "ldb": 32, "stride_b": 0, "ldc": 40, "stride_c": 45 * 40}
    device.launch(
        device.load(code.data, code.symbol), launch, launch.bound({**buffers, **problem.numbers(), **strides})
    )
    c = arrays["c"]
    device.read(buffers["c"], c)
    exact = numbers(arrays["a"]).swapaxes(0, 1) @ numbers(arrays["b"]).T
    assert np.allclose(numbers(c)[:, :40, :24], exact, rtol=2**-8, atol=2**-4)
    assert (c[:, 40:] == BF16.poison_bits).all()
    assert (c[:, :, 24:] == BF16.poison_bits).all()


@pytest.mark.parametrize("text", ["130x72x32:grouped4.bf16.nt", "70x72x32:batched3.bf16.nt"])
@pytest.mark.parametrize("workgroups", [1, 7, 15])
def test_the_first_workgroups_take_the_tiles_that_the_clock_expects(text: str, workgroups: int) -> None:
    problem, config = problem_of(text), space().config(ORDERED)
    template = space().for_operation(problem.operation).template
    tile, order = template.tile(config), template.order(config)
    tiles = tiles_of(problem, tile)
    if problem.operation.is_grouped:
        sizes = [rows * tile.m - 5 for rows in tiles.rows]
        assert len(sizes) == 4, "every group has rows"
        first = np.cumsum([0, *sizes])
    else:
        first = np.arange(4) * problem.m
    ends = first[1:].tolist()
    problem = replace(problem, m=ends[-1]) if problem.operation.is_grouped else problem
    c = output_of(config, problem, ends if problem.operation.is_grouped else None, workgroups)
    rows, columns = np.nonzero(c != BF16.poison_bits)
    product = np.searchsorted(first, rows, side="right") - 1
    written = set(
        zip(product.tolist(), ((rows - first[product]) // tile.m).tolist(), (columns // tile.n).tolist(), strict=True)
    )
    ids = np.arange(workgroups, dtype=np.int64)
    expected_rows, expected_columns = problem_order(order, tiles, GFX950)(ids, tiles.all_rows, 3)
    begins = np.cumsum([0, *tiles.rows])
    of_row = np.searchsorted(begins, expected_rows, side="right") - 1
    assert (expected_columns // 3 == of_row).all(), "each product has columns of its own"
    assert written == set(
        zip(of_row.tolist(), (expected_rows - begins[of_row]).tolist(), (expected_columns % 3).tolist(), strict=True)
    )


def test_each_die_fetches_what_its_workgroups_want_of_each_product() -> None:
    problem, tile = problem_of("1000x700x64:grouped9.bf16.nt"), Tile(64, 96, 64)
    tiles, at_once = tiles_of(problem, tile), 64
    order = problem_order(WorkgroupOrder(2, 2), tiles, GFX950)
    full, tail = rounds_of(tiles.count, tiles.all_rows, tiles.columns, at_once, GFX950, order)
    rows, columns = order(np.arange(tiles.count), tiles.all_rows, tiles.columns)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == tiles.count
    for part, first in ((full, 0), (tail, tiles.count // at_once * at_once)):
        own = range(first, min(first + at_once * part.count, tiles.count))
        wanted_a = {(each // at_once, each % 8, rows[each]) for each in own}
        wanted_b = {(each // at_once, each % 8, columns[each]) for each in own}
        assert part.xcd_panels_a * part.count == pytest.approx(len(wanted_a))
        assert part.xcd_panels_b * part.count == pytest.approx(len(wanted_b))


PROFILE = Profile(
    residencies=(Residency(1, (2000.0,) * len(LATENCIES_CLK), (1200.0,) * len(LATENCIES_CLK), (1500.0,) * 5),),
    peeled_steps=2.0,
    mfma_clk=512.0,
    issue_clk=500.0,
    lds_clk=300.0,
    tcp_clk=256.0,
    load_bytes=32768.0,
    store_bytes=32768.0,
)


def modelled_us(problem: Problem, **values: object) -> float:
    """With one profile for all, so that only the grid differs."""
    template = space().for_operation(problem.operation).template
    config = space().config({"block_m": 128, "block_n": 128, "split": 1, **values})
    launch, tile = template.launch(config, problem), template.tile(config)
    order = problem_order(template.order(config), tiles_of(problem, tile), GFX950)
    found = modelled_time(PROFILE, problem, launch, tile, MI355X, order)
    timing = with_interval(found.timing, problem, launch, tiles_of(problem, tile))
    assert timing.time_us_low is not None
    assert timing.time_us_low < timing.time_us
    return timing.time_us


@pytest.mark.parametrize("values", [{}, {"xcd_chunk": 4, "group_rows": 4}, {"split_k": 2}])
def test_one_product_takes_as_long_as_a_batch_of_one(values: dict[str, object]) -> None:
    one, batch = (problem_of(f"2000x1536x2048:{kind}bf16.nt") for kind in ("", "batched1."))
    assert modelled_us(batch, **values) == pytest.approx(modelled_us(one, **values), rel=1e-9)


def test_groups_cost_their_own_weights_and_their_tiles_that_are_not_full() -> None:
    batch, groups = problem_of("128x4096x4096:batched64.bf16.nt"), problem_of("8192x4096x4096:grouped64.bf16.nt")
    assert modelled_us(groups) > 1.2 * modelled_us(batch), "some have over 128 rows, and then two rows of tiles"
    few, many = (problem_of(f"16x4096x4096:grouped{count}.bf16.nt") for count in (16, 128))
    weights_us = 4096 * 4096 * 2 / 6.9e6
    assert tiles_of(few, Tile(128, 128, 64)).products < 16
    assert modelled_us(few) > weights_us * tiles_of(few, Tile(128, 128, 64)).products
    assert modelled_us(many) < 2 * modelled_us(few), "of groups without rows no weight is read"


def test_tiles_of_unequal_k_go_to_the_place_that_is_free_first() -> None:
    problem, tile = problem_of("1024x512x20000:grouped9.bf16.tn"), Tile(128, 64, 64)
    tiles, at_once, ends = tiles_of(problem, tile), 100, 3.5
    free = [0.0] * at_once
    for steps in tiles.steps:
        for _ in range(8 * 8):
            heapq.heapreplace(free, free[0] + steps + ends)
    equal = -(-tiles.count // at_once) * (tiles.mean_steps + ends)
    assert tiles.mean_steps == pytest.approx(sum(tiles.steps) / 9)
    assert longer_by_unequal_k(tiles, ends, at_once) == pytest.approx(max(free) / equal, rel=0.02)


def test_rows_of_groups_are_those_that_were_recorded() -> None:
    problem, tile = problem_of("1000x512x64:grouped10.bf16.nt"), Tile(64, 64, 64)
    assert sorted(tiles_of(problem, tile, ((0, 9), (5, 1))).rows) == [16], "one expert has all"
    assert sorted(tiles_of(problem, tile, ((0, 5), (7, 5))).rows) == [4] * 5
    along_k = problem_of("512x512x1000:grouped10.bf16.tn")
    assert sorted(tiles_of(along_k, tile, ((0, 5), (7, 5))).steps) == [0] * 5 + [4] * 5
    assert tiles_of(along_k, tile).products == 10, "what has nothing is made zero"


def test_the_grid_has_room_for_groups_wherever_they_end() -> None:
    config = space().config({"block_m": 64, "block_n": 64, "split": 1, "warps_n": 2})
    for text, workgroups in (
        ("100x128x64:grouped7.bf16.nt", 2 * (1 + 7)),
        ("3x128x64:grouped7.bf16.nt", 2 * 3),
        ("100x128x64:batched7.bf16.nt", 2 * 7 * 2),
        ("104x128x64:grouped7.bf16.tn", 2 * 7 * 2),
    ):
        problem = problem_of(text)
        launch = space().for_operation(problem.operation).template.launch(config, problem)
        assert launch.grid == (workgroups, 1, 1)
        tiles = tiles_of(problem, Tile(64, 64, 64))
        assert tiles.room == workgroups
        assert tiles.workgroups(launch) == tiles.count <= workgroups


def test_tiles_of_groups_wherever_they_end_can_be_counted() -> None:
    problem = problem_of("65536x4096x8:grouped65536.bf16.nt")
    own = space().for_operation(problem.operation)
    broken = own.violations(own.config({"block_m": 64, "block_n": 64, "split": 1, "warps_n": 2}), problem)
    assert "groups_fit" in {violation.name for violation in broken}
    smaller = replace(problem, operation=operation_of("grouped64.bf16.nt"))
    assert not own.violations(own.config({"block_m": 64, "block_n": 64, "split": 1, "warps_n": 2}), smaller)
