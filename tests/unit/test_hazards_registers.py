"""Registers that loads bring, registers that nothing wrote, and instructions that follow each other too closely.

Every unsafe kernel stands beside one that differs from it in the one thing that makes it safe.
"""

from __future__ import annotations

import pytest
from hazard_kernels import BUFFER, ENTRY, hazard

LOAD = "global_load_dword v10, v1, s[6:7]"
LOAD_NEXT = "global_load_dword v11, v1, s[6:7] offset:256"
READ = "ds_read_b32 v10, v1"
READ_NEXT = "ds_read_b32 v11, v1 offset:256"
FILL = "ds_write_b32 v1, v1; ds_write_b32 v1, v1 offset:256; s_waitcnt lgkmcnt(0)"
USE = "v_add_u32 v20, v10, v1"

SAFE = {
    "load waited for": f"{LOAD}; s_waitcnt vmcnt(0); {USE}",
    "older load waited for, younger in flight": f"{LOAD}; {LOAD_NEXT}; s_waitcnt vmcnt(1); {USE}",
    "stores count too": f"{LOAD}; global_store_dword v1, v1, s[8:9]; s_waitcnt vmcnt(1); {USE}",
    "LDS read waited for": f"{FILL}; {READ}; {READ_NEXT}; s_waitcnt lgkmcnt(1); {USE}",
    "scalar load waited for": "s_load_dword s20, s[6:7], 0; s_waitcnt lgkmcnt(0); s_add_u32 s21, s20, 1",
    "two loads of one register stay in order": f"{LOAD}; {LOAD}; s_waitcnt vmcnt(0); {USE}",
    "stored data may be overwritten": "global_store_dword v1, v2, s[8:9]; v_mov_b32 v2, 0",
    "flat load waited for on both counters": (
        "v_mov_b32 v4, s6; v_mov_b32 v5, s7; flat_load_dword v10, v[4:5]; s_waitcnt vmcnt(0) lgkmcnt(0); " + USE
    ),
}


@pytest.mark.parametrize("name", SAFE)
def test_what_the_counters_cover_is_safe(name: str) -> None:
    assert hazard(SAFE[name].replace(";", "\n")) is None


PAIRS = "v_mov_b32 v4, 0; v_mov_b32 v5, 0; s_load_dword s20, s[6:7], 0; s_waitcnt lgkmcnt(0)"
HALF_OF_A_PAIR = {
    # CDNA4 ISA guide, V_PK_MUL_F32: op_sel chooses the source of the low half, op_sel_hi that of the high one.
    "the low half twice": (f"{PAIRS}; s_load_dword s21, s[6:7], 4", "s[20:21]", "op_sel_hi:[1,0]", True),
    "both halves": (f"{PAIRS}; s_load_dword s21, s[6:7], 4", "s[20:21]", "", False),
    "the high half twice": (f"{PAIRS}; s_load_dword s21, s[6:7], 4", "s[20:21]", "op_sel:[0,1]", False),
    "the low half of vector registers": (
        f"{PAIRS}; v_mov_b32 v10, 0; {LOAD_NEXT}",
        "v[10:11]",
        "op_sel_hi:[1,0]",
        True,
    ),
    "both of vector registers": (f"{PAIRS}; v_mov_b32 v10, 0; {LOAD_NEXT}", "v[10:11]", "", False),
}


@pytest.mark.parametrize("name", HALF_OF_A_PAIR)
def test_a_packed_multiplication_may_read_one_half_of_a_pair(name: str) -> None:
    lines, pair, choice, right = HALF_OF_A_PAIR[name]
    found = hazard(f"{lines}; v_pk_mul_f32 v[20:21], v[4:5], {pair} {choice}".replace(";", "\n"))
    assert (found is None) is right, found


