"""One compute unit against figures that others measured on gfx950, or that a hand can count."""

from __future__ import annotations

import pytest
from clock_traces import BARRIER, Code, Instruction, ds_read_b128, load_to_lds, mfma, priority, trace_of, wait
from test_emulator_decode import instructions

from hktune.core.arch import GFX950
from hktune.core.errors import InputError
from hktune.emulator.clock.compute_unit import ComputeUnit, Wave
from hktune.emulator.clock.instruction_stream import operations_of
from hktune.emulator.clock.rates import arch_rates
from hktune.emulator.clock.trace import Trace, WaveTrace
from hktune.emulator.clock.trace_recorder import step_of

RATES = arch_rates(GFX950)
VALU = Instruction("v_add_u32_e32", writes=(9,))


def run(*waves: Code, latency_clk: int = 500) -> list[Wave]:
    operations = operations_of(trace_of(*waves), RATES)
    return ComputeUnit(GFX950, RATES, latency_clk).run([operations])[0][0]


def spacing(wave: Wave, first: int, last: int) -> float:
    """Mean clk between the issues of consecutive instructions."""
    return (wave.issued[last] - wave.issued[first]) / (last - first)


@pytest.mark.parametrize(("shape", "clk"), [("16x16x32", 16), ("32x32x16", 32)])
def test_a_chain_of_mfmas_into_one_accumulator_takes_exactly_the_documented_clk_each(shape: str, clk: int) -> None:
    (wave,) = run(Code([mfma(shape=shape)] * 50))
    assert wave.issued[:50] == [clk * at for at in range(50)]


# AMD CDNA4 white paper: PFLOP/s of 256 compute units at 2.4 GHz, dense. Older shapes of 16 and 8 bits have half of it.
@pytest.mark.parametrize(
    ("text", "flops", "peak"),
    [
        ("v_mfma_f32_16x16x128_f8f6f4 a[0:3], v[0:3], v[8:11], a[0:3] cbsz:4 blgp:4", 16 * 16 * 128, 10.07),
        ("v_mfma_f32_32x32x64_f8f6f4 a[0:15], v[0:5], v[8:13], a[0:15] cbsz:2 blgp:3", 32 * 32 * 64, 10.07),
        ("v_mfma_f32_32x32x64_f8f6f4 a[0:15], v[0:7], v[8:15], a[0:15]", 32 * 32 * 64, 5.03),
        ("v_mfma_f32_16x16x128_f8f6f4 a[0:3], v[0:3], v[8:15], a[0:3] cbsz:4 blgp:1", 16 * 16 * 128, 5.03),
        ("v_mfma_i32_16x16x64_i8 a[0:3], v[0:3], v[8:11], a[0:3]", 16 * 16 * 64, 5.03),
        ("v_mfma_i32_32x32x32_i8 a[0:15], v[0:3], v[8:11], a[0:15]", 32 * 32 * 32, 5.03),
        ("v_mfma_i32_16x16x32_i8 a[0:3], v[0:1], v[8:9], a[0:3]", 16 * 16 * 32, 2.52),
        ("v_mfma_f32_16x16x32_fp8_bf8 a[0:3], v[0:1], v[8:9], a[0:3]", 16 * 16 * 32, 2.52),
        ("v_mfma_f32_32x32x16_f16 a[0:15], v[0:3], v[8:11], a[0:15]", 32 * 32 * 16, 2.52),
        ("v_mfma_f32_16x16x16_bf16 a[0:3], v[0:1], v[8:9], a[0:3]", 16 * 16 * 16, 1.26),
        ("v_mfma_f32_32x32x2_f32 a[0:15], v0, v8, a[0:15]", 32 * 32 * 2, 0.1573),
        ("v_mfma_f32_16x16x4_f32 a[0:3], v0, v8, a[0:3]", 16 * 16 * 4, 0.1573),
        ("v_mfma_f64_16x16x4_f64 a[0:7], v[0:1], v[8:9], a[0:7]", 16 * 16 * 4, 0.0786),
        # With structured sparsity, zeros counted.
        ("v_smfmac_f32_16x16x64_bf16 a[0:3], v[0:3], v[8:15], v16", 16 * 16 * 64, 5.03),
        ("v_smfmac_f32_32x32x64_fp8_bf8 a[0:15], v[0:3], v[8:15], v16", 32 * 32 * 64, 10.07),
        ("v_smfmac_i32_16x16x64_i8 a[0:3], v[0:1], v[8:11], v16", 16 * 16 * 64, 5.03),
    ],
)
def test_every_kind_of_mfma_reaches_the_white_papers_rate(text: str, flops: int, peak: float) -> None:
    step = step_of(0, instructions(f"{text}\ns_endpgm")[0])
    one = Instruction(step.mnemonic, matrix=step.matrix, reads=step.reads, writes=step.writes)
    (wave,) = run(Code([one] * 50))
    assert 4 * 2 * flops / spacing(wave, 0, 49) * 256 * 2.4e-6 == pytest.approx(peak, rel=0.01)


