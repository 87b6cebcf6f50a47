"""Vector instructions against exact arithmetic on Python integers and fractions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from gfx950_code import Words, encodings, run_lanes

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
RNG = np.random.default_rng(950)
A, B, C = (RNG.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(3))
A[:4], B[:4], C[:4] = (0, M32, 0x80000000, 1), (0, 1, 0x7FFFFFFF, 31), (M32, 0, 5, 0x80000000)


def signed(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def sign24(value: int) -> int:
    return signed(value, 24)


def byte_permute(a: int, b: int, selector: int) -> int:
    data = (a << 32 | b).to_bytes(8, "little")
    out = []
    for pick in selector.to_bytes(4, "little"):
        if pick < 8:
            out.append(data[pick])
        elif pick < 12:
            out.append(0xFF if data[2 * (pick - 8) + 1] & 0x80 else 0)
        else:
            out.append(0 if pick == 12 else 0xFF)
    return int.from_bytes(bytes(out), "little")


INTEGER: dict[str, Callable[..., int]] = {
    "v_add_u32 v20, v10, v11": lambda a, b: a + b,
    "v_sub_u32 v20, v10, v11": lambda a, b: a - b,
    "v_subrev_u32 v20, v10, v11": lambda a, b: b - a,
    "v_sub_u32 v20, 64, v10": lambda a: 64 - a,
    "v_and_b32 v20, 0xff00ff, v10": lambda a: 0xFF00FF & a,
    "v_and_b32 v20, v10, v11": lambda a, b: a & b,
    "v_or_b32 v20, v10, v11": lambda a, b: a | b,
    "v_mov_b32 v20, v11": lambda a, b: b,
    "v_nop\nv_mov_b32 v20, v11": lambda a, b: b,
    "v_add_i32 v20, v10, v11": lambda a, b: a + b,
    "v_sub_i32 v20, v10, v11": lambda a, b: a - b,
    "v_xor_b32 v20, v10, v11": lambda a, b: a ^ b,
    "v_xnor_b32 v20, v10, v11": lambda a, b: ~(a ^ b),
    "v_not_b32 v20, v10": lambda a: ~a,
    "v_or3_b32 v20, v10, v11, v12": lambda a, b, c: a | b | c,
    "v_and_or_b32 v20, v10, v11, v12": lambda a, b, c: a & b | c,
    "v_bfi_b32 v20, v10, v11, v12": lambda a, b, c: a & b | ~a & c,
    "v_bfe_u32 v20, v10, v11, v12": lambda a, b, c: a >> (b & 31) & (1 << (c & 31)) - 1,
    "v_bfe_i32 v20, v10, 4, 9": lambda a: signed(a >> 4, 9),
    "v_bfm_b32 v20, v10, v11": lambda a, b: (1 << (a & 31)) - 1 << (b & 31),
    "v_bitop3_b32 v20, v10, v11, v12 bitop3:0x6a": lambda a, b, c: (a & b) ^ c,
    "v_lshlrev_b32 v20, v10, v11": lambda a, b: b << (a & 31),
    "v_lshrrev_b32 v20, v10, v11": lambda a, b: b >> (a & 31),
    "v_ashrrev_i32 v20, v10, v11": lambda a, b: signed(b) >> (a & 31),
    "v_lshl_add_u32 v20, v10, v11, v12": lambda a, b, c: (a << (b & 31)) + c,
    "v_add_lshl_u32 v20, v10, v11, v12": lambda a, b, c: (a + b & M32) << (c & 31),
    "v_lshl_or_b32 v20, v10, v11, v12": lambda a, b, c: a << (b & 31) | c,
    "v_add3_u32 v20, v10, v11, v12": lambda a, b, c: a + b + c,
    "v_xad_u32 v20, v10, v11, v12": lambda a, b, c: (a ^ b) + c,
    "v_sad_u32 v20, v10, v11, v12": lambda a, b, c: abs(a - b) + c,
    "v_alignbit_b32 v20, v10, v11, v12": lambda a, b, c: (a << 32 | b) >> (c & 31),
    "v_alignbyte_b32 v20, v10, v11, v12": lambda a, b, c: (a << 32 | b) >> 8 * (c & 3),
    "v_mul_lo_u32 v20, v10, v11": lambda a, b: a * b,
    "v_mul_hi_u32 v20, v10, v11": lambda a, b: a * b >> 32,
    "v_mul_hi_i32 v20, v10, v11": lambda a, b: signed(a) * signed(b) >> 32,
    "v_mul_u32_u24 v20, v10, v11": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "v_mul_hi_u32_u24 v20, v10, v11": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 32,
    "v_mul_i32_i24 v20, v10, v11": lambda a, b: sign24(a) * sign24(b),
    "v_mul_hi_i32_i24 v20, v10, v11": lambda a, b: sign24(a) * sign24(b) >> 32,
    "v_mad_u32_u24 v20, v10, v11, v12": lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c,
    "v_mad_i32_i24 v20, v10, v11, v12": lambda a, b, c: sign24(a) * sign24(b) + c,
    "v_mad_u32_u16 v20, v10, v11, v12": lambda a, b, c: (a & 0xFFFF) * (b & 0xFFFF) + c,
    "v_mad_i32_i16 v20, v10, v11, v12": lambda a, b, c: signed(a, 16) * signed(b, 16) + c,
    "v_min_i32 v20, v10, v11": lambda a, b: min(signed(a), signed(b)),
    "v_max_i32 v20, v10, v11": lambda a, b: max(signed(a), signed(b)),
    "v_min_u32 v20, v10, v11": lambda a, b: min(a, b),
    "v_max_u32 v20, v10, v11": lambda a, b: max(a, b),
    "v_min3_u32 v20, v10, v11, v12": lambda a, b, c: min(a, b, c),
    "v_max3_i32 v20, v10, v11, v12": lambda a, b, c: max(signed(a), signed(b), signed(c)),
    "v_med3_i32 v20, v10, v11, v12": lambda a, b, c: sorted(map(signed, (a, b, c)))[1],
    "v_bcnt_u32_b32 v20, v10, v11": lambda a, b: bin(a).count("1") + b,
    "v_bfrev_b32 v20, v10": lambda a: int(f"{a:032b}"[::-1], 2),
    "v_ffbh_u32 v20, v10": lambda a: 32 - a.bit_length() if a else -1,
    "v_ffbh_i32 v20, v10": lambda a: 32 - (a if a < 1 << 31 else ~a & M32).bit_length() if a not in (0, M32) else -1,
    "v_ffbl_b32 v20, v10": lambda a: (a & -a).bit_length() - 1,
    "v_add_u16 v20, v10, v11": lambda a, b: a + b & 0xFFFF,
    "v_sub_u16 v20, v10, v11": lambda a, b: a - b & 0xFFFF,
    "v_subrev_u16 v20, v10, v11": lambda a, b: b - a & 0xFFFF,
    "v_lshlrev_b16 v20, v10, v11": lambda a, b: b << (a & 15) & 0xFFFF,
    "v_lshrrev_b16 v20, v10, v11": lambda a, b: (b & 0xFFFF) >> (a & 15),
    # Of the 16-bit sums of products, the older clears the high half and the newer leaves it alone.
    "v_mov_b32 v20, v12\nv_mad_legacy_u16 v20, v10, v11, v12": lambda a, b, c: a * b + c & 0xFFFF,
    "v_mov_b32 v20, v12\nv_mad_u16 v20, v10, v11, v12": lambda a, b, c: a * b + c & 0xFFFF | c & 0xFFFF0000,
    "v_mov_b32 v20, v12\nv_mad_u16 v20, v10, v11, v12 op_sel:[0,1,0,1]": lambda a, b, c: (
        a * (b >> 16) + c << 16 | c & 0xFFFF
    ),
    "v_mul_lo_u16 v20, v10, v11": lambda a, b: a * b & 0xFFFF,
    "v_ashrrev_i16 v20, v10, v11": lambda a, b: signed(b, 16) >> (a & 15) & 0xFFFF,
    "v_cvt_pk_u16_u32 v20, v10, v11": lambda a, b: min(a, 0xFFFF) | min(b, 0xFFFF) << 16,
    "v_pack_b32_f16 v20, v10, v11 op_sel:[1,0]": lambda a, b: a >> 16 | b << 16,
    "v_cvt_pk_i16_i32 v20, v10, v11": lambda a, b: sum(
        (min(max(signed(x), -32768), 32767) & 0xFFFF) << 16 * i for i, x in enumerate((a, b))
    ),
    "v_pk_add_u16 v20, v10, v11": lambda a, b: a + b & 0xFFFF | (a >> 16) + (b >> 16) << 16,
    "v_pk_sub_i16 v20, v10, v11 op_sel:[1,0] op_sel_hi:[0,1]": lambda a, b: (
        (a >> 16) - b & 0xFFFF | (a - (b >> 16)) << 16
    ),
    "v_add_u32_sdwa v20, v10, sext(v11) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_1 src1_sel:WORD_1": (
        lambda a, b: (a >> 8 & 0xFF) + signed(b >> 16, 16)
    ),
    "v_mov_b32 v20, v12\nv_or_b32_sdwa v20, v10, v11 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_0 "
    "src1_sel:BYTE_3": lambda a, b, c: c & 0xFFFF | (a & 0xFF | b >> 24) << 16,
}


def run_each(lines: list[str], rows: tuple[Words, ...], results: int = 1) -> Words:
    """Every snippet in one program: each writes v20 (and v21), which move out of the way."""
    program = []
    for i, line in enumerate(lines):
        program.append(line)
        program += [f"v_mov_b32 v{40 + results * i + j}, v{20 + j}" for j in range(results)]
    program += [f"v_mov_b32 v{20 + i}, v{40 + i}" for i in range(results * len(lines))]
    return run_lanes("\n".join(program), rows, results * len(lines))


def given(truth: Callable[..., int], lane: tuple[np.uint32, ...]) -> int:
    """`truth` of as many of the lane's words as it takes."""
    return truth(*map(int, lane[: truth.__code__.co_argcount]))


