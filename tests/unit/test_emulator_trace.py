"""The trace of workgroup 0: its steps against the program's text, its costs against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import assemble, launch, vector_program

from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.lds_banks import bank_clocks
from hktune.emulator.clock.trace import Step, Trace

LANE = np.arange(64, dtype=np.int64)
ACTIVE = np.ones((1, 64), bool)


def traced(lines: str, lds_bytes: int = 0, **shape: tuple[int, int, int]) -> Trace:
    device = EmulatedDevice(record_trace=True)
    code = assemble(vector_program(lines, 0, 0), lds_bytes=lds_bytes)
    launch(code, np.zeros(8192, np.uint32), np.zeros(8192, np.uint32), device=device, **shape)
    assert device.trace is not None
    return device.trace


def steps_of(trace: Trace, mnemonic: str) -> list[Step]:
    return [step for step in trace.program if step.mnemonic == mnemonic]


def test_steps_are_the_executed_path() -> None:
    lines = """
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    s_add_u32 s11, s10, 1
    again:
    s_sub_u32 s11, s11, 1
    s_cmp_eq_u32 s11, 0
    s_cbranch_scc0 again
    """
    trace = traced(lines, block=(256, 1, 1), grid=(5, 1, 1))
    assert len(trace.waves) == 4
    for wave, recorded in enumerate(trace.waves):
        names = [trace.program[i].mnemonic for i in recorded.steps]
        loop = ["s_sub_u32", "s_cmp_eq_u32", "s_cbranch_scc0"]
        start = ["s_load_dwordx2", "s_load_dwordx2", "v_lshlrev_b32", "s_waitcnt", "s_waitcnt"]
        assert names == [*start, "v_lshrrev_b32", "v_readfirstlane_b32", "s_add_u32", *loop * (wave + 1), "s_endpgm"]
        assert not recorded.lds_bank_clocks.any()
    assert [step.index for step in trace.program] == list(range(len(trace.program)))
    assert [step.address for step in trace.program] == sorted(step.address for step in trace.program)


def test_steps_say_what_memory_answers() -> None:
    trace = traced(
        """
        v_mov_b32 v2, 0
        s_load_dword s12, s[6:7], 0 glc
        global_store_dword v2, v2, s[6:7] sc0 sc1
        global_store_dwordx2 v2, v[2:3], s[6:7] nt
        global_atomic_add v2, v2, s[6:7]
        """
    )
    told = {step.mnemonic: step.coherent for step in trace.program if step.mnemonic.startswith(("s_load", "global"))}
    plain = {"s_load_dwordx2": False, "global_store_dwordx2": False}
    assert told == plain | {"s_load_dword": True, "global_store_dword": True, "global_atomic_add": True}


def test_steps_carry_counters_immediates_and_registers() -> None:
    lines = """
    s_waitcnt vmcnt(17) lgkmcnt(3)
    s_waitcnt vmcnt(0)
    s_waitcnt lgkmcnt(0)
    s_nop 5
    s_setprio 2
    v_fma_f32 v9, v2, v3, s4
    v_fmac_f32 v9, v2, v3
    v_lshlrev_b64 v[8:9], v2, v[4:5]
    v_cmp_lt_u32 vcc, v2, v3
    v_mfma_f32_16x16x32_bf16 a[4:7], v[0:3], a[20:23], a[8:11]
    v_mfma_f32_32x32x16_bf16 v[32:47], v[0:3], v[4:7], 0
    v_accvgpr_read_b32 v9, a3
    ds_read_b128 v[12:15], v1
    ds_write_b64 v1, v[12:13]
    v_mov_b32 v2, 0
    global_load_dwordx2 v[4:5], v2, s[6:7]
    global_store_short_d16_hi v2, v4, s[8:9]
    """
    trace = traced(lines, lds_bytes=4096)
    waits = [(step.vmcnt, step.lgkmcnt) for step in steps_of(trace, "s_waitcnt")][2:]
    assert waits == [(17, 3), (0, None), (None, 0)]
    assert [steps_of(trace, name)[0].immediate for name in ("s_nop", "s_setprio")] == [5, 2]

    def registers(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        step = steps_of(trace, name)[0]
        return step.reads, step.writes

    assert registers("v_fma_f32") == ((2, 3), (9,))
    assert registers("v_fmac_f32") == ((2, 3, 9), (9,))
    assert registers("v_lshlrev_b64") == ((2, 4, 5), (8, 9))
    assert registers("v_cmp_lt_u32") == ((2, 3), ())
    small = ((0, 1, 2, 3, *range(276, 280), *range(264, 268)), tuple(range(260, 264)))
    assert registers("v_mfma_f32_16x16x32_bf16") == small
    assert registers("v_mfma_f32_32x32x16_bf16") == (tuple(range(8)), tuple(range(32, 48)))
    assert registers("v_accvgpr_read") == ((259,), (9,))
    assert registers("ds_read_b128") == ((1,), (12, 13, 14, 15))
    assert registers("ds_write_b64") == ((1, 12, 13), ())
    assert registers("global_load_dwordx2") == ((2,), (4, 5))
    assert registers("global_store_short_d16_hi") == ((2, 4), ())
    widths = {"ds_read_b128": 16, "ds_write_b64": 8, "global_load_dwordx2": 8, "global_store_short_d16_hi": 2}
    assert {name: steps_of(trace, name)[0].bytes_per_lane for name in widths} == widths


def test_memory_costs_stand_at_their_steps() -> None:
    lines = """
    v_lshlrev_b32 v2, 4, v0
    v_mul_u32_u24 v3, 256, v0
    ds_read_b128 v[12:15], v2
    ds_read_b32 v12, v3
    ds_read2_b32 v[12:13], v1 offset0:0 offset1:8
    global_load_dword v4, v1, s[6:7]
    global_load_dword v4, v3, s[6:7]
    global_load_dwordx4 v[4:7], v2, s[6:7]
    s_mov_b64 exec, 0xff
    global_load_dword v4, v3, s[6:7]
    """
    trace = traced(lines, lds_bytes=32768)
    wave = trace.waves[0]
    names = np.array([trace.program[i].mnemonic for i in wave.steps])
    assert wave.lds_bank_clocks[np.char.startswith(names, "ds_")].tolist() == [4, 64, 2]
    assert wave.lines[np.char.startswith(names, "global_")].tolist() == [2, 64, 8, 8]
    assert not wave.lines[~np.char.startswith(names, "global_")].any()


def test_loads_to_lds_are_marked() -> None:
    lines = """
    s_mov_b32 s12, s6
    s_and_b32 s13, s7, 0xffff
    s_mov_b32 s14, 4096
    s_mov_b32 s15, 0x00020000
    s_mov_b32 m0, 0
    v_lshlrev_b32 v2, 4, v0
    buffer_load_dwordx4 v2, s[12:15], 0 offen lds
    buffer_load_dwordx4 v[4:7], v2, s[12:15], 0 offen
    """
    first, second = steps_of(traced(lines, lds_bytes=4096), "buffer_load_dwordx4")
    assert (first.to_lds, first.reads, first.writes, first.bytes_per_lane) == (True, (2,), (), 16)
    assert (second.to_lds, second.reads, second.writes) == (False, (2,), (4, 5, 6, 7))


@pytest.mark.parametrize(
    ("stride", "size", "clocks"),
    [(4, 4, 1), (8, 4, 2), (256, 4, 64), (0, 4, 1), (8, 8, 2), (16, 8, 4), (512, 8, 64), (16, 16, 4), (32, 16, 8)],
)
def test_bank_clocks_of_strided_reads(stride: int, size: int, clocks: int) -> None:
    """64 banks of 4 bytes: a stride of 2^n dwords folds that many lanes onto a bank; equal dwords are shared."""
    assert bank_clocks((LANE * stride)[None], ACTIVE, size, writes=False).tolist() == [clocks]


def test_the_swizzle_of_hipkittens_tiles_avoids_conflicts() -> None:
    """Its 16 x 32 tiles of bf16 have 64-byte rows; the layout exists so that b128 reads of it take 4 clocks, not 8."""
    plain = LANE % 16 * 64 + LANE // 16 * 16
    swizzled = plain ^ ((plain % 1024) >> 9) << 5
    assert bank_clocks(plain[None], ACTIVE, 16, writes=False).tolist() == [8]
    assert bank_clocks(swizzled[None], ACTIVE, 16, writes=False).tolist() == [4]


def test_inactive_lanes_and_misaligned_reads() -> None:
    some = (LANE < 2)[None]
    assert bank_clocks((LANE * 256)[None], some, 4, writes=False).tolist() == [2]
    assert bank_clocks((LANE * 16 + 4)[None], ACTIVE, 16, writes=False).tolist() == [64]
    assert bank_clocks((LANE * 16)[None], ACTIVE, 16, writes=True).tolist() == [8]


def test_nothing_is_recorded_unless_asked_for() -> None:
    device = EmulatedDevice()
    launch(assemble("s_endpgm", pointers=0), device=device)
    assert device.trace is None
