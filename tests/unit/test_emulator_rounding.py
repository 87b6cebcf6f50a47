"""Rounding modes, from the descriptor and from s_setreg: against fractions, rounded by the definition of each mode.

Among the operands are ties, subnormal results, results that overflow, and sums that cancel to a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, run_lanes

from hktune.core.errors import KernelFault

NEAREST, UP, DOWN, TOWARD_ZERO = range(4)
RNG = np.random.default_rng(17)
Numbers = npt.NDArray[Any]


def rounded(exact: Fraction, dtype: type, mode: int) -> float:
    """The number of `dtype` that `exact`, which is not 0, is rounded to."""
    with np.errstate(over="ignore"):
        try:
            near = dtype(float(exact))
        except OverflowError:
            near = dtype(np.inf if exact > 0 else -np.inf)
    with np.errstate(over="ignore", under="ignore"):
        around = [np.nextafter(near, dtype(-np.inf)), near, np.nextafter(near, dtype(np.inf))]
    below = max(v for v in around if v == -np.inf or (np.isfinite(v) and Fraction(float(v)) <= exact))
    above = min(v for v in around if v == np.inf or (np.isfinite(v) and Fraction(float(v)) >= exact))
    if mode == NEAREST:
        return float(nearest(exact, below, above, dtype))
    down = mode == DOWN or (mode == TOWARD_ZERO and exact > 0)
    chosen = float(below if down else above)
    return chosen if chosen else float(np.copysign(0.0, -1.0 if exact < 0 else 1.0))


def nearest(exact: Fraction, below: Any, above: Any, dtype: type) -> Any:
    """The nearer of two neighbours, the even one of a tie; an infinity is as far as the next power of two."""
    beyond = Fraction(2) ** np.finfo(dtype).maxexp
    places = [Fraction(float(v)) if np.isfinite(v) else beyond * (1 if v > 0 else -1) for v in (below, above)]
    distances = [abs(place - exact) for place in places]
    if distances[0] != distances[1]:
        return below if distances[0] < distances[1] else above
    return below if int(np.asarray(below).view(f"u{below.itemsize}")) % 2 == 0 else above


def numbers(dtype: type) -> list[Numbers]:
    """Three rows of 64 operands."""
    info = np.finfo(dtype)
    rows = []
    for _ in range(3):
        ordinary = RNG.standard_normal(24)
        wide = RNG.standard_normal(16) * 2.0 ** RNG.integers(-info.nmant, info.nmant, 16)
        whole = RNG.integers(1, 1 << (info.nmant // 2 + 2), 12) * RNG.choice([-1.0, 1.0], 12)
        small = RNG.uniform(1, 2, 6) * float(info.tiny) * RNG.choice([-1.0, 1.0], 6)
        large = RNG.uniform(0.5, 1, 6) * float(info.max) * RNG.choice([-1.0, 1.0], 6)
        rows.append(np.concatenate([ordinary, wide, whole, small, large]).astype(dtype))
    rows[1][:4] = -rows[0][:4]  # sums that cancel
    rows[1][40:52] = rows[1][40:52] / dtype(4)
    return rows


def words(values: Numbers) -> list[Words]:
    raw = np.ascontiguousarray(values)
    if raw.itemsize == 8:
        pairs = raw.view(np.uint32).reshape(64, 2)
        return [pairs[:, 0].copy(), pairs[:, 1].copy()]
    return [raw.view(f"u{raw.itemsize}").astype(np.uint32)]


def with_mode(lines: str, rows: Sequence[Words], outputs: int, mode: int, width: str, how: str) -> Words:
    """Run `lines` while floats of `width` ("32", or "16_64") are rounded by `mode`, and others to nearest."""
    if how == "descriptor":
        return run_lanes(lines, rows, outputs, directives=f".amdhsa_float_round_mode_{width} {mode}")
    bit = 0 if width == "32" else 2
    return run_lanes(f"s_setreg_imm32_b32 hwreg(HW_REG_MODE, {bit}, 2), {mode}\n{lines}", rows, outputs)


SUMS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b, _: a + b,
    "sub": lambda a, b, _: a - b,
    "subrev": lambda a, b, _: b - a,
    "mul": lambda a, b, _: a * b,
    "fma": lambda a, b, c: a * b + c,
}
INSTRUCTIONS = [
    (np.float32, "32", ("add", "sub", "subrev", "mul", "fma")),
    (np.float16, "16_64", ("add", "sub", "subrev", "mul", "fma")),
    (np.float64, "16_64", ("add", "mul", "fma")),
]


@pytest.mark.parametrize("how", ["descriptor", "s_setreg"])
@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize(("dtype", "width", "kinds"), INSTRUCTIONS, ids=["f32", "f16", "f64"])
def test_sums_and_products_are_rounded_once(
    dtype: type, width: str, kinds: tuple[str, ...], mode: int, how: str
) -> None:
    rows = numbers(dtype)
    size = np.dtype(dtype).itemsize
    step = max(1, size // 4)
    names = [f"v[{10 + 2 * i}:{11 + 2 * i}]" if step == 2 else f"v{10 + i}" for i in range(3)]
    lines = []
    for i, kind in enumerate(kinds):
        target = f"v[{20 + 2 * i}:{21 + 2 * i}]" if step == 2 else f"v{20 + i}"
        sources = names if kind == "fma" else names[:2]
        lines.append(f"v_{kind}_f{8 * size} {target}, {', '.join(sources)}")
    found = with_mode("\n".join(lines), [w for row in rows for w in words(row)], step * len(kinds), mode, width, how)
    for i, kind in enumerate(kinds):
        compare(found[step * i : step * (i + 1)], kind, rows, dtype, mode)


def compare(found: Words, kind: str, rows: list[Numbers], dtype: type, mode: int) -> None:
    size = np.dtype(dtype).itemsize
    got = np.ascontiguousarray(found.T).view(dtype)[:, 0] if size != 2 else found[0].astype(np.uint16).view(np.float16)
    for lane in range(64):
        a, b, c = (Fraction(float(row[lane])) for row in rows)
        exact = SUMS[kind](a, b, c)
        expected = rounded(exact, dtype, mode) if exact else -0.0 if mode == DOWN else 0.0
        assert got[lane] == expected, (kind, lane, float(a), float(b), float(c))
        assert np.signbit(got[lane]) == np.signbit(expected), (kind, lane)


def test_the_sign_of_a_zero_sum() -> None:
    """-0 + -0 and +0 + +0 keep their sign in every mode; +0 + -0 is -0 only when rounding down."""
    zeros = np.array([0.0, -0.0, 0.0, -0.0] * 16, np.float32)
    others = np.array([0.0, -0.0, -0.0, 0.0] * 16, np.float32)
    for mode in range(4):
        found = with_mode("v_add_f32 v20, v10, v11", [*words(zeros), *words(others)], 1, mode, "32", "s_setreg")
        mixed = mode == DOWN
        assert np.signbit(found[0, :4].view(np.float32)).tolist() == [False, True, mixed, mixed], mode


@pytest.mark.parametrize("mode", range(4))
def test_conversions_are_rounded_by_the_mode_of_their_result(mode: int) -> None:
    singles = numbers(np.float32)[0]
    singles[:32] = RNG.standard_normal(32) * 2.0 ** RNG.integers(-26, 17, 32)
    doubles = numbers(np.float64)[0]
    doubles[:48] = RNG.standard_normal(48) * 2.0 ** RNG.integers(-150, 129, 48)
    whole = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    rows = [*words(singles), whole, *words(doubles)]
    lines = """
    v_cvt_f16_f32 v20, v10
    v_cvt_pk_f16_f32 v21, v10, v10
    v_cvt_pk_bf16_f32 v22, v10, v10
    v_cvt_f16_u16 v23, v11
    """
    found = with_mode(lines, rows, 4, mode, "16_64", "descriptor")
    half = [rounded(Fraction(float(v)), np.float16, mode) for v in singles]
    assert found[0].astype(np.uint16).view(np.float16).tolist() == half
    assert (found[1] == found[0] * np.uint32(0x10001)).all()
    assert (found[2].astype(np.uint16) == bf16(singles, mode)).all()
    assert (found[2] >> np.uint32(16) == found[2] & np.uint32(0xFFFF)).all()
    low = [rounded(Fraction(int(v) & 0xFFFF), np.float16, mode) for v in whole]
    assert found[3].astype(np.uint16).view(np.float16).tolist() == low
    lines = """
    v_cvt_f32_u32 v20, v11
    v_cvt_f32_i32 v21, v11
    v_cvt_f32_f64 v22, v[12:13]
    """
    found = with_mode(lines, rows, 3, mode, "32", "descriptor")
    values = (whole.tolist(), whole.view(np.int32).tolist(), doubles.tolist())
    for row, exact in zip(found, values, strict=True):
        assert row.view(np.float32).tolist() == [rounded(Fraction(v), np.float32, mode) for v in exact]


def bf16(values: Numbers, mode: int) -> Numbers:
    """By the neighbours of a number among those of 8 bits."""
    expected = []
    for value in values.astype(np.float32):
        bits = int(value.view(np.uint32))
        toward_zero = bits >> 16
        rest = bits & 0xFFFF
        away = {
            NEAREST: rest > 0x8000 or (rest == 0x8000 and toward_zero & 1),
            UP: rest and value > 0,
            DOWN: rest and value < 0,
            TOWARD_ZERO: False,
        }[mode]
        expected.append(toward_zero + bool(away))
    return np.array(expected, np.uint16)


@pytest.mark.parametrize("mode", [UP, DOWN, TOWARD_ZERO])
def test_packed_and_mixed_operations_follow_the_mode(mode: int) -> None:
    a, b, c = numbers(np.float32)
    lines = """
    v_mov_b32 v22, v14
    v_pk_fma_f32 v[20:21], v[10:11], v[12:13], v[14:15]
    v_fmac_f32 v22, v10, v12
    v_fma_mix_f32 v23, v10, v12, v14
    """
    given = [a, a, b, b, c, c]
    found = with_mode(lines, [w for row in given for w in words(row)], 4, mode, "32", "s_setreg")
    for row in found:
        compare(row[None], "fma", [a, b, c], np.float32, mode)
    halves = numbers(np.float16)
    given16 = [w * np.uint32(0x10001) for row in halves for w in words(row)]
    lines = "v_pk_add_f16 v20, v10, v11\nv_pk_mul_f16 v21, v10, v11\nv_pk_fma_f16 v22, v10, v11, v12"
    found = with_mode(lines, given16, 3, mode, "16_64", "s_setreg")
    for row, kind in zip(found, ("add", "mul", "fma"), strict=True):
        compare((row & np.uint32(0xFFFF))[None], kind, halves, np.float16, mode)
        assert (row >> np.uint32(16) == row & np.uint32(0xFFFF)).all()


@pytest.mark.parametrize("mode", range(4))
def test_scaling_by_a_power_of_two_is_rounded_where_bits_are_lost(mode: int) -> None:
    values = RNG.standard_normal(64).astype(np.float32)
    powers = np.concatenate([np.arange(-155, -123), RNG.integers(-20, 20, 28), [127, 128, 129, 200]]).astype(np.int32)
    found = with_mode("v_ldexp_f32 v20, v10, v11", [*words(values), powers.view(np.uint32)], 1, mode, "32", "s_setreg")
    exact = [Fraction(float(v)) * Fraction(2) ** int(p) for v, p in zip(values, powers, strict=True)]
    assert found[0].view(np.float32).tolist() == [rounded(v, np.float32, mode) for v in exact]
    doubles = RNG.standard_normal(64)
    powers = np.concatenate([np.arange(-1085, -1053), RNG.integers(-20, 20, 31), [1024]]).astype(np.int32)
    rows = [*words(doubles), powers.view(np.uint32)]
    found = with_mode("v_ldexp_f64 v[20:21], v[10:11], v12", rows, 2, mode, "16_64", "descriptor")
    exact = [Fraction(float(v)) * Fraction(2) ** int(p) for v, p in zip(doubles, powers, strict=True)]
    got = np.ascontiguousarray(found.T).view(np.float64)[:, 0]
    assert got.tolist() == [rounded(v, np.float64, mode) for v in exact]


def test_float64_sums_are_rounded_once_far_from_one() -> None:
    """Where errors of products are subnormal, intermediate products overflow, and addends are far larger or smaller."""
    exponents = RNG.integers(-1070, 1020, (3, 64))
    exponents[2] = exponents[0] + exponents[1] + RNG.integers(-60, 60, 64)
    exponents = np.clip(exponents, -1073, 1022)
    rows = [np.ldexp(RNG.choice([-1.0, 1.0], 64) * RNG.uniform(1, 2, 64), e) for e in exponents]
    found = run_lanes("v_fma_f64 v[20:21], v[10:11], v[12:13], v[14:15]", [w for row in rows for w in words(row)], 2)
    compare(found, "fma", rows, np.float64, NEAREST)
    for form in ("", "_e64"):
        lines = f"v_mov_b32 v20, v14\nv_mov_b32 v21, v15\nv_fmac_f64{form} v[20:21], v[10:11], v[12:13]"
        assert (run_lanes(lines, [w for row in rows for w in words(row)], 2) == found).all()


def test_float64_products_of_what_is_not_finite() -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -2.5, 1e308]
    a, b = (np.array(v) for v in zip(*[(x, y) for x in special for y in special], strict=True))
    c = np.resize(np.array([0.0, -0.0, np.inf, 1.0, -1e308]), 64)
    found = run_lanes("v_fma_f64 v[20:21], v[10:11], v[12:13], v[14:15]", [*words(a), *words(b), *words(c)], 2)
    got = np.ascontiguousarray(found.T).view(np.float64)[:, 0]
    with np.errstate(all="ignore"):
        expected = a * b + c  # no product here is inexact and finite, but those that overflow whatever is added
    large = (np.abs(a) == 1e308) | (np.abs(b) == 1e308)
    same = (got == expected) & (np.signbit(got) == np.signbit(expected)) | (np.isnan(got) & np.isnan(expected))
    assert (same | large).all()


def test_a_mode_that_is_set_lasts_until_it_is_set_again_and_can_be_read() -> None:
    third = np.full(64, 3.0, np.float32)
    lines = """
    s_getreg_b32 s20, hwreg(HW_REG_MODE)
    s_mov_b32 s22, 0x21
    s_setreg_b32 hwreg(HW_REG_MODE, 0, 8), s22
    v_add_f32 v20, v11, v12
    s_getreg_b32 s21, hwreg(HW_REG_MODE)
    s_setreg_b32 hwreg(HW_REG_MODE), s20
    v_add_f32 v21, v11, v12
    s_getreg_b32 s23, hwreg(HW_REG_MODE, 4, 4)
    v_mov_b32 v22, s20
    v_mov_b32 v23, s21
    v_mov_b32 v24, s23
    """
    tiny = np.full(64, 1e-9, np.float32)
    found = run_lanes(lines, [third, np.ones(64, np.float32), tiny], 5)
    assert found[0].view(np.float32)[0] == np.nextafter(np.float32(1), np.float32(2))
    assert found[1].view(np.float32)[0] == 1
    # MODE: nearest, all subnormals kept, DX10_CLAMP and IEEE; then round float32 up, keep subnormal float32 results.
    assert [int(row[0]) for row in found[2:]] == [0x3F0, 0x321, 0xF]


def test_subnormals_follow_a_mode_that_is_set() -> None:
    small = np.full(64, np.finfo(np.float32).tiny / 4, np.float32)
    lines = """
    v_add_f32 v20, v10, v10
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 0
    v_add_f32 v21, v10, v10
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 2), 3
    v_add_f32 v22, v10, v10
    """
    found = run_lanes(lines, [small], 3).view(np.float32)
    assert [float(row[0]) for row in found] == [2 * float(small[0]), 0.0, 2 * float(small[0])]


def test_waves_round_each_by_their_own_mode() -> None:
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    v_lshlrev_b32 v1, 2, v0
    v_readfirstlane_b32 s20, v0
    s_lshr_b32 s20, s20, 6
    v_mov_b32 v2, 0x3089705f
    s_waitcnt lgkmcnt(0)
    s_setreg_b32 hwreg(HW_REG_MODE, 0, 2), s20
    v_add_f32 v3, 1.0, v2
    v_sub_f32 v4, -1.0, v2
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 2), 0
    v_add_f32 v5, 1.0, v2
    v_cmp_eq_f32 vcc, 1.0, v5
    s_cbranch_vccz skip
    v_sub_f32 v3, v3, -v4
    global_store_dword v1, v3, s[6:7]
    skip:
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.zeros(256, np.float32), block=(256, 1, 1))[0]
    step = 2.0**-23
    # x = 1 + e rounded, y = -(1 + e) rounded, what is stored is x + y: up gives 1 + step and -1, down 1 and -1 - step.
    assert found.reshape(4, 64)[:, 0].tolist() == [0.0, step, -step, 0.0]


@pytest.mark.parametrize("line", ["v_add_f16 v20, v10, v11", "v_pk_add_f16 v20, v10, v11", "v_cvt_f16_f32 v20, v12"])
def test_results_too_large_for_float16_may_be_its_largest(line: str) -> None:
    """FP16_OVFL; infinities stay what they are."""
    a = np.array([65504.0, -65504.0, np.inf, 1.0] * 16, np.float16)
    b = np.array([65504.0, -65504.0, 1.0, 2.0] * 16, np.float16)
    sums = np.array([1e6, -1e6, np.inf, 3.0] * 16, np.float32)
    for how in ("descriptor", "s_setreg"):
        setting = "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1\n" if how == "s_setreg" else ""
        directives = ".amdhsa_fp16_overflow 1" if how == "descriptor" else ""
        found = run_lanes(f"{setting}{line}", [*words(a), *words(b), sums], directives=directives)[0]
        assert found.astype(np.uint16).view(np.float16)[:4].tolist() == [65504.0, -65504.0, np.inf, 3.0]


def test_results_too_large_for_eight_bits_may_be_the_largest() -> None:
    values = np.array([1e6, -1e6, 448.0, 1.0] * 16, np.float32)
    lines = """
    v_mov_b32 v20, 0
    v_mov_b32 v21, 0
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 23, 1), 1
    v_cvt_pk_fp8_f32 v20, v10, v10
    v_cvt_pk_bf8_f32 v21, v10, v10
    """
    found = run_lanes(lines, [values], 2)
    assert [hex(v) for v in found[0, :4] & 0xFF] == ["0x7e", "0xfe", "0x7e", "0x38"]
    assert [hex(v) for v in found[1, :4] & 0xFF] == ["0x7b", "0xfb", "0x5f", "0x3c"]


def test_chiplets_are_given_to_workgroups_in_turn() -> None:
    lines = """
    s_load_dwordx2 s[6:7], s[0:1], 0
    s_getreg_b32 s20, hwreg(HW_REG_XCC_ID)
    s_lshl_b32 s21, s2, 2
    s_waitcnt lgkmcnt(0)
    s_store_dword s20, s[6:7], s21
    s_getreg_b32 s20, hwreg(HW_REG_TRAPSTS)
    s_endpgm
    """
    found = launch(assemble(lines, pointers=1), np.full(300, 99, np.uint32), grid=(300, 1, 1))[0]
    assert found.tolist() == [i % 8 for i in range(300)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("s_getreg_b32 s20, hwreg(HW_REG_HW_ID)", "hardware register 4 is not emulated"),
        ("s_setreg_imm32_b32 hwreg(HW_REG_TRAPSTS), 0", "hardware register 3 is not written"),
    ],
)
def test_other_hardware_registers_are_refused(line: str, rule: str) -> None:
    with pytest.raises(KernelFault, match=rule):
        run_lanes(line, [np.zeros(64, np.uint32)])
