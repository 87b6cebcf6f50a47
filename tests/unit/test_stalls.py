"""Where the clk of a k-step go, in loops whose clk a hand can count."""

from __future__ import annotations

import pytest
from clock_traces import BARRIER, Code, Instruction, ds_read_b128, load_to_lds, mfma, trace_of, wait
from test_clock import TILE, gemm

from hktune.core.arch import GFX950
from hktune.core.operation import BF16_NT
from hktune.emulator.clock.compute_unit import ComputeUnit
from hktune.emulator.clock.instruction_stream import workgroup_of
from hktune.emulator.clock.profile import LATENCIES_CLK, Profile, profile_of
from hktune.emulator.clock.rates import arch_rates
from hktune.emulator.clock.stalls import CAUSES, causes_of_a_step, step_causes_clk
from hktune.emulator.clock.trace import Trace

RATES = arch_rates(GFX950)
VALU = Instruction("v_add_u32_e32", writes=(9,))


def causes(*body: Instruction, waves: int = 1, latency_clk: int = 500) -> dict[str, float]:
    """Clk by cause of an iteration of `body`, which each of some waves of its own SIMD walks; without those that have
    none. The loop's branch takes 16 clk of issue."""
    group = workgroup_of(trace_of(*[Code([], body, 12)] * waves), 12, RATES)
    resident, _ = ComputeUnit(GFX950, RATES, latency_clk).run([group.operations])
    clk = step_causes_clk(group, resident)
    return {name: round(float(part), 6) for name, part in zip(CAUSES, clk, strict=True) if part}


def test_while_an_mfma_is_at_work_nothing_else_counts() -> None:
    assert causes(*[mfma()] * 8) == {"mfma": 8 * 16, "issue": 4}, "the branch's last 4 clk: 12 are behind the last MFMA"
    covered = causes(*[mfma(), VALU, VALU] * 8)
    assert covered == {"mfma": 8 * 16, "issue": 12}, "the last two and the branch: 24 clk, of which 12 are behind it"


def test_what_is_behind_no_mfma_is_issue() -> None:
    assert causes(mfma(), *[VALU] * 10) == {"mfma": 16, "issue": 4 + 40 + 16 - 16}


def test_a_pause_is_one() -> None:
    nop = Instruction("s_nop", immediate=9)
    assert causes(mfma(), nop) == {"mfma": 16, "pause": 40 - 12, "issue": 16}


def test_reading_a_result_waits_for_it() -> None:
    consume = Instruction("v_cvt_pk_bf16_f32", reads=(100, 101), writes=(8,))
    assert causes(mfma(), consume) == {"mfma": 16, "mfma result": 36 - 16, "issue": 4 + 16}


def test_a_wait_counts_for_the_counter_that_lets_it_go_last() -> None:
    dword = Instruction("buffer_load_dword", lines=2, bytes_per_lane=4, writes=(4,))
    only_lds = causes(mfma(), ds_read_b128(), wait(lgkmcnt=0))
    assert only_lds["lgkmcnt"] == 64 - 4 - 8, "4 clk to issue the read, and 8 more are behind the MFMA"
    both = causes(mfma(), dword, ds_read_b128(), wait(vmcnt=0, lgkmcnt=0))
    assert both["vmcnt"] == pytest.approx(500, abs=16)
    assert "lgkmcnt" not in both


@pytest.mark.parametrize("latency_clk", [500, 900])
def test_a_load_that_is_waited_for_at_once_costs_its_latency(latency_clk: int) -> None:
    found = causes(mfma(), load_to_lds(), wait(vmcnt=0), latency_clk=latency_clk)
    whole = latency_clk + 16  # a kilobyte takes 16 clk of the path, and 8 more to be written into the LDS
    assert found["vmcnt"] == pytest.approx(whole - 4, abs=12)


def test_lds_instructions_wait_for_a_full_queue() -> None:
    found = causes(mfma(), *[ds_read_b128(bank_clk=64)] * 40)
    assert found["lds"] / sum(found.values()) > 0.8
    assert sum(found.values()) == pytest.approx(40 * 64, rel=0.02)


def test_loads_wait_for_a_full_queue() -> None:
    found = causes(mfma(), *[load_to_lds()] * 60, latency_clk=400)
    assert found["tcp"] / sum(found.values()) > 0.6


def test_the_early_wave_waits_at_the_barrier() -> None:
    early, late = [mfma(), BARRIER], [mfma(), *[VALU] * 100, BARRIER]
    group = workgroup_of(trace_of(Code([], early, 12), Code([], late, 12)), 12, RATES)
    resident, _ = ComputeUnit(GFX950, RATES, 500).run([group.operations])
    clk = dict(zip(CAUSES, step_causes_clk(group, resident), strict=True))
    assert clk["barrier"] == pytest.approx(100 * 4 / 2, abs=4), "half the waves wait so long"


def test_waves_of_one_simd_cover_each_other() -> None:
    """Waves 0 and 4 are on one SIMD: while one waits for its result, the other's MFMA is at work."""
    consume = Instruction("v_cvt_pk_bf16_f32", reads=(100, 101), writes=(8,))
    alone, together = (causes(*[mfma(), consume] * 16, waves=waves) for waves in (4, 8))
    assert together["mfma"] == 2 * alone["mfma"]
    assert together["mfma result"] < 0.5 * alone["mfma result"]


@pytest.mark.parametrize(("vmcnt", "fit"), [(0, 1), (8, 1), (8, 2)])
def test_causes_add_up_to_the_k_steps_of_the_profile(vmcnt: int, fit: int) -> None:
    profile, parts = profiled(gemm(vmcnt), fit)
    for workgroups in range(1, fit + 1):
        for latency_clk in (300, *LATENCIES_CLK, 1000, 3000):
            whole_clk = profile.at(workgroups, latency_clk)[1]
            assert sum(part.at(workgroups, latency_clk)[1] for part in parts.values()) == pytest.approx(whole_clk)


def test_a_longer_latency_shows_where_a_drained_loop_waits_for_it() -> None:
    _, parts = profiled(gemm(0, loads=4), 1)
    grown = {name: part.at(1, 2400)[1] - part.at(1, 1600)[1] for name, part in parts.items()}
    assert sum(grown.values()) == pytest.approx(800, rel=0.02)
    assert grown["vmcnt"] + grown["barrier"] == pytest.approx(800, rel=0.05)


def profiled(trace: Trace, fit: int) -> tuple[Profile, dict[str, Profile]]:
    group = workgroup_of(trace, 4, RATES)
    profile = profile_of(group, fit, BF16_NT, TILE, GFX950, RATES)
    return profile, causes_of_a_step(group, profile, GFX950, RATES)