def test_two_waves_of_one_simd_share_its_mfma_pipe_and_waves_of_two_do_not() -> None:
    chain = Code([mfma()] * 40)
    alone = run(chain)[0].issued[-1]
    assert {wave.issued[-1] for wave in run(chain, chain)} == {alone}
    assert max(wave.issued[-1] for wave in run(*[chain] * 5)) == pytest.approx(2 * alone, rel=0.03)


# AMD's gfx950 Gluon tutorials, LDS throughput: clk per ds_read_b128 of 1 wave, and of each of 4 waves.
@pytest.mark.parametrize(
    ("bank_clk", "one_wave", "four_waves"), [(4, 8, 16), (8, 8, 32), (16, 16, 64), (32, 32, 128), (64, 64, 256)]
)
def test_lds_reads_take_what_was_measured_at_every_degree_of_bank_conflict(
    bank_clk: int, one_wave: int, four_waves: int
) -> None:
    reads = Code([ds_read_b128(bank_clk)] * 80)
    assert spacing(run(reads)[0], 20, 60) == pytest.approx(one_wave, rel=0.02)
    for wave in run(*[reads] * 4):
        assert spacing(wave, 20, 60) == pytest.approx(four_waves, rel=0.05)


def test_the_first_lds_data_is_back_64_clk_after_its_issue_and_later_data_at_the_service_rate() -> None:
    (one,) = run(Code([ds_read_b128(), wait(lgkmcnt=0)]))
    (eight,) = run(Code([ds_read_b128()] * 8 + [wait(lgkmcnt=0)]))
    assert one.issued[1] - one.issued[0] == 64
    assert eight.issued[8] - eight.issued[0] == 64 + 7 * 8


def test_lgkmcnt_lets_the_reads_it_names_stay_in_flight() -> None:
    (wave,) = run(Code([ds_read_b128()] * 8 + [wait(lgkmcnt=3)]))
    assert wave.issued[8] - wave.issued[0] == 64 + 4 * 8


def test_loads_issue_every_4_clk_until_the_queue_is_full_and_then_at_64_bytes_per_clk() -> None:
    waves = run(*[Code([load_to_lds()] * 60)] * 4, latency_clk=500)
    for wave in waves:
        assert spacing(wave, 0, 5) == 4
        assert spacing(wave, 30, 58) == pytest.approx(64, rel=0.03)  # 4 waves x 1024 bytes / 64 bytes per clk


def test_a_load_of_scattered_lines_takes_one_look_up_of_each() -> None:
    half_lines, scattered = (run(*[Code([load_to_lds(lines)] * 60)] * 4)[0] for lines in (16, 64))
    assert spacing(half_lines, 30, 58) == pytest.approx(4 * 16 * RATES.tcp_line_clk, rel=0.03)
    assert spacing(scattered, 30, 58) == pytest.approx(4 * 64 * RATES.tcp_line_clk, rel=0.03)


