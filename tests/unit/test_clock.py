"""The clock from trace to microseconds: what a profile says, how a time follows from it, and which way each moves."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from clock_traces import BARRIER, Code, ds_read_b128, load_to_lds, mfma, store, trace_of, wait

from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.core.errors import InputError
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch, Tile
from hktune.core.operation import operation_of
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.variant import Resources
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.memory_traffic import Indices, rounds_of, row_major
from hktune.emulator.clock.profile import workgroups_that_fit
from hktune.emulator.clock.rates import rates_of
from hktune.emulator.clock.trace import Trace

TILE = Tile(256, 256, 64)


def gemm(vmcnt: int, iterations: int = 4, loads: int = 8, mfmas: int = 64) -> Trace:
    """A double-buffered 256x256x64 loop of 8 waves that leaves `vmcnt` loads in flight at the end of each step."""
    epilogue = [store("global_store_short_d16_hi", 2, 4) for _ in range(128)]
    prologue = [*[load_to_lds()] * loads, wait(vmcnt=0), BARRIER]
    cluster = [mfma(100 + 4 * (at % 16)) for at in range(mfmas // 4)]
    quarter = [*[load_to_lds()] * (loads // 4), *[ds_read_b128()] * 6, wait(lgkmcnt=0), *cluster]
    body = [*quarter * 4, wait(vmcnt=vmcnt), BARRIER]
    return trace_of(*[Code(prologue, body, iterations, epilogue)] * 8)


def profiled(
    trace: Trace, tile: Tile = TILE, lds_bytes: int = 131072, k_steps: int = 4, vgprs: int = 206
) -> launch_time.Profile:
    resources = Resources(vgprs, 0, 100, 0, 0, 0, 0, 512)
    return launch_time.profile(trace, resources, Launch((4, 1, 1), (512, 1, 1), lds_bytes, ()), tile, k_steps, GFX950)


def launch_for(problem: Problem, tile: Tile) -> Launch:
    return Launch((problem.m // tile.m * problem.n // tile.n, 1, 1), (512, 1, 1), 131072, ())


def modelled(profile: launch_time.Profile, m: int, n: int, k: int, tile: Tile = TILE) -> launch_time.Modelled:
    problem = Problem(m, n, k)
    return launch_time.modelled_time(profile, problem, launch_for(problem, tile), tile, MI355X)


@pytest.fixture(scope="module")
def in_flight() -> launch_time.Profile:
    return profiled(gemm(vmcnt=8))


@pytest.fixture(scope="module")
def drained() -> launch_time.Profile:
    return profiled(gemm(vmcnt=0))


def test_a_loop_of_mfmas_alone_takes_their_clk_per_step_and_nothing_for_latency() -> None:
    profile = profiled(trace_of(*[Code([], [*[mfma()] * 64, BARRIER], 4)] * 8))
    (alone,) = profile.residencies
    assert profile.mfma_clk == 2048
    assert alone.step_clk == pytest.approx([2048] * 5, rel=0.02)


def test_demands_are_those_of_the_traced_instructions(in_flight: launch_time.Profile) -> None:
    assert in_flight.mfma_clk == 2 * 64 * 16
    assert in_flight.lds_clk == 8 * (24 * 4 + 8 * 8)
    assert in_flight.tcp_clk == 8 * 8 * 16
    assert in_flight.load_bytes == (256 + 256) * 64 * 2
    assert in_flight.store_bytes == 256 * 256 * 2
    assert in_flight.peeled_steps == 1  # the last iteration is left to the epilogue


def test_a_k_step_of_half_lines_reads_whole_ones_from_l2() -> None:
    half = profiled(gemm(vmcnt=0, loads=4, mfmas=32), Tile(256, 256, 32))
    assert half.load_bytes == (256 + 256) * 128


def test_the_traced_number_of_steps_does_not_change_the_profile() -> None:
    short, long = profiled(gemm(8, iterations=4)), profiled(gemm(8, iterations=16), k_steps=16)
    assert short.residencies[0].step_clk == pytest.approx(long.residencies[0].step_clk, rel=0.02)
    assert short.residencies[0].epilogue_clk == pytest.approx(long.residencies[0].epilogue_clk, rel=0.02)


def test_an_unrolled_loop_counts_its_k_steps() -> None:
    once = Code([], [mfma()] * 64, 8)
    twice = Code([], [mfma()] * 128, 4)
    straight = Code([mfma()] * 512)
    steps = [profiled(trace_of(*[code] * 8), k_steps=8).residencies[0].step_clk for code in (once, twice, straight)]
    assert steps[1] == pytest.approx(steps[0], rel=0.01)
    assert steps[2] == pytest.approx(steps[0], rel=0.01)


def test_draining_every_load_exposes_latency_that_loads_in_flight_hide(
    in_flight: launch_time.Profile, drained: launch_time.Profile
) -> None:
    for quick, slow in zip(in_flight.residencies[0].step_clk[1:4], drained.residencies[0].step_clk[1:4], strict=True):
        assert slow > 1.1 * quick
    quick, slow = (modelled(profile, 8192, 8192, 8192).timing.time_us for profile in (in_flight, drained))
    assert slow > 1.08 * quick


def test_a_longer_latency_is_never_faster(in_flight: launch_time.Profile, drained: launch_time.Profile) -> None:
    for profile in (in_flight, drained):
        costs = [profile.at(1, latency) for latency in range(100, 4000, 50)]
        for shorter, longer in itertools.pairwise(costs):
            assert all(one <= other for one, other in zip(shorter, longer, strict=True))


def test_a_drained_loop_pays_the_whole_of_a_longer_latency_simulated_or_not() -> None:
    profile = profiled(gemm(vmcnt=0, loads=4))
    assert profile.at(1, 2400)[1] - profile.at(1, 1600)[1] == pytest.approx(800, rel=0.02)
    assert profile.at(1, 4000)[1] - profile.at(1, 3000)[1] == pytest.approx(1000, rel=0.02)


def test_as_many_workgroups_as_fit_are_simulated_together() -> None:
    small = Tile(128, 128, 64)
    trace = gemm(vmcnt=4, loads=4, mfmas=16)
    one = profiled(trace, small, lds_bytes=98304, vgprs=128)
    two = profiled(trace, small, lds_bytes=65536, vgprs=128)
    assert [part.workgroups for part in one.residencies] == [1]
    assert [part.workgroups for part in two.residencies] == [1, 2]
    assert two.residencies[0] == one.residencies[0]
    step_one, step_two = (part.step_clk[1] for part in two.residencies)
    assert step_one < step_two < 2 * step_one
    assert modelled(two, 8192, 8192, 8192, small).timing.time_us < modelled(one, 8192, 8192, 8192, small).timing.time_us


@pytest.mark.parametrize(
    ("vgprs", "lds_bytes", "waves", "fit"),
    [
        (256, 131072, 8, 1),
        (128, 65536, 8, 2),
        (200, 32768, 4, 2),
        (120, 24576, 2, 6),
        (128, 0, 4, 4),
        (512, 1280, 8, 1),
    ],
)
def test_workgroups_that_fit_are_those_that_registers_slots_and_lds_leave(
    vgprs: int, lds_bytes: int, waves: int, fit: int
) -> None:
    resources = Resources(vgprs, 0, 100, 0, 0, 0, 0, 512)
    launch = Launch((1, 1, 1), (64 * waves, 1, 1), lds_bytes, ())
    assert workgroups_that_fit(resources, launch, waves, GFX950) == fit


def test_a_profile_survives_json(in_flight: launch_time.Profile) -> None:
    assert launch_time.Profile.from_json(in_flight.to_json()) == in_flight


def test_a_trace_without_mfmas_or_of_one_step_is_refused() -> None:
    with pytest.raises(InputError, match="MFMA"):
        profiled(trace_of(Code([load_to_lds()])))
    with pytest.raises(InputError, match="2 k-steps"):
        profiled(gemm(0), k_steps=1)


def test_waves_that_do_not_walk_the_main_loop_together_are_refused() -> None:
    with pytest.raises(InputError, match="together"):
        profiled(trace_of(*[Code([], [mfma()] * 64, 4)] * 4, *[Code([], [mfma()] * 64, 5)] * 4))


def test_a_tile_that_the_mfmas_cannot_have_computed_is_refused() -> None:
    with pytest.raises(InputError, match="k_steps=8"):
        profiled(gemm(0), k_steps=8)


def test_a_modelled_time_says_so_and_is_at_least_the_mfmas_at_the_highest_clock(in_flight: launch_time.Profile) -> None:
    result = modelled(in_flight, 8192, 8192, 8192)
    floor_us = 2 * 8192**3 / (4096 * 256 * 2.4e3)
    assert result.timing.source is Source.MODELLED
    assert result.timing.time_us > floor_us
    assert result.peak_fraction == pytest.approx(floor_us / result.timing.time_us)
    assert result.rounds == 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_larger_problem_is_never_faster(in_flight: launch_time.Profile, axis: int) -> None:
    times = []
    for size in range(512, 9000, 512):
        shape = [2048, 2048, 2048]
        shape[axis] = size
        times.append(modelled(in_flight, *shape).timing.time_us)
    assert all(one <= other * 1.002 for one, other in itertools.pairwise(times))


def test_one_tile_more_than_fits_at_once_costs_another_round(in_flight: launch_time.Profile) -> None:
    full, over = modelled(in_flight, 256 * 256, 256, 4096), modelled(in_flight, 257 * 256, 256, 4096)
    assert (full.rounds, over.rounds) == (1, 2)
    assert over.timing.time_us > 1.6 * full.timing.time_us


def test_fewer_compute_units_are_never_faster(in_flight: launch_time.Profile) -> None:
    problem = Problem(4096, 4096, 4096)
    times = [
        launch_time.modelled_time(
            in_flight,
            problem,
            launch_for(problem, TILE),
            TILE,
            dataclasses.replace(MI355X, arch=dataclasses.replace(GFX950, compute_units=count)),
        ).timing.time_us
        for count in (256, 192, 128, 64)
    ]
    assert times == sorted(times)


def test_a_thin_problem_takes_at_least_its_bytes_from_hbm(in_flight: launch_time.Profile) -> None:
    result = modelled(in_flight, 256, 57344, 8192)
    assert result.timing.time_us > 2 * 57344 * 8192 / 6.0e6


@pytest.mark.parametrize(
    ("text", "read_over_needed"),
    [
        ("bf16.nt", 2.0),
        ("f16.nt", 2.0),
        ("f32.nt", 1.0),
        ("bf16.tn", 1.0),
        ("bf16.nn", 1.5),
        ("bf16*f32.nt", 4 / 3),
    ],
)
def test_a_k_step_reads_whole_lines_of_what_is_contiguous(text: str, read_over_needed: float) -> None:
    """Lines have 128 bytes, so 32 elements of k fill a half of one in bf16 and all of one in float32; 256 of m or n do
    always."""
    trace, resources, tile = gemm(vmcnt=8), Resources(206, 0, 100, 0, 0, 0, 0, 512), Tile(256, 256, 32)
    launch = Launch((4, 1, 1), (512, 1, 1), 131072, (), operation=operation_of(text))
    profile = launch_time.profile(trace, resources, launch, tile, 4, GFX950)
    loaded_bytes = 8 * 8 * 64 * 16  # waves, loads of each in a k-step, lanes, bytes
    assert profile.load_bytes == pytest.approx(read_over_needed * loaded_bytes)


def test_a_short_problem_is_bound_by_what_is_not_its_loop(in_flight: launch_time.Profile) -> None:
    assert modelled(in_flight, 256, 256, 256).bound == "launch"
    mfmas_alone = profiled(trace_of(*[Code([], [*[mfma()] * 64, BARRIER], 4)] * 8))
    assert modelled(mfmas_alone, 8192, 8192, 8192).bound == "mfma"


def test_busier_mfma_pipes_run_at_a_lower_clock(in_flight: launch_time.Profile) -> None:
    clocks = [modelled(in_flight, size, size, 8192).clock_ghz for size in (512, 1024, 2048, 4096)]
    assert clocks == sorted(clocks, reverse=True)
    assert 1.5 <= clocks[-1] < clocks[0] <= 2.4


def test_panels_are_those_that_counting_by_hand_finds() -> None:
    # 16 x 16 tiles: die x holds columns x and x + 8 of every row, so 16 + 2. 32 x 32: 8 rows and 4 columns a round.
    (only,) = rounds_of(256, 16, 16, 256, GFX950)
    assert (only.xcd_panels_a, only.xcd_panels_b, only.fresh_panels_a, only.fresh_panels_b) == (8 * 16, 8 * 2, 16, 16)
    (each,) = rounds_of(1024, 32, 32, 256, GFX950)
    assert (each.count, each.xcd_panels_a, each.xcd_panels_b) == (4, 8 * 8, 8 * 4)
    assert (each.fresh_panels_a, each.fresh_panels_b) == (8, 32 / 4), "all columns are known after the first round"


def test_panels_of_an_odd_grid_match_a_count_with_sets() -> None:
    tiles_m, tiles_n, at_once = 13, 37, 256
    full, tail = rounds_of(tiles_m * tiles_n, tiles_m, tiles_n, at_once, GFX950)
    for part, first in ((full, 0), (tail, at_once)):
        ids = range(first, min(first + at_once, tiles_m * tiles_n))
        assert part.workgroups == len(ids)
        assert part.xcd_panels_a == len({(wg % 8, wg // tiles_n) for wg in ids})
        assert part.xcd_panels_b == len({(wg % 8, wg % tiles_n) for wg in ids})
        assert part.fresh_panels_a == len({wg // tiles_n for wg in ids} - {wg // tiles_n for wg in range(first)})
        assert part.fresh_panels_b == len({wg % tiles_n for wg in ids} - {wg % tiles_n for wg in range(first)})


def test_an_order_that_scatters_each_dies_tiles_takes_longer(
    in_flight: launch_time.Profile,
) -> None:
    def scattered(ids: Indices, tiles_m: int, tiles_n: int) -> tuple[Indices, Indices]:
        return row_major(np.random.default_rng(7).permutation(tiles_m * tiles_n)[ids], tiles_m, tiles_n)

    problem = Problem(16384, 16384, 4096)
    launch = launch_for(problem, TILE)
    near = launch_time.modelled_time(in_flight, problem, launch, TILE, MI355X)
    far = launch_time.modelled_time(in_flight, problem, launch, TILE, MI355X, scattered)
    assert all(far.clocks[level] > 2 * near.clocks[level] for level in ("fabric", "mall"))
    assert far.timing.time_us > 1.01 * near.timing.time_us


def split(profile: launch_time.Profile, k: int, shares: int, adds_to_c: bool = False) -> launch_time.Modelled:
    """One tile, its k-steps shared: of each share's sums the last workgroup makes C, unless each adds to C itself."""
    slabs_bytes = 0 if adds_to_c else 4 * shares * TILE.m * TILE.n
    launch = Launch((shares, 1, 1), (512, 1, 1), 131072, (), WORKSPACE_COUNTER_BYTES + slabs_bytes)
    return launch_time.modelled_time(profile, Problem(TILE.m, TILE.n, k), launch, TILE, MI355X)


