"""Instructions that only a builtin of clang's asks for: against Python's integers and fractions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gfx950_code import run_lanes, run_scalar
from hazard_kernels import hazard

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
A, WIDE = 0x8000F20F, 0x8000_0010_0F00_40FF
RNG = np.random.default_rng(29)


def quads(value: int, bits: int) -> list[bool]:
    return [bool(value >> 4 * at & 15) for at in range(bits // 4)]


def bits_of(flags: list[bool], times: int = 1) -> int:
    return sum(((1 << times) - 1) << times * at for at, flag in enumerate(flags) if flag)


UNARY: dict[str, Callable[[int], int]] = {
    "s_quadmask_b32": lambda a: bits_of(quads(a, 32)),
    "s_quadmask_b64": lambda a: bits_of(quads(a, 64)),
    "s_wqm_b32": lambda a: bits_of(quads(a, 32), 4),
    "s_wqm_b64": lambda a: bits_of(quads(a, 64), 4),
    "s_bitreplicate_b64_b32": lambda a: bits_of([bool(a >> at & 1) for at in range(32)], 2),
}


@pytest.mark.parametrize("name", UNARY)
def test_masks_of_four_bits_and_doubled_ones(name: str) -> None:
    wide_source, wide = name.endswith("_b64"), "b64" in name
    value = WIDE if wide_source else A
    given = "s[30:31]" if wide_source else "s30"
    lines = f"s_mov_b32 s30, {value & M32:#x}\ns_mov_b32 s31, {value >> 32:#x}\ns_mov_b32 s21, 0"
    low, high, scc = run_scalar(
        f"{lines}\ns_cmp_eq_u32 s30, 0\n{name} {'s[20:21]' if wide else 's20'}, {given}\ns_cselect_b32 s22, 1, 0", 3
    )
    assert low | high << 32 == UNARY[name](value)
    assert scc == (0 if name.startswith("s_bitreplicate") else 1)


@pytest.mark.parametrize("position", [0, 31, 32, 63, 64 + 7])
def test_a_bit_of_64(position: int) -> None:
    start = f"s_mov_b32 s20, {WIDE & M32:#x}\ns_mov_b32 s21, {WIDE >> 32:#x}\ns_mov_b32 s30, {position}"
    bit = 1 << position % 64
    for name, want in (("s_bitset1_b64", WIDE | bit), ("s_bitset0_b64", WIDE & ~bit)):
        low, high = run_scalar(f"{start}\n{name} s[20:21], s30", 2)
        assert low | high << 32 == want


@pytest.mark.parametrize("scc", [0, 1])
def test_a_move_of_64_bits_on_a_condition(scc: int) -> None:
    lines = f"s_mov_b64 s[20:21], 5\ns_mov_b64 s[30:31], -7\ns_cmp_eq_u32 s30, {'s30' if scc else 's20'}"
    low, high = run_scalar(f"{lines}\ns_cmov_b64 s[20:21], s[30:31]", 2)
    assert low | high << 32 == (-7 & M64 if scc else 5)


@pytest.mark.parametrize("name", ["v_qsad_pk_u16_u8", "v_mqsad_pk_u16_u8"])
def test_differences_of_four_bytes_at_four_places(name: str) -> None:
    rows = [RNG.integers(0, 1 << 32, 64, dtype=np.uint64).astype(np.uint32) for _ in range(5)]
    rows[2] &= np.uint32(0xFF00FFFF)  # a reference byte of 0, which the masked form leaves out
    found = run_lanes(f"{name} v[20:21], v[10:11], v12, v[14:15]", [*rows[:3], rows[0], *rows[3:]], 2)
    for lane in range(64):
        a, c = (int(rows[i][lane]) | int(rows[i + 1][lane]) << 32 for i in (0, 3))
        reference = [int(rows[2][lane]) >> 8 * at & 255 for at in range(4)]
        want = 0
        for at in range(4):
            window = [a >> 8 * (at + i) & 255 for i in range(4)]
            apart = [abs(x - y) for x, y in zip(window, reference, strict=True) if y or not name.startswith("v_mqsad")]
            want |= (sum(apart) + (c >> 16 * at & 0xFFFF) & 0xFFFF) << 16 * at
        assert int(found[0, lane]) | int(found[1, lane]) << 32 == want


def test_four_bits_as_sixteenths() -> None:
    codes = np.arange(64, dtype=np.uint32)
    found = run_lanes("v_cvt_off_f32_i4 v20, v10\nv_cvt_off_f32_i4_e64 v21, v10", [codes], 2).view(np.float32)
    for row in found:
        assert row.tolist() == [(((code & 15) ^ 8) - 8) / 16 for code in range(64)]


def test_zero_times_anything_is_zero() -> None:
    """DX9's rule; other products are IEEE's."""
    a = np.array([0.0, -0.0, 3.0, np.inf, 2.5, np.nan] + [1.5] * 58, np.float32)
    b = np.array([np.inf, np.nan, -0.0, 0.0, -4.0, 2.0] + [3.0] * 58, np.float32)
    found = run_lanes("v_mul_legacy_f32 v20, v10, v11", [a, b])[0].view(np.float32)
    assert found[:5].tolist() == [0.0, 0.0, 0.0, 0.0, -10.0]
    assert not np.signbit(found[:4]).any()
    assert np.isnan(found[5])
    assert (found[6:] == 4.5).all()


COUNTER = "v_mov_b32 v2, 16\nv_mov_b32 v3, 100\nds_write_b32 v2, v3\ns_mov_b32 m0, 0x000c0000\ns_waitcnt lgkmcnt(0)\n"


def test_a_counter_in_lds_is_changed_once_by_a_wave() -> None:
    lines = f"""{COUNTER}
    s_mov_b64 exec, 0xff0f
    ds_append v20 offset:4
    ds_consume v21 offset:4
    ds_consume v22 offset:4
    s_waitcnt lgkmcnt(0)
    s_mov_b64 exec, -1
    ds_read_b32 v23, v2
    s_waitcnt lgkmcnt(0)
    """
    found = run_lanes(f"v_mov_b32 v20, 0\nv_mov_b32 v21, 0\nv_mov_b32 v22, 0\n{lines}", (), 4, 64)
    chosen = np.array([bool(0xFF0F >> lane & 1) for lane in range(64)])
    assert found[0].tolist() == np.where(chosen, 100, 0).tolist()
    assert found[1].tolist() == np.where(chosen, 112, 0).tolist()
    assert found[2].tolist() == np.where(chosen, 100, 0).tolist()
    assert (found[3] == 88).all()


def test_what_counters_and_swizzles_bring_is_waited_for() -> None:
    for line in ("ds_append v20 offset:4", "ds_swizzle_b32 v20, v1 offset:0x801f"):
        right = f"{COUNTER}s_barrier\n{line}\ns_waitcnt lgkmcnt(0)\nv_add_u32 v21, v20, v1"
        assert hazard(right, waves=1) is None
        found = hazard(right.replace("s_waitcnt lgkmcnt(0)\nv_add", "v_add"), waves=1)
        assert found is not None
        assert "reads v20" in found
    assert hazard(f"{COUNTER}s_barrier\nds_append v20 offset:4", waves=1) is None