def test_at_a_long_latency_the_bytes_in_flight_bound_the_loads() -> None:
    (wave, *_) = run(*[Code([load_to_lds()] * 60)] * 4, latency_clk=1984)
    in_flight = 44  # instructions of 1024 bytes: what 44 KB hold, each for latency and its own transfer
    assert spacing(wave, 20, 53) == pytest.approx((1984 + 16) * 4 / in_flight, rel=0.03)


def test_a_wait_exposes_the_latency_of_the_load_that_it_names_and_only_of_that() -> None:
    def issued_after(vmcnt: int, latency_clk: int) -> int:
        return run(Code([load_to_lds(), load_to_lds(), wait(vmcnt=vmcnt)]), latency_clk=latency_clk)[0].issued[2]

    assert issued_after(2, 500) == 8
    assert issued_after(1, 500) == pytest.approx(500 + 16, abs=12)
    assert issued_after(0, 500) == pytest.approx(500 + 2 * 16, abs=12)
    assert issued_after(0, 900) - issued_after(0, 500) == 400


def test_what_other_dies_must_see_is_answered_by_memory_and_the_rest_by_l2() -> None:
    def waited(mnemonic: str, coherent: bool) -> int:
        access = Instruction(mnemonic, lines=2, bytes_per_lane=4, coherent=coherent)
        return run(Code([access, wait(vmcnt=0, lgkmcnt=0)]), latency_clk=900)[0].issued[1]

    for mnemonic, l2_clk in (("global_store_dword", RATES.store_ack_clk), ("s_load_dword", RATES.scalar_load_clk)):
        assert waited(mnemonic, coherent=True) - waited(mnemonic, coherent=False) == 900 - l2_clk


def test_the_64th_outstanding_load_waits_for_the_first() -> None:
    dword = Instruction("buffer_load_dword", lines=2, bytes_per_lane=4, writes=(4,))
    (wave,) = run(Code([dword] * 64), latency_clk=3000)
    assert wave.issued[62] < 3000 < wave.issued[63]


def test_reading_an_mfma_result_waits_36_clk_and_nops_that_cover_it_cost_nothing_more() -> None:
    consume = Instruction("v_cvt_pk_bf16_f32", reads=(100, 101), writes=(8,))
    nop = Instruction("s_nop", immediate=7)
    (bare,) = run(Code([mfma(), consume]))
    (covered,) = run(Code([mfma(), nop, consume]))
    (unrelated,) = run(Code([mfma(), VALU]))
    assert (bare.issued[1], covered.issued[2], unrelated.issued[1]) == (36, 36, 4)


def test_an_mfma_adds_to_the_whole_result_of_another_at_once_and_waits_for_a_part_of_it_or_a_factor() -> None:
    other, name = (200, 201, 202, 203), "v_mfma_f32_16x16x32_bf16"
    whole = Instruction(name, reads=(*range(8), 100, 101, 102, 103), writes=other)
    part = Instruction(name, reads=(*range(8), 102, 103, 104, 105), writes=other)
    multiplied = Instruction(name, reads=(100, 101, 102, 103, *range(4), *other), writes=other)
    issued = [run(Code([mfma(100), each]))[0].issued[1] for each in (whole, part, multiplied)]
    assert issued == [16, 36, 36]


def test_s_nop_takes_one_slot_more_than_it_says() -> None:
    (wave,) = run(Code([Instruction("s_nop", immediate=4), VALU]))
    assert wave.issued[1] == 20


def test_one_slot_takes_one_instruction_of_each_class_from_different_waves() -> None:
    valu, scalar = Code([VALU] * 20), Code([Instruction("s_add_u32")] * 20)
    idle = Code()
    alike = run(valu, idle, idle, idle, valu)
    unlike = run(valu, idle, idle, idle, scalar)
    assert alike[4].issued[19] == 2 * 20 * 4 - 4
    assert unlike[4].issued[19] == 20 * 4 - 4