def test_sharing_a_long_k_pays_and_the_last_workgroup_reads_every_share_back(in_flight: launch_time.Profile) -> None:
    long_k, rates = 512 * TILE.k, rates_of(MI355X)
    assert split(in_flight, long_k, 8).timing.time_us < split(in_flight, long_k, 1).timing.time_us / 2
    few, many = (split(in_flight, 64 * TILE.k, shares) for shares in (32, 64))
    read_clk = 32 * 4 * TILE.m * TILE.n / rates.l2_bytes_per_clk_cu
    added_us = many.timing.time_us - few.timing.time_us
    assert added_us > 0.9 * read_clk / many.clock_ghz * 1e-3, "32 more shares to read, one k-step each less to walk"


def test_workgroups_that_add_to_c_themselves_leave_nothing_to_gather(in_flight: launch_time.Profile) -> None:
    rates = rates_of(MI355X)
    gathered, added = (split(in_flight, 64 * TILE.k, 16, adds_to_c) for adds_to_c in (False, True))
    read_us = 16 * 4 * TILE.m * TILE.n / rates.l2_bytes_per_clk_cu / gathered.clock_ghz * 1e-3
    delayed_us = rates.shared_add_us * 8**2 * 16 / 256
    assert gathered.timing.time_us - added.timing.time_us > read_us - delayed_us


