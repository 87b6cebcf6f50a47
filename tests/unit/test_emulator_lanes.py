"""Data on its way between lanes, against the lane formulas of the ISA guide."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import run_lanes

LANE = np.arange(64)
A = (LANE * 7 + 1000).astype(np.uint32)
B = (LANE * 5 + 90000).astype(np.uint32)


def test_read_and_write_one_lane() -> None:
    lines = """
    s_mov_b32 s10, 41
    v_readlane_b32 s11, v10, s10
    v_mov_b32 v20, s11
    v_mov_b32 v21, v10
    v_writelane_b32 v21, s10, 3
    s_mov_b64 exec, 0xff0
    v_readfirstlane_b32 s12, v10
    s_mov_b64 exec, -1
    v_mov_b32 v22, s12
    """
    found = run_lanes(lines, (A,), 3)
    written = A.copy()
    written[3] = 41
    assert (found[0] == A[41]).all()
    assert found[1].tolist() == written.tolist()
    assert (found[2] == A[4]).all()


def test_swaps_between_rows() -> None:
    lines = """
    v_mov_b32 v20, v10
    v_mov_b32 v21, v11
    s_nop 1
    v_permlane32_swap_b32 v20, v21
    v_mov_b32 v22, v10
    v_mov_b32 v23, v11
    s_nop 1
    v_permlane16_swap_b32 v22, v23
    v_mov_b32 v24, v10
    v_mov_b32 v25, v11
    v_swap_b32 v24, v25
    v_mov_b32 v26, v10
    v_mov_b32 v27, v11
    v_mov_b32 v28, v10
    v_mov_b32 v29, v11
    s_nop 1
    v_permlane32_swap_b32_e64 v26, v27
    v_permlane16_swap_b32_e64 v28, v29
    """
    found = run_lanes(lines, (A, B), 10)
    assert (found[6:] == found[:4]).all()
    assert found[0].tolist() == [*A[:32], *B[:32]]
    assert found[1].tolist() == [*A[32:], *B[32:]]
    assert found[2].tolist() == [*A[:16], *B[:16], *A[32:48], *B[32:48]]
    assert found[3].tolist() == [*A[16:32], *B[16:32], *A[48:], *B[48:]]
    assert found[4].tolist() == B.tolist()
    assert found[5].tolist() == A.tolist()


def test_permutes_through_the_lds_crossbar() -> None:
    index = ((LANE * 13 + 5) % 64).astype(np.uint32)
    lines = (
        "v_lshlrev_b32 v12, 2, v11\nds_bpermute_b32 v20, v12, v10\nds_permute_b32 v21, v12, v10\ns_waitcnt lgkmcnt(0)"
    )
    found = run_lanes(lines, (A, index), 2)
    pushed = np.zeros(64, np.uint32)
    pushed[index] = A
    assert found[0].tolist() == A[index].tolist()
    assert found[1].tolist() == pushed.tolist()


DPP = {
    "quad_perm:[3,0,1,1]": lambda lane: lane // 4 * 4 + (3, 0, 1, 1)[lane % 4],
    "row_shl:3": lambda lane: lane + 3 if lane % 16 + 3 < 16 else None,
    "row_shr:1": lambda lane: lane - 1 if lane % 16 else None,
    "row_ror:5": lambda lane: lane // 16 * 16 + (lane % 16 - 5) % 16,
    "row_mirror": lambda lane: lane // 16 * 16 + 15 - lane % 16,
    "row_half_mirror": lambda lane: lane // 8 * 8 + 7 - lane % 8,
    "row_bcast:15": lambda lane: lane // 16 * 16 - 1 if lane >= 16 else None,
    "row_bcast:31": lambda lane: 31 if lane >= 32 else None,
    "row_newbcast:6": lambda lane: lane // 16 * 16 + 6,
    "wave_shr:1": lambda lane: lane - 1 if lane else None,
}


@pytest.mark.parametrize("control", DPP)
def test_dpp_takes_the_source_from_another_lane(control: str) -> None:
    """Without a source a lane keeps its destination, or adds zero when bound_ctrl asks for it."""
    lines = f"""
    v_mov_b32 v20, 17
    v_mov_b32 v21, 17
    s_nop 1
    v_add_u32_dpp v20, v10, v11 {control} row_mask:0xf bank_mask:0xf
    v_add_u32_dpp v21, v10, v11 {control} row_mask:0xf bank_mask:0xf bound_ctrl:0
    """
    found = run_lanes(lines, (A, B), 2)
    origins = [DPP[control](lane) for lane in range(64)]
    assert found[0].tolist() == [17 if o is None else int(A[o] + B[lane]) for lane, o in enumerate(origins)]
    assert found[1].tolist() == [int(B[lane] + (0 if o is None else A[o])) for lane, o in enumerate(origins)]


def test_dpp_masks_rows_and_banks() -> None:
    found = run_lanes("v_mov_b32 v20, 9\ns_nop 1\nv_mov_b32_dpp v20, v10 row_mirror row_mask:0x5 bank_mask:0x3", (A,))[
        0
    ]
    mirrored = A.reshape(4, 16)[:, ::-1].reshape(64)
    expected = [int(mirrored[i]) if i // 16 in (0, 2) and i % 16 < 8 else 9 for i in range(64)]
    assert found.tolist() == expected


def test_lanes_below_are_counted() -> None:
    mask = 0xF0F0_1234_8000_FFFF
    lines = f"""
    s_mov_b32 s10, {mask & 0xFFFFFFFF:#x}
    s_mov_b32 s11, {mask >> 32:#x}
    v_mbcnt_lo_u32_b32 v20, s10, 0
    v_mbcnt_hi_u32_b32 v20, s11, v20
    """
    expected = [bin(mask & (1 << lane) - 1).count("1") for lane in range(64)]
    assert run_lanes(lines, ())[0].tolist() == expected


def test_accumulation_registers_are_registers() -> None:
    lines = """
    v_accvgpr_write_b32 a200, v10
    v_accvgpr_write_b32 a201, 7
    v_accvgpr_mov_b32 a202, a200
    s_nop 1
    v_accvgpr_read_b32 v20, a202
    v_accvgpr_read_b32 v21, a201
    """
    found = run_lanes(lines, (A,), 2)
    assert found[0].tolist() == A.tolist()
    assert (found[1] == 7).all()