def test_integer_operations() -> None:
    cases = [(line, truth) for snippet, truth in INTEGER.items() for line in encodings(snippet)]
    found = run_each([line for line, _ in cases], (A, B, C))
    for row, (line, truth) in zip(found, cases, strict=True):
        expected = [given(truth, lane) & M32 for lane in zip(A, B, C, strict=True)]
        assert row.tolist() == expected, line


def test_byte_permute() -> None:
    selector = RNG.integers(0, 15, (64, 4), dtype=np.uint8).view(np.uint32)[:, 0]
    found = run_lanes("v_perm_b32 v20, v10, v11, v12", (A, B, selector))[0]
    assert found.tolist() == [byte_permute(*map(int, lane)) for lane in zip(A, B, selector, strict=True)]


WIDE: dict[str, Callable[..., int]] = {
    "v_lshlrev_b64 v[20:21], v12, v[10:11]": lambda a, b, c: (b << 32 | a) << (c & 63),
    "v_lshrrev_b64 v[20:21], v12, v[10:11]": lambda a, b, c: (b << 32 | a) >> (c & 63),
    "v_ashrrev_i64 v[20:21], v12, v[10:11]": lambda a, b, c: signed(b << 32 | a, 64) >> (c & 63),
    "v_lshl_add_u64 v[20:21], v[10:11], 3, v[10:11]": lambda a, b: (b << 32 | a) * 9,
    "v_lshl_add_u64 v[20:21], v[10:11], 5, v[10:11]": lambda a, b: (b << 32 | a) * 2,  # more than 4 counts as none
    "v_pk_mov_b32 v[20:21], v[10:11], v[10:11] op_sel:[1,0]": lambda a, b: b | a << 32,
    "v_pk_mov_b32 v[20:21], v[10:11], v[12:13] op_sel:[0,0]": lambda a, b, c: a | c << 32,
    "v_mad_u64_u32 v[20:21], s[10:11], v10, v12, v[10:11]": lambda a, b, c: a * c + (b << 32 | a),
    "v_mad_i64_i32 v[20:21], s[10:11], v10, v12, v[10:11]": lambda a, b, c: signed(a) * signed(c) + (b << 32 | a),
    "v_mov_b64 v[20:21], v[10:11]": lambda a, b: b << 32 | a,
    "v_add_co_u32 v20, vcc, v10, v12\nv_addc_co_u32 v21, vcc, v11, v11, vcc": lambda a, b, c: (
        a + c & M32 | (b + b + (a + c >> 32)) << 32
    ),
    "v_sub_co_u32 v20, vcc, v10, v12\nv_subbrev_co_u32 v21, vcc, v11, v12, vcc": lambda a, b, c: (
        a - c & M32 | (c - b - (c > a)) << 32
    ),
    "v_subrev_co_u32 v20, vcc, v10, v12\nv_subb_co_u32 v21, vcc, v11, v12, vcc": lambda a, b, c: (
        c - a & M32 | (b - c - (a > c)) << 32
    ),
}