def test_workgroups_that_add_to_one_tile_delay_one_another_up_to_one_for_each_die(
    in_flight: launch_time.Profile,
) -> None:
    """64 workgroups in each launch: over 32 tiles, 16, 8 and 4."""
    alone = dataclasses.replace(rates_of(MI355X), shared_add_us=0.0)
    delays_us = []
    for shares in (2, 4, 8, 16):
        problem = Problem(TILE.m * 64 // shares, TILE.n, 64 * TILE.k)
        launch = Launch((64, 1, 1), (512, 1, 1), 131072, (), WORKSPACE_COUNTER_BYTES)
        times = [
            launch_time.modelled_time(in_flight, problem, launch, TILE, MI355X, rates=rates).timing.time_us
            for rates in (None, alone)
        ]
        delays_us.append(times[0] - times[1])
    two, four, eight, sixteen = delays_us
    assert two > 0
    assert [four, eight, sixteen] == pytest.approx([4 * two, 16 * two, 16 * two])


def test_the_ends_of_a_workgroup_wait_for_idle_memory(in_flight: launch_time.Profile) -> None:
    rates = rates_of(MI355X)
    slow = dataclasses.replace(rates, latency_growth=10 * rates.latency_growth)
    problem, launch = Problem(4096, 4096, 4096), launch_for(Problem(4096, 4096, 4096), TILE)
    ends_us, walks_us = [], []
    for each in (rates, slow):
        found = launch_time.modelled_time(in_flight, problem, launch, TILE, MI355X, rates=each)
        walks_us.append(found.loop_us)
        ends_us.append(found.timing.time_us - found.loop_us)
    assert walks_us[1] > 1.2 * walks_us[0]
    assert ends_us[1] == pytest.approx(ends_us[0], rel=0.15), "as far as the clock of the shader changed"


def test_operands_whose_every_set_fits_the_mall_do_not_come_from_hbm(in_flight: launch_time.Profile) -> None:
    rates = rates_of(MI355X)
    small, large = Problem(256, 256, 1024), Problem(256, 256, 4096)
    assert rates.rotated_sets * small.bytes < rates.mall_bytes < rates.rotated_sets * large.bytes
    per_step = {problem: modelled(in_flight, problem.m, problem.n, problem.k).latency_clk for problem in (small, large)}
    assert per_step[small] < per_step[large]


def test_a_launch_ends_once_what_l2_holds_of_c_is_written_back(in_flight: launch_time.Profile) -> None:
    rates = rates_of(MI355X)
    slow = dataclasses.replace(rates, write_back_tb_per_s=rates.write_back_tb_per_s / 2)
    held_us = min(2 * 4096 * 4096, 8 * rates.l2_bytes_xcd) / rates.write_back_tb_per_s * 1e-6
    times = []
    for each in (rates, slow):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch_time, "rates_of", lambda _arch, each=each: each)
            times.append(modelled(in_flight, 4096, 4096, 4096).timing.time_us)
    assert times[1] - times[0] == pytest.approx(held_us)


def test_a_problem_of_fewer_k_steps_than_are_peeled_takes_no_longer_than_one_of_as_many() -> None:
    step = [*[mfma()] * 64, BARRIER]
    straight = profiled(trace_of(*[Code([load_to_lds(), wait(vmcnt=0), *step * 4], step, 2)] * 8), k_steps=6)
    assert straight.peeled_steps == 5
    times = [modelled(straight, 256, 256, 64 * steps).timing.time_us for steps in (1, 3, 5, 6)]
    assert times == sorted(times)
    assert times[2] - times[1] == pytest.approx(2 * 2048 / 2.4e3, rel=0.1), "two k-steps of nothing but MFMAs"