def test_setprio_lets_the_younger_wave_go_first() -> None:
    old = Code([Instruction("s_nop", immediate=3), *[VALU] * 30])
    idle = Code()
    plain = run(old, idle, idle, idle, Code([Instruction("s_nop", immediate=3), *[VALU] * 30]))
    raised = run(old, idle, idle, idle, Code([priority(2), Instruction("s_nop", immediate=2), *[VALU] * 30]))
    assert plain[0].issued[-1] < plain[4].issued[-1]
    assert raised[4].issued[-1] < raised[0].issued[-1]


def test_a_barrier_holds_the_early_wave_for_the_late_one() -> None:
    early, late = Code([BARRIER, VALU]), Code([*[VALU] * 50, BARRIER, VALU])
    waves = run(early, late)
    assert waves[0].issued[1] == waves[1].issued[51] == 50 * 4 + RATES.barrier_clk


def test_barriers_count_arrivals_wherever_they_stand() -> None:
    work = [VALU] * 10
    ahead = Code(body=[*work, BARRIER], iterations=4, epilogue=[BARRIER])
    behind = Code(prologue=[BARRIER], body=[*work, BARRIER], iterations=4)
    waves = run(ahead, behind)
    assert waves[1].issued[1] == waves[0].issued[11]  # its work begins as the other leaves its first barrier
    assert waves[1].issued[12] == waves[0].issued[23]


def test_an_ended_wave_is_not_waited_for() -> None:
    waves = run(Code([VALU]), Code([*[VALU] * 9, BARRIER, VALU]))
    assert waves[1].issued[10] == 9 * 4 + RATES.barrier_clk


def test_a_trace_that_was_cut_short_is_refused() -> None:
    whole = trace_of(Code([VALU, VALU]))
    wave = whole.waves[0]
    cut = WaveTrace(wave.steps[:2], wave.lds_bank_clocks[:2], wave.lines[:2])
    with pytest.raises(InputError, match="s_endpgm"):
        operations_of(Trace(whole.program, (cut,)), RATES)


# AMD's gfx950 Gluon tutorials, tile model of the vector memory path at a loaded latency of 1000 clk:
# measured share of the MFMA rate that a loop of each tile reaches when its loads stay in flight, k-step 64.
@pytest.mark.parametrize(
    ("m", "n", "measured", "tolerance"), [(128, 128, 0.69, 0.03), (256, 64, 0.55, 0.03), (128, 64, 0.47, 0.03)]
)
def test_loops_that_keep_loads_in_flight_reach_the_measured_share_of_the_mfma_rate(
    m: int, n: int, measured: float, tolerance: float
) -> None:
    loads, mfmas = (m + n) * 64 * 2 // 1024 // 4, m * n * 64 // (16 * 16 * 32) // 4
    body = [*[mfma(100 + 4 * (at % 16)) for at in range(mfmas)], *[load_to_lds()] * loads]
    waves = run(*[Code([], body, 24)] * 4, latency_clk=1000)
    step_clk = (waves[0].issued[20 * (len(body) + 1)] - waves[0].issued[8 * (len(body) + 1)]) / 12
    assert 16 * mfmas / step_clk == pytest.approx(measured, abs=tolerance)


def test_a_burst_of_more_loads_than_the_queue_holds_stalls_the_loop_as_long_as_was_measured() -> None:
    # AMD's gfx950 Gluon tutorials, GEMM v4: 4 waves prefetch 64 KB at the head of each 256x256x64 step and then read 32
    # fragments and multiply; the thread trace has 3593 clk for 2048 of MFMA, at a round trip of about 1000.
    cluster = [mfma(100 + 4 * (at % 16)) for at in range(32)]
    multiply = [step for left in (12, 8, 4, 0) for step in (wait(lgkmcnt=left), *cluster)]
    body = [*[load_to_lds()] * 16, wait(vmcnt=16), BARRIER, *[ds_read_b128()] * 32, *multiply, BARRIER]
    waves = run(*[Code([load_to_lds()] * 16, body, 12)] * 4, latency_clk=1000)
    heads = [wave.issued[16 + 11 * (len(body) + 1)] - wave.issued[16 + 5 * (len(body) + 1)] for wave in waves]
    assert sum(heads) / 4 / 6 == pytest.approx(3593, rel=0.13)