def test_64_bit_operations() -> None:
    cases = [(line, truth) for snippet, truth in WIDE.items() for line in encodings(snippet)]
    found = run_each([line for line, _ in cases], (A, B, C), results=2)
    for i, (line, truth) in enumerate(cases):
        expected = [given(truth, lane) & M64 for lane in zip(A, B, C, strict=True)]
        assert [int(low) | int(high) << 32 for low, high in zip(*found[2 * i : 2 * i + 2], strict=True)] == expected, (
            line
        )


def float32_of(exact: Fraction) -> float:
    """`exact` rounded to the nearest float32, ties to even; finite normal or subnormal results only."""
    if not exact:
        return 0.0
    exponent = max(math.floor(math.log2(abs(exact))) - 24, -149) - 2
    while abs(exact) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    exponent = max(exponent, -149)
    return float(round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent)


def close_cases() -> tuple[Words, Words, Words]:
    """Factors and addends whose exact sums lie near the middle between two float32 values."""
    a = RNG.standard_normal(64).astype(np.float32)
    b = RNG.standard_normal(64).astype(np.float32)
    c = (-(a.astype(np.float64) * b) * (1 + RNG.standard_normal(64) * 1e-7)).astype(np.float32)
    c[::3] = (RNG.standard_normal(22) * 1e8).astype(np.float32)
    a[:3], b[:3], c[:3] = 1 + 2**-12, 1 + 2**-12, (2**-80, -(2**-80), 2.0**30)
    a[3:5], b[3:5], c[3:5] = 2.0**-100, 2.0**-45, (2.0**-149, -(2.0**-126))
    return a, b, c


