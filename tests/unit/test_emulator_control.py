"""Branches, divergence, barriers, and the ways a kernel may fail to end."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import assemble, launch, run_lanes, run_scalar

from hktune.core.errors import KernelFault
from hktune.device.emulated import EmulatedDevice

LANE = np.arange(64)


def test_lanes_leave_a_loop_one_by_one() -> None:
    """Each lane counts its own Collatz steps under EXEC, the way a compiler lowers a divergent loop."""
    lines = """
    v_mov_b32 v20, 0
    s_mov_b64 s[10:11], exec
    again:
    v_cmp_ne_u32 vcc, 1, v10
    s_and_b64 exec, exec, vcc
    s_cbranch_execz out
    v_and_b32 v2, 1, v10
    v_cmp_eq_u32 vcc, 1, v2
    v_lshrrev_b32 v3, 1, v10
    v_mad_u32_u24 v4, v10, 3, 1
    v_cndmask_b32 v10, v3, v4, vcc
    v_add_u32 v20, 1, v20
    s_branch again
    out:
    s_mov_b64 exec, s[10:11]
    """

    def steps(value: int) -> int:
        count = 0
        while value != 1:
            value, count = (3 * value + 1 if value % 2 else value // 2), count + 1
        return count

    found = run_lanes(lines, ((LANE + 1).astype(np.uint32),))[0]
    assert found.tolist() == [steps(lane + 1) for lane in range(64)]


@pytest.mark.parametrize(("line", "taken"), [("s_cbranch_scc1", True), ("s_cbranch_scc0", False)])
def test_conditional_branches(line: str, taken: bool) -> None:
    lines = f"s_mov_b32 s20, 1\ns_cmp_eq_u32 s20, 1\n{line} there\ns_mov_b32 s20, 2\nthere:\ns_nop 0"
    assert run_scalar(lines) == [1 if taken else 2]


SEEN_NOWHERE = [
    "s_sleep 3",
    "s_wakeup",
    "s_icache_inv",
    "s_incperflevel 1",
    "s_decperflevel 1",
    "s_ttracedata",
    ".long 0xbf9f0001",  # s_set_valu_coexec_mode 1, which LLVM has no name for
    "s_dcache_inv",
    "s_dcache_inv_vol",
    "s_dcache_wb",
    "s_dcache_wb_vol",
    "ds_nop",
    "v_nop",
    "v_nop_e64",
]
"""Instructions of timing, caches and tracing: no register, flag or memory shows that they ran."""


def test_instructions_that_leave_the_state_alone() -> None:
    """Registers around the fields these encodings have, EXEC, VCC, SCC, M0 and LDS hold what they held."""
    fixed = {"s0": 3, "s20": 5, "vcc_lo": 7, "vcc_hi": 8, "m0": 64, "exec_lo": 0x0F0F0F0F, "exec_hi": 0xFFFF0000}
    lines = ["v_mov_b32 v2, 17\nv_mov_b32 v3, 0\nds_write_b32 v3, v2", "v_mov_b32 v20, v10", "v_mov_b32 v0, v10"]
    lines += [f"s_mov_b32 {name}, {value:#x}" for name, value in fixed.items()]
    lines += ["s_cmp_eq_u32 0, 0", *SEEN_NOWHERE, "s_cselect_b32 s21, 1, 0"]
    lines += [f"s_mov_b32 s{22 + i}, {name}" for i, name in enumerate(fixed)]
    lines += ["s_mov_b64 exec, -1", "s_nop 0", "ds_read_b32 v22, v3\ns_waitcnt lgkmcnt(0)", "v_mov_b32 v21, v0"]
    lines += [f"v_mov_b32 v{23 + i}, s{21 + i}" for i in range(1 + len(fixed))]
    row = LANE.astype(np.uint32)
    found = run_lanes("\n".join(lines), (row,), 4 + len(fixed), lds_bytes=16)
    assert (found[:2] == row).all()
    assert found[2:, 5].tolist() == [17, 1, *fixed.values()]


def test_calls_return_where_they_came_from() -> None:
    lines = """
    s_getpc_b64 s[10:11]
    here:
    s_add_u32 s10, s10, double-here
    s_addc_u32 s11, s11, 0
    s_branch main
    double:
    s_lshl_b32 s20, s20, 1
    s_setpc_b64 s[12:13]
    main:
    s_mov_b32 s20, 5
    s_swappc_b64 s[12:13], s[10:11]
    s_swappc_b64 s[12:13], s[10:11]
    s_call_b64 s[12:13], double
    """
    assert run_scalar(lines) == [40]


# Eight waves. Wave number in s10 (from v0 / 64); each half of the workgroup runs one barrier ahead of the other, as
# staggered kernels do, and every round passes a value through LDS from one half to the other.
STAGGERED = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    v_and_b32 v0, 63, v0
    v_lshlrev_b32 v1, 2, v0
    s_lshl_b32 s11, s10, 8
    v_add_u32 v1, s11, v1
    v_xor_b32 v3, 0x400, v1
    v_mov_b32 v5, s10
    s_mov_b32 s12, 0
    s_cmp_lt_u32 s10, 4
    s_cbranch_scc1 loop
    s_barrier
loop:
    ds_write_b32 v1, v5
    s_waitcnt lgkmcnt(0)
    s_barrier
    s_barrier
    ds_read_b32 v6, v3
    s_waitcnt lgkmcnt(0)
    s_barrier
    s_barrier
    v_lshl_add_u32 v5, v5, 3, v6
    s_add_u32 s12, s12, 1
    s_cmp_lt_u32 s12, 3
    s_cbranch_scc1 loop
    s_cmp_ge_u32 s10, 4
    s_cbranch_scc1 done
    s_barrier
done:
    s_waitcnt lgkmcnt(0)
    global_store_dword v1, v5, s[6:7]
    s_endpgm
"""


