"""A modelled time by cause: the parts add up, and a cause that is taken out takes what it should with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from clock_traces import BARRIER, Code, load_to_lds, mfma, trace_of, wait
from test_clock import TILE, gemm, launch_for

from hktune.cli import main
from hktune.core.arch import GFX950
from hktune.core.board import MI355X
from hktune.core.launch import WORKSPACE_COUNTER_BYTES, Launch, Tile
from hktune.core.problem import Problem
from hktune.core.variant import Resources
from hktune.emulator.clock import launch_time
from hktune.emulator.clock.breakdown import (
    CLOCK,
    LAUNCH,
    MEMORY,
    MEMORY_LATENCY,
    ROUNDS,
    LaunchModel,
    Specimen,
)
from hktune.emulator.clock.memory_traffic import row_major
from hktune.emulator.clock.rates import rates_of
from hktune.emulator.clock.stalls import CAUSES
from hktune.emulator.clock.trace import Trace

RATES = rates_of(MI355X)
SMALL_TILE = Tile(128, 128, 64)
SQUARE = Problem(4096, 4096, 4096)


def specimen(trace: Trace, tile: Tile = TILE, lds_bytes: int = 131072, vgprs: int = 206) -> Specimen:
    resources = Resources(vgprs, 0, 100, 0, 0, 0, 0, 512)
    return Specimen(trace, resources, Launch((4, 1, 1), (512, 1, 1), lds_bytes, ()), tile, 4, GFX950)


@cache
def specimens() -> dict[str, Specimen]:
    return {
        "in flight": specimen(gemm(vmcnt=8)),
        "drained": specimen(gemm(vmcnt=0)),
        "two on a CU": specimen(gemm(vmcnt=4, loads=4, mfmas=16), SMALL_TILE, 65536, 128),
    }


@cache
def found(name: str, problem: Problem, shares: int = 1) -> LaunchModel:
    one = specimens()[name]
    launch = launch_for(problem, one.tile)
    if shares > 1:
        slabs_bytes = 4 * shares * launch.grid[0] * one.tile.m * one.tile.n
        grid = (shares * launch.grid[0], 1, 1)
        launch = replace(launch, grid=grid, workspace_bytes=WORKSPACE_COUNTER_BYTES + slabs_bytes)
    return LaunchModel(one, problem, launch, row_major, RATES)


def lost_us(of: LaunchModel, cause: str) -> float:
    return of.modelled.timing.time_us - of.without(cause).timing.time_us


@pytest.mark.parametrize(
    ("name", "problem", "shares"),
    [
        ("in flight", SQUARE, 1),
        ("drained", Problem(4352, 4096, 2048), 1),
        ("in flight", Problem(256, 57344, 8192), 1),
        ("in flight", Problem(256, 256, 128), 1),
        ("drained", Problem(256, 512, 8192), 16),
        ("two on a CU", Problem(8192, 8192, 1024), 1),
        ("two on a CU", Problem(128, 36992, 4096), 1),
    ],
)
def test_parts_add_up_to_the_modelled_time(name: str, problem: Problem, shares: int) -> None:
    of, one = found(name, problem, shares), specimens()[name]
    assert set(of.parts_us) == {*CAUSES, *MEMORY, *ROUNDS, *LAUNCH}
    assert min(of.parts_us.values()) >= 0
    assert sum(of.parts_us.values()) == pytest.approx(of.modelled.timing.time_us, rel=1e-6)
    if shares == 1:
        profile = launch_time.profile(one.trace, one.resources, one.launch, one.tile, one.k_steps, GFX950)
        again = launch_time.modelled_time(profile, problem, launch_for(problem, one.tile), one.tile, MI355X)
        assert of.modelled == again


def test_a_part_that_is_nothing_but_time_is_what_is_lost_with_it() -> None:
    of = found("in flight", SQUARE)
    assert lost_us(of, "launch") == pytest.approx(RATES.launch_us)
    assert of.parts_us["launch"] == RATES.launch_us
    for cause in ("write-back", "workgroup start", "cold pages", "epilogue"):
        assert lost_us(of, cause) == pytest.approx(of.parts_us[cause], rel=0.01), cause


def test_mfmas_are_what_the_product_takes_at_the_clock() -> None:
    of = found("in flight", Problem(4096, 4096, 8192))
    least_us = of.modelled.peak_fraction * of.modelled.timing.time_us * 2.4 / of.modelled.clock_ghz
    assert of.parts_us["mfma"] == pytest.approx(least_us, rel=0.02)


def test_idle_compute_units_are_those_of_a_last_round_after_others() -> None:
    assert found("in flight", SQUARE).parts_us["idle CUs"] == 0
    of = found("drained", Problem(4352, 4096, 2048))  # 17 x 16 tiles of 256: 16 are left for a round of their own
    walked_us = of.modelled.timing.time_us - sum(of.parts_us[name] for name in LAUNCH)
    # A round of 16 workgroups has more of the memories to each, and so waits a little less than the full one.
    assert of.parts_us["idle CUs"] == pytest.approx(walked_us / 2 * 240 / 256, rel=0.1)
    assert lost_us(of, "idle CUs") == pytest.approx(of.parts_us["idle CUs"], rel=0.01)


def test_a_loop_without_the_wait_is_the_one_whose_code_has_none() -> None:
    of = found("drained", SQUARE)
    never = specimen(gemm(vmcnt=63))
    profile = launch_time.profile(never.trace, never.resources, never.launch, TILE, 4, GFX950)
    clock_ghz = of.modelled.clock_ghz
    held = replace(RATES, clock_ghz=((0.0, clock_ghz), (1.0, clock_ghz)))
    other = launch_time.modelled_time(profile, SQUARE, launch_for(SQUARE, TILE), TILE, MI355X, rates=held)
    assert of.binding == MEMORY_LATENCY
    assert other.timing.time_us < 0.95 * of.modelled.timing.time_us
    assert of.without("vmcnt").timing.time_us == pytest.approx(other.timing.time_us, rel=0.02)


def test_the_clock_alone_is_lost_at_its_highest() -> None:
    of = found("in flight", Problem(8192, 8192, 8192))
    assert of.modelled.clock_ghz < 2.0
    without = of.without(CLOCK)
    assert without.clock_ghz == RATES.clock_ghz[0][1]
    ratio = of.modelled.timing.time_us / without.timing.time_us
    assert 1 < ratio <= without.clock_ghz / of.modelled.clock_ghz


def test_a_memory_that_binds_is_what_a_k_step_waits_for() -> None:
    slow = replace(RATES, hbm_tb_per_s=1.5)
    problem = Problem(256, 57344, 8192)
    of = LaunchModel(specimens()["in flight"], problem, launch_for(problem, TILE), row_major, slow)
    assert of.modelled.bound == of.binding == "hbm"
    moved_us = problem.bytes / slow.hbm_tb_per_s * 1e-6
    beyond_us = of.parts_us["hbm"] + of.parts_us["bytes from hbm"]
    assert of.modelled.timing.time_us >= moved_us
    assert beyond_us > 0.3 * of.modelled.timing.time_us
    assert of.without("hbm").bound != "hbm"
    assert of.without("hbm").timing.time_us < 0.5 * of.modelled.timing.time_us


def test_a_launch_of_few_k_steps_and_many_bytes_is_bound_by_hbm() -> None:
    """Prologue and epilogue are most of it, and none of that is what it waits for."""
    wide = replace(RATES, launch_us=0.0, workgroup_start_clk=0, cold_ns=0.0, hbm_tb_per_s=1.0)
    problem = Problem(256, 57344, 128)
    of = LaunchModel(specimens()["in flight"], problem, launch_for(problem, TILE), row_major, wide)
    assert of.modelled.bound == of.binding == "hbm"
    assert of.modelled.timing.time_us >= problem.bytes / 1.0e6
    assert of.parts_us["bytes from hbm"] > 0
    assert of.without("hbm").timing.time_us < of.modelled.timing.time_us


def test_without_what_binds_something_else_does() -> None:
    step = [*[load_to_lds()] * 2, *[mfma()] * 64, wait(vmcnt=2), BARRIER]
    one = specimen(trace_of(*[Code([load_to_lds()] * 2, step, 4)] * 8))
    of = LaunchModel(one, SQUARE, launch_for(SQUARE, TILE), row_major, RATES)
    assert of.modelled.bound == of.binding == "mfma"
    assert of.without("mfma").bound != "mfma"
    assert of.without("mfma").timing.time_us < 0.7 * of.modelled.timing.time_us


def test_gathering_is_of_a_split_k_alone() -> None:
    problem = Problem(256, 512, 8192)
    assert found("drained", problem).parts_us["gathering"] == 0
    of = found("drained", problem, shares=16)
    assert of.parts_us["gathering"] > 0
    assert lost_us(of, "gathering") == pytest.approx(of.parts_us["gathering"], rel=0.01)


def test_the_command_prints_every_part_and_what_would_bind_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["explain", "block_m=128", "block_n=128", "split=1", "--problem", "300x4096x4096", "--time"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("modelled on 300x4096x4096 bf16.nt: ")
    time_us = float(first.split(": ")[1].split(" us")[0])
    rows = {line[9:26].strip(): line for line in lines if line.startswith(("k-steps", "rounds", "launch"))}
    printed_us = [float(line[26:].split()[1]) for line in rows.values()]
    assert {"mfma", "issue", "epilogue", "launch"} <= set(rows)
    assert sum(printed_us) == pytest.approx(time_us, rel=0.01)
    assert "96 workgroups in 1 round, 160 of 256 CUs have none" in "\n".join(lines)
    assert "21.9% of what they compute is not of the product" in "\n".join(lines), "300 of 384 rows"
    assert any(line.startswith("without ") and line.endswith(" would bind") for line in lines)


def test_the_command_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--time"]) == 2
    assert "--problem MxNxK" in capsys.readouterr().err
    assert main(["explain", "--space", "sm90a_gemm_bf16", "--problem", "4096x4096x4096", "--time"]) == 2
    assert "hktune bench" in capsys.readouterr().err