def test_fused_multiply_add_rounds_once() -> None:
    a, b, c = close_cases()
    lines = ["v_fma_f32 v20, -v10, |v11|, v12", "v_fma_f32 v20, v10, v11, v12"]
    lines += encodings("v_mov_b32 v20, v12\nv_fmac_f32 v20, v10, v11")
    found = run_each(lines, (a, b, c)).view(np.float32)
    exact = [tuple(map(Fraction, map(float, lane))) for lane in zip(a, b, c, strict=True)]
    plain = [float32_of(x * y + z) for x, y, z in exact]
    assert found[0].tolist() == [float32_of(-x * abs(y) + z) for x, y, z in exact]
    assert found[1:].tolist() == [plain] * 3


FLOATS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "v_add_f32 v20, v10, v11": lambda x, y: x + y,
    "v_mul_f32 v20, v10, v11": lambda x, y: x * y,
    "v_sub_f32 v20, v10, v11": lambda x, y: x - y,
    "v_subrev_f32 v20, v10, v11": lambda x, y: y - x,
    "v_add_f32_e64 v20, v10, -|v11| mul:4": lambda x, y: x - abs(y),  # IEEE mode ignores output scaling
    "v_add_f32_e64 v20, v10, v11 clamp": lambda x, y: min(max(x + y, Fraction(0)), Fraction(1)),
    "v_fmaak_f32 v20, v10, v11, 0x3fc00000": lambda x, y: x * y + Fraction(3, 2),
    "v_pk_mul_f32 v[20:21], v[10:11], v[10:11] op_sel:[0,1] op_sel_hi:[1,1]": lambda x, y: x * y,
}


def test_float_arithmetic_and_modifiers() -> None:
    a, b, c = close_cases()
    cases = [(line, truth) for snippet, truth in FLOATS.items() for line in encodings(snippet)]
    found = run_each([line for line, _ in cases], (a, b, c), results=2)[::2].view(np.float32)
    exact = [(Fraction(float(x)), Fraction(float(y))) for x, y in zip(a, b, strict=True)]
    for row, (line, truth) in zip(found, cases, strict=True):
        assert row.tolist() == [float32_of(truth(*lane)) for lane in exact], line


def test_float_specials_keep_ieee_rules() -> None:
    inf, nan = math.inf, math.nan
    a = np.array([inf, nan, 1.0, -0.0, inf, 3.0] + [0.0] * 58, np.float32)
    b = np.array([-inf, 1.0, nan, 0.0, 0.0, 2.0] + [0.0] * 58, np.float32)
    found = run_each(
        [
            "v_min_f32 v20, v10, v11",
            "v_max_f32 v20, v10, v11",
            "v_mul_f32 v20, v10, v11",
            "v_rcp_f32 v20, v10",
            "v_minimum3_f32 v20, v10, v11, v11",
        ],
        (a, b),
    ).view(np.float32)[:, :6]
    assert found[0].tolist() == [-inf, 1.0, 1.0, 0.0, 0.0, 2.0]
    assert found[1].tolist() == [inf, 1.0, 1.0, 0.0, inf, 3.0]
    assert math.isnan(found[2][4])
    assert found[3].tolist()[2:5] == [1.0, -inf, 0.0]
    assert np.isnan(found[4]).tolist() == [False, True, True, False, False, False]