def test_barriers_pair_arrivals_at_different_places() -> None:
    code = assemble(STAGGERED, pointers=1, lds_bytes=2048)
    found = launch(code, np.zeros((8, 64), np.uint32), block=(512, 1, 1), grid=(3, 1, 1))[0]
    values = list(range(8))
    for _ in range(3):
        values = [8 * value + values[wave ^ 4] for wave, value in enumerate(values)]
    assert found.tolist() == [[value] * 64 for value in values]


def test_waves_that_ended_are_not_waited_for() -> None:
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    s_cmp_eq_u32 s10, 0
    s_cbranch_scc1 last
    s_endpgm
    last:
    s_barrier
    v_mov_b32 v3, 0
    v_mov_b32 v4, 42
    global_store_dword v3, v4, s[6:7]
    s_endpgm
    """
    assert launch(assemble(lines, pointers=1), np.zeros(1, np.uint32), block=(256, 1, 1))[0].tolist() == [42]


def fault_of(lines: str, device: EmulatedDevice | None = None, block: int = 64) -> KernelFault:
    with pytest.raises(KernelFault) as caught:
        launch(assemble(lines, pointers=0), block=(block, 1, 1), device=device)
    assert "\n" not in caught.value.detail
    return caught.value


def test_a_barrier_that_can_never_release_is_a_timeout() -> None:
    lines = """
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    s_cmp_eq_u32 s10, 2
    s_cbranch_scc0 wait
    s_sethalt 1
    wait:
    s_barrier
    s_endpgm
    """
    fault = fault_of(lines, block=256)
    assert fault.status == "timeout"
    assert "a barrier can never release: wave 0 of workgroup (0, 0, 0) waits" in fault.detail
    assert "wave 2 of workgroup (0, 0, 0) halted" in fault.detail


@pytest.mark.parametrize("limit", [{"deadline_s": 0.05}, {"max_steps": 5000}])
def test_an_endless_loop_meets_its_limit(limit: dict[str, float]) -> None:
    fault = fault_of("forever:\ns_branch forever", EmulatedDevice(**limit))  # type: ignore[arg-type]
    assert fault.status == "timeout"
    assert "still running after" in fault.detail


def test_an_unimplemented_instruction_is_named() -> None:
    fault = fault_of("s_nop 0\nv_cubeid_f32 v0, v1, v2, v3\ns_endpgm")
    assert fault.status == "crashed"
    assert "unimplemented instruction v_cubeid_f32 at 0x" in fault.detail
    assert "d1c4" in fault.detail


def test_generic_addresses_of_lds_are_named() -> None:
    lines = (
        "s_mov_b64 s[10:11], src_shared_base\nv_mov_b32 v2, 0\nv_mov_b32 v3, s11\nflat_load_dword v4, v[2:3]\ns_endpgm"
    )
    fault = fault_of(lines)
    assert fault.status == "crashed"
    assert "flat_load_dword" in fault.detail
    assert "generic address of LDS" in fault.detail


def test_an_unimplemented_instruction_that_is_not_reached_does_no_harm() -> None:
    assert run_scalar("s_mov_b32 s20, 3\ns_branch past\ns_memtime s[10:11]\npast:\ns_nop 0") == [3]


def test_words_that_are_no_instruction_are_named() -> None:
    fault = fault_of("s_nop 0\n.long 0xffffffff\ns_endpgm")
    assert fault.status == "crashed"
    assert "ffffffff" in fault.detail


def test_a_jump_astray_is_a_crash() -> None:
    fault = fault_of("s_mov_b64 s[10:11], 64\ns_setpc_b64 s[10:11]")
    assert (fault.status, "program counter 0x40" in fault.detail) == ("crashed", True)


def test_a_wave_that_waits_for_another_is_not_starved() -> None:
    """Wave 1 spins, at a lower address, on a flag that wave 0 sets only at the end."""
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    v_mov_b32 v3, 0
    v_mov_b32 v4, 1
    s_cmp_eq_u32 s10, 0
    s_cbranch_scc1 setter
    spin:
    global_load_dword v5, v3, s[6:7]
    s_waitcnt vmcnt(0)
    v_readfirstlane_b32 s11, v5
    s_cmp_eq_u32 s11, 0
    s_cbranch_scc1 spin
    s_endpgm
    setter:
    global_store_dword v3, v4, s[6:7]
    s_endpgm
    """
    assert launch(assemble(lines, pointers=1), np.zeros(1, np.uint32), block=(128, 1, 1))[0].tolist() == [1]


def test_waves_that_part_meet_again() -> None:
    """Odd and even waves take different paths, then share the rest: the shared part must see both."""
    lines = """
    v_lshrrev_b32 v2, 6, v0
    v_readfirstlane_b32 s10, v2
    s_bitcmp1_b32 s10, 0
    s_cbranch_scc0 even
    s_mov_b32 s11, 100
    s_branch join
    even:
    s_mov_b32 s11, 200
    join:
    s_add_u32 s11, s11, s10
    """
    body = f"s_load_dwordx2 s[6:7], s[0:1], 0\nv_lshlrev_b32 v1, 2, v0\n{lines}\nv_mov_b32 v4, s11\n"
    code = assemble(f"{body}global_store_dword v1, v4, s[6:7]\ns_endpgm", pointers=1)
    found = launch(code, np.zeros((8, 64), np.uint32), block=(512, 1, 1))[0]
    assert found.tolist() == [[(100 if wave % 2 else 200) + wave] * 64 for wave in range(8)]
