"""Clamps of integers to their type, by Python's integers, and of packed and mixed floats to 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
from gfx950_code import run_lanes

from hktune.core.errors import KernelFault

RNG = np.random.default_rng(23)
CLAMPED = {
    "v_add_u32_e64": (lambda a, b, _: a + b, np.uint32),
    "v_sub_u32_e64": (lambda a, b, _: a - b, np.uint32),
    "v_subrev_u32_e64": (lambda a, b, _: b - a, np.uint32),
    "v_add_i32": (lambda a, b, _: a + b, np.int32),
    "v_sub_i32": (lambda a, b, _: a - b, np.int32),
    "v_add_u16_e64": (lambda a, b, _: a + b, np.uint16),
    "v_sub_u16_e64": (lambda a, b, _: a - b, np.uint16),
    "v_mad_u16": (lambda a, b, c: a * b + c, np.uint16),
    "v_mad_u32_u24": (lambda a, b, c: (a % 2**24) * (b % 2**24) + c, np.uint32),
    "v_mad_i32_i24": (lambda a, b, c: signed(a, 24) * signed(b, 24) + c, np.int32),
    "v_sad_u32": (lambda a, b, c: abs(a - b) + c, np.uint32),
    "v_pk_add_u16": (lambda a, b, _: a + b, np.uint16),
    "v_pk_sub_u16": (lambda a, b, _: a - b, np.uint16),
    "v_pk_add_i16": (lambda a, b, _: a + b, np.int16),
    "v_pk_sub_i16": (lambda a, b, _: a - b, np.int16),
    "v_pk_mad_u16": (lambda a, b, c: a * b + c, np.uint16),
    "v_pk_mad_i16": (lambda a, b, c: a * b + c, np.int16),
}


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


@pytest.mark.parametrize("name", CLAMPED)
def test_an_integer_clamp_bounds_the_result_to_its_type(name: str) -> None:
    exact, dtype = CLAMPED[name]
    rows = RNG.integers(0, 1 << 32, (3, 64), dtype=np.uint32)
    rows[:2, 32:] >>= RNG.integers(0, 31, (2, 32), dtype=np.uint32)
    three = "mad" in name or "sad" in name
    sources = "v10, v11, v12" if three else "v10, v11"
    found = run_lanes(f"v_mov_b32 v20, 0\n{name} v20, {sources} clamp", list(rows))[0]
    limits, bits = np.iinfo(dtype), 8 * np.dtype(dtype).itemsize
    for half in range(2 if "_pk_" in name else 1):
        for lane in range(64):
            taken = [int(row[lane]) >> 16 * half for row in rows]
            numbers_of = [signed(v, bits) if limits.min else v % (1 << bits) for v in taken]
            expected = min(max(exact(*numbers_of), limits.min), limits.max) % (1 << bits)
            assert int(found[lane]) >> 16 * half & (1 << bits) - 1 == expected, (lane, half)


def test_a_carry_may_be_clamped_and_is_told_all_the_same() -> None:
    a, b = np.array([5, 0xFFFFFFFF, 7, 3] * 16, np.uint32), np.array([6, 2, 3, 7] * 16, np.uint32)
    lines = """
    v_add_co_u32_e64 v20, vcc, v10, v11 clamp
    v_cndmask_b32 v21, 0, 1, vcc
    v_sub_co_u32_e64 v22, vcc, v10, v11 clamp
    v_cndmask_b32 v23, 0, 1, vcc
    """
    found = run_lanes(lines, [a, b], 4)
    assert found[:, :4].tolist() == [[11, 0xFFFFFFFF, 10, 10], [0, 1, 0, 0], [0, 0xFFFFFFFD, 4, 0], [1, 0, 0, 1]]


def test_packed_and_mixed_floats_are_clamped_to_0_and_1() -> None:
    a = np.array([-2.0, 0.25, 7.0, np.nan] * 16, np.float32)
    half = a.astype(np.float16).view(np.uint16).astype(np.uint32) * np.uint32(0x10001)
    lines = """
    v_pk_add_f32 v[20:21], v[10:11], 0 clamp
    v_pk_add_f16 v22, v12, 0 clamp
    v_fma_mix_f32 v23, v10, 1.0, 0 clamp
    v_mov_b32 v24, 0
    v_fma_mixlo_f16 v24, v10, 1.0, 0 clamp
    """
    found = run_lanes(lines, [a, a, half], 5)
    bounded = [0.0, 0.25, 1.0, 0.0]
    for row in (found[0], found[1], found[3]):
        assert row.view(np.float32)[:4].tolist() == bounded
    assert (found[2] & 0xFFFF).astype(np.uint16).view(np.float16)[:4].tolist() == bounded
    assert (found[2] >> 16).astype(np.uint16).view(np.float16)[:4].tolist() == bounded
    assert found[4].astype(np.uint16).view(np.float16)[:4].tolist() == bounded


def test_a_clamp_of_what_has_no_bounds_is_refused() -> None:
    with pytest.raises(KernelFault, match="integer clamp"):
        run_lanes("v_mad_u32_u16 v20, v10, v10, v10 clamp", [np.zeros(64, np.uint32)])