def test_bf16_conversion_rounds_to_nearest_even() -> None:
    bits = RNG.integers(0, 1 << 32, 64, dtype=np.uint32)
    bits[:6] = (0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7FA00001, 0x80000001)
    found = run_lanes("v_cvt_pk_bf16_f32 v20, v10, v11", (bits, bits[::-1]))[0]

    def narrow(word: int) -> int:
        if word & 0x7FFFFFFF > 0x7F800000:
            return word >> 16 | 0x40
        low, high = word & 0xFFFF, word >> 16
        return high + (low > 0x8000 or (low == 0x8000 and high & 1))

    assert found.tolist() == [narrow(int(x)) | narrow(int(y)) << 16 for x, y in zip(bits, bits[::-1], strict=True)]


def test_conversions_clamp_and_truncate() -> None:
    values = np.array([1.9, -1.9, 3e9, -3e9, 5e9, math.nan, math.inf, 0.5] + [0.0] * 56, np.float32)
    found = run_each(["v_cvt_i32_f32 v20, v10", "v_cvt_u32_f32 v20, v10"], (values,))[:, :8]
    assert [signed(int(word)) for word in found[0]] == [1, -1, 2**31 - 1, -(2**31), 2**31 - 1, 0, 2**31 - 1, 0]
    assert found[1].tolist() == [1, 0, 3_000_000_000, 0, M32, 0, M32, 0]


def test_integers_become_floats() -> None:
    found = run_each(["v_cvt_f32_u32 v20, v10", "v_cvt_f32_i32 v20, v10", "v_cvt_f32_ubyte2 v20, v10"], (A,))
    exact = [float32_of(Fraction(int(a))) for a in A]
    assert found[0].view(np.float32).tolist() == exact
    assert found[1].view(np.float32).tolist() == [float32_of(Fraction(signed(int(a)))) for a in A]
    assert found[2].view(np.float32).tolist() == [float(int(a) >> 16 & 0xFF) for a in A]


def test_half_precision() -> None:
    values = (RNG.standard_normal(64) * 100).astype(np.float32)
    lines = [
        "v_cvt_f16_f32 v20, v10",
        "v_cvt_f16_f32 v20, v10\nv_cvt_f32_f16 v20, v20",
        "v_cvt_pkrtz_f16_f32 v20, v10, 0",
    ]
    found = run_each(lines, (values,))
    narrow = [struct.unpack("<H", struct.pack("<e", float(value)))[0] for value in values]
    assert found[0].tolist() == narrow
    assert found[1].view(np.float32).tolist() == [struct.unpack("<e", struct.pack("<H", half))[0] for half in narrow]
    chopped = [struct.unpack("<e", struct.pack("<H", int(word)))[0] for word in found[2]]
    for value, half in zip(values.tolist(), chopped, strict=True):
        assert abs(half) <= abs(value) < abs(half) * (1 + 2**-10)


@pytest.mark.parametrize("kind", ["u32", "i32"])
@pytest.mark.parametrize("test", ["lt", "eq", "le", "gt", "ne", "ge"])
def test_integer_comparisons_fill_a_mask(kind: str, test: str) -> None:
    a, b = A.copy(), np.where(np.arange(64) % 3 == 0, A, B)
    found = run_lanes(f"v_cmp_{test}_{kind} s[10:11], v10, v11\nv_mov_b32 v20, s10\nv_mov_b32 v21, s11", (a, b), 2)
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    rule = {"lt": int.__lt__, "eq": int.__eq__, "le": int.__le__, "gt": int.__gt__, "ne": int.__ne__, "ge": int.__ge__}
    lanes = [rule[test](*(pair if kind == "u32" else map(signed, pair))) for pair in pairs]
    mask = sum(1 << lane for lane, value in enumerate(lanes) if value)
    assert int(found[0][0]) | int(found[1][0]) << 32 == mask


def test_float_comparisons_and_classes() -> None:
    a = np.array([1.0, math.nan, -0.0, math.inf, -math.inf, 1e-40, -2.0, 0.0] * 8, np.float32)
    tests = ["lt_f32 vcc, v10, v12", "nlt_f32 vcc, v10, v12", "u_f32 vcc, v10, v10", "lg_f32 vcc, 0, v10"]
    tests.append("class_f32 vcc, v10, v11")
    lines = [f"v_cmp_{test}\nv_cndmask_b32_e64 v20, 0, 1, vcc" for test in tests]
    wanted = np.full(64, 1 << 2 | 1 << 5 | 1 << 7 | 1 << 1, np.uint32)  # -inf, -0, +subnormal, quiet NaN
    found = run_each(lines, (a, wanted, np.ones(64, np.float32)))[:, :8]
    assert found.tolist() == [
        [0, 0, 1, 0, 1, 1, 1, 1],
        [1, 1, 0, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 1, 1, 0, 0],
    ]