UNSAFE = {
    "no wait": (f"{LOAD}; {USE}", "reads v10", "vmcnt(0)"),
    "wait one too loose": (f"{LOAD}; {LOAD_NEXT}; s_waitcnt vmcnt(2); {USE}", "reads v10", "vmcnt(1)"),
    "the wrong counter": (f"{LOAD}; s_waitcnt lgkmcnt(0); {USE}", "reads v10", "vmcnt(0)"),
    "overwritten before it arrives": (f"{LOAD}; v_mov_b32 v10, 0", "overwrites v10", "vmcnt(0)"),
    "as an address": (f"{LOAD}; global_load_dword v11, v10, s[6:7]", "reads v10", "vmcnt(0)"),
    "as data": (f"{LOAD}; global_store_dword v1, v10, s[8:9]", "reads v10", "vmcnt(0)"),
    "LDS read one too loose": (f"{FILL}; {READ}; {READ_NEXT}; s_waitcnt lgkmcnt(2); {USE}", "reads v10", "lgkmcnt(1)"),
    "memory and LDS into one register": (f"{FILL}; {LOAD}; {READ}", "overwrites v10", "vmcnt(0)"),
    "scalar loads return in any order": (
        "s_load_dword s20, s[6:7], 0; s_load_dword s22, s[6:7], 4; s_waitcnt lgkmcnt(1); s_add_u32 s21, s20, 1",
        "reads s20",
        "lgkmcnt(0)",
    ),
    "LDS behind a scalar load": (
        f"{FILL}; {READ}; s_load_dword s20, s[6:7], 0; s_waitcnt lgkmcnt(1); {USE}",
        "reads v10",
        "lgkmcnt(0)",
    ),
    "flat load waited for on one counter": (
        f"v_mov_b32 v4, s6; v_mov_b32 v5, s7; flat_load_dword v10, v[4:5]; s_waitcnt lgkmcnt(0); {USE}",
        "reads v10",
        "vmcnt(0) lgkmcnt(0)",
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_no_counter_covers_is_a_hazard_that_names_the_wait(name: str) -> None:
    lines, complaint, wait = UNSAFE[name]
    found = hazard(lines.replace(";", "\n"))
    assert found is not None
    assert complaint in found
    assert f"s_waitcnt {wait} would cover it" in found
    assert "wave 0 of workgroup (0, 0, 0)" in found


def test_an_s_waitcnt_on_one_path_does_not_cover_the_other() -> None:
    """Wave 1 jumps over the wait: its own history counts, not that of the waves it meets again."""
    lines = f"""
    v_readfirstlane_b32 s20, v0
    s_cmp_lg_u32 s20, 0
    {LOAD}
    s_cbranch_scc1 after
    s_waitcnt vmcnt(0)
    after:
    {USE}
    """
    found = hazard(lines, waves=2)
    assert found is not None
    assert "wave 1" in found
    assert hazard(lines.replace("after:", "after:\ns_waitcnt vmcnt(0)"), waves=2) is None


@pytest.mark.parametrize(
    ("line", "register"),
    [
        ("v_add_u32 v20, v10, v1", "v10"),
        ("v_accvgpr_read_b32 v20, a3", "a3"),
        ("s_add_u32 s20, s30, 1", "s30"),
        ("s_cbranch_vccz after\nafter:", "vcc_lo"),
        ("global_store_dword v1, v10, s[8:9]", "v10"),
        ("global_store_dword v10, v1, s[8:9]", "v10"),
        ("v_mfma_f32_16x16x32_bf16 v[20:23], v[4:7], v[8:11], 0", "v4"),
        (f"{BUFFER}\nbuffer_load_dword v1, s[12:15], 0 offen lds", "m0"),
    ],
)
def test_a_register_that_nothing_wrote_is_named(line: str, register: str) -> None:
    found = hazard(line)
    assert found is not None
    assert f"reads {register}, which nothing has written" in found


MATRIX = "\n".join(f"v_mov_b32 v{register}, 0" for register in range(4, 60))
SMALL = "v_mfma_f32_16x16x32_bf16 v[20:23], v[4:7], v[8:11], v[20:23]"
LARGE = "v_mfma_f32_32x32x16_bf16 v[20:35], v[4:7], v[8:11], v[20:35]"

SINGLE = "v_mfma_f32_16x16x4_f32 v[20:23], v4, v5, v[20:23]"
DOUBLE = "v_mfma_f64_16x16x4_f64 v[20:27], v[4:5], v[6:7], v[20:27]"
SINGLE_BLOCKS = "v_mfma_f32_4x4x1_16b_f32 v[20:23], v4, v5, v[20:23]"
DOUBLE_BLOCKS = "v_mfma_f64_4x4x4_4b_f64 v[20:21], v[4:5], v[6:7], v[20:21]"
BLOCKS = "v_mfma_f32_4x4x4_16b_bf16 v[20:23], v[4:5], v[6:7], v[20:23]"

WAIT_STATES = {
    # What LLVM 22 puts between the two for gfx950, compiled from C with __builtin_amdgcn_mfma_*.
    "float32 result to VALU": (SINGLE, "v_add_f32 v40, v20, v20", 10),
    "float32 result stored": (SINGLE, "global_store_dword v1, v21, s[8:9]", 10),
    "float32 result as a factor": (SINGLE, "v_mfma_f32_16x16x4_f32 v[40:43], v20, v5, 0", 10),
    "float32 blocks to VALU": (SINGLE_BLOCKS, "v_add_f32 v40, v20, v20", 4),
    "float32 blocks added to": (SINGLE_BLOCKS, SINGLE_BLOCKS, 2),
    "float64 result to VALU": (DOUBLE, "v_add_f64 v[40:41], v[20:21], v[20:21]", 19),
    "float64 result stored": (DOUBLE, "global_store_dword v1, v21, s[8:9]", 18),
    "float64 result as a factor": (DOUBLE, "v_mfma_f64_16x16x4_f64 v[40:47], v[20:21], v[6:7], 0", 19),
    "float64 blocks to VALU": (DOUBLE_BLOCKS, "v_add_f64 v[40:41], v[20:21], v[20:21]", 6),
    "float64 blocks stored": (DOUBLE_BLOCKS, "global_store_dword v1, v21, s[8:9]", 9),
    "float64 blocks added to": (DOUBLE_BLOCKS, DOUBLE_BLOCKS, 4),
    "4x4 bf16 blocks to VALU": (BLOCKS, "v_add_f32 v40, v20, v20", 5),
    "4x4 bf16 blocks stored": (BLOCKS, "global_store_dword v1, v21, s[8:9]", 5),
    "4x4 bf16 blocks as a factor": (
        BLOCKS,
        BLOCKS.replace("v[4:5]", "v[20:21]").replace("v[20:23],", "v[40:43],", 1),
        5,
    ),
    "4x4 bf16 blocks added to": (BLOCKS, BLOCKS, 2),
    "16x16 bf16 blocks to VALU": (
        "v_mfma_f32_16x16x4_4b_bf16 v[20:35], v[4:5], v[6:7], v[20:35]",
        "v_add_f32 v40, v20, v20",
        12,
    ),
    "32x32 bf16 blocks to VALU": (
        "v_mfma_f32_32x32x4_2b_bf16 v[20:51], v[4:5], v[6:7], v[20:51]",
        "v_add_f32 v40, v20, v20",
        20,
    ),
    # Table 38 of the ISA guide, gfx950's counts: the pair of instructions and the states between them.
    "16x16x32 result to VALU": (SMALL, "v_add_f32 v40, v20, v20", 8),
    "32x32x16 result to VALU": (LARGE, "v_add_f32 v40, v20, v20", 12),
    "16x16x32 result stored": (SMALL, "global_store_dword v1, v21, s[8:9]", 8),
    "16x16x32 result to LDS": (SMALL, "ds_write_b32 v1, v23", 8),
    "16x16x32 result as a factor": (SMALL, "v_mfma_f32_16x16x32_bf16 v[40:43], v[20:23], v[8:11], 0", 8),
    "32x32x16 result as a factor": (LARGE, "v_mfma_f32_16x16x32_bf16 v[40:43], v[20:23], v[8:11], 0", 12),
    "16x16x32 result as another addend": (SMALL, "v_mfma_f32_16x16x32_bf16 v[22:25], v[4:7], v[8:11], v[22:25]", 6),
    "32x32x16 result as another addend": (LARGE, "v_mfma_f32_16x16x32_bf16 v[22:25], v[4:7], v[8:11], v[22:25]", 10),
    "16x16x32 addend overwritten": (SMALL.replace("v[20:23],", "v[40:43],", 1), "v_mov_b32 v20, 0", 3),
    "VALU to MFMA": ("v_mov_b32 v4, 0", SMALL, 2),
    "VALU scalar to memory": ("v_readfirstlane_b32 s20, v4", "buffer_load_dword v40, v1, s[12:15], s20 offen", 5),
    "M0 to a load to LDS": ("s_mov_b32 m0, 0", "buffer_load_dword v1, s[12:15], 0 offen lds", 1),
    "lane select": ("v_readfirstlane_b32 s20, v4", "v_readlane_b32 s21, v4, s20", 4),
    "transcendental": ("v_exp_f32 v4, v4", "v_add_f32 v5, v4, v4", 1),
    "DPP": ("v_mov_b32 v4, 0", "v_mov_b32_dpp v5, v4 row_shr:1 row_mask:0xf bank_mask:0xf", 2),
    "v_div_fmas": ("v_cmp_eq_u32 vcc, v4, v5", "v_div_fmas_f32 v40, v6, v7, v8", 4),
    "wide store overwritten": ("global_store_dwordx4 v2, v[4:7], s[8:9]", "v_mov_b32 v4, 0", 2),
    "wide buffer store": ("buffer_store_dwordx4 v[4:7], v2, s[12:15], 0 offen", "v_mov_b32 v5, 0", 2),
    "wide buffer store by a scalar": ("buffer_store_dwordx4 v[4:7], v2, s[12:15], s8 offen", "v_mov_b32 v5, 0", 1),
}


@pytest.mark.parametrize("name", WAIT_STATES)
def test_wait_states_are_counted(name: str) -> None:
    first, second, states = WAIT_STATES[name]
    entry = f"{ENTRY}\n{BUFFER}\n{MATRIX}\ns_mov_b32 m0, 0\ns_nop 7"
    assert hazard(f"{first}\n" + "s_nop 0\n" * states + second, entry=entry) is None
    found = hazard(f"{first}\n" + "s_nop 0\n" * (states - 1) + second, entry=entry)
    assert found is not None
    assert f"{states} wait states are needed, {states - 1} are there; put s_nop 0 before it" in found
    counted_by_one = f"{first}\ns_nop {min(states, 8) - 1}\n" + (f"s_nop {states - 9}\n" if states > 8 else "") + second
    assert hazard(counted_by_one, entry=entry) is None


def test_a_wide_store_by_a_scalar_has_read_its_first_register() -> None:
    store = "buffer_store_dwordx4 v[4:7], v2, s[12:15], s8 offen"
    assert hazard(f"{store}\nv_mov_b32 v4, 0", entry=f"{ENTRY}\n{BUFFER}\n{MATRIX}") is None


def test_accumulating_in_place_needs_no_wait_states() -> None:
    for call in (SMALL, LARGE, SINGLE, DOUBLE):
        assert hazard(f"{call}\n{call}", entry=f"{ENTRY}\n{MATRIX}\ns_nop 1") is None, call
