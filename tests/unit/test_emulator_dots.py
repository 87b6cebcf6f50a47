"""Dot products, sums of differences and packed bytes, lane by lane against Python's integers and exact fractions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import encodings, run_lanes

RNG = np.random.default_rng(31)
A, B, C = (RNG.integers(0, 1 << 32, 64, dtype=np.uint32) for _ in range(3))
A[:8], B[:8] = 0x7FFF7FFF, 0x80008000
C[:16] = [0x7FFFFFF0, 0x80000000, 0xFFFFFFFF, 0] * 4
ROWS = [A, B, C]
WORD = 0xFFFFFFFF


def parts(word: int, bits: int, signed: bool) -> list[int]:
    found = [word >> at & (1 << bits) - 1 for at in range(0, 32, bits)]
    return [value - (1 << bits) if signed and value >> (bits - 1) else value for value in found]


def dot(bits: int, signed: bool, clamp: bool = False) -> Callable[[int, int, int], int]:
    def truth(a: int, b: int, c: int) -> int:
        total = parts(c, 32, signed)[0]
        total += sum(x * y for x, y in zip(parts(a, bits, signed), parts(b, bits, signed), strict=True))
        if clamp:
            low, high = (-(1 << 31), (1 << 31) - 1) if signed else (0, WORD)
            total = min(max(total, low), high)
        return total & WORD

    return truth


INTEGERS = {
    "v_dot2_i32_i16": (16, True), "v_dot2_u32_u16": (16, False), "v_dot4_i32_i8": (8, True),
    "v_dot4_u32_u8": (8, False), "v_dot8_i32_i4": (4, True), "v_dot8_u32_u4": (4, False),
}  # fmt: skip
ONTO = {"v_dot2c_i32_i16": 16, "v_dot4c_i32_i8": 8, "v_dot8c_i32_i4": 4}


def expected(truth: Callable[[int, int, int], int]) -> list[int]:
    return [truth(int(a), int(b), int(c)) for a, b, c in zip(A, B, C, strict=True)]


def test_integer_dot_products() -> None:
    lines = [
        f"{name} v{20 + 2 * i}, v10, v11, v12\n{name} v{21 + 2 * i}, v10, v11, v12 clamp"
        for i, name in enumerate(INTEGERS)
    ]
    found = run_lanes("\n".join(lines), ROWS, 2 * len(INTEGERS))
    for i, (name, (bits, signed)) in enumerate(INTEGERS.items()):
        assert found[2 * i].tolist() == expected(dot(bits, signed)), name
        assert found[2 * i + 1].tolist() == expected(dot(bits, signed, clamp=True)), name


@pytest.mark.parametrize("name", ONTO)
def test_integer_dot_products_onto_the_destination(name: str) -> None:
    for form in encodings(f"{name} v20, v10, v11"):
        [found] = run_lanes(f"v_mov_b32 v20, v12\n{form}", ROWS)
        assert found.tolist() == expected(dot(ONTO[name], True))


def halves(words: npt.NDArray[np.uint32], kind: str) -> npt.NDArray[np.float64]:
    """(64, 2) numbers."""
    bits = words.view(np.uint16).reshape(64, 2)
    if kind == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(np.float16).astype(np.float64)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_float_dot_products_are_exact_where_sums_are(kind: str) -> None:
    """Small integers: no order of sums and no rounding changes them."""
    numbers = RNG.integers(-12, 13, (2, 64, 2)).astype(np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype(np.uint16) if kind == "bf16" else numbers.astype(np.float16)
    a, b = (np.ascontiguousarray(each).view(np.uint32).reshape(64) for each in bits)
    c = RNG.integers(-99, 99, 64).astype(np.float32)
    exact = [Fraction(0)] * 64
    for lane in range(64):
        pairs = zip(halves(a, kind)[lane], halves(b, kind)[lane], strict=True)
        exact[lane] = sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(float(c[lane])))
    wanted = [float(value) for value in exact]
    [found] = run_lanes(f"v_dot2_f32_{kind} v20, v10, v11, v12", [a, b, c])
    assert found.view(np.float32).tolist() == wanted
    for form in encodings(f"v_dot2c_f32_{kind} v20, v10, v11"):
        [found] = run_lanes(f"v_mov_b32 v20, v12\n{form}", [a, b, c])
        assert found.view(np.float32).tolist() == wanted


def test_float_dot_products_round_little() -> None:
    a, b = (RNG.standard_normal(128).astype(np.float16).view(np.uint32) for _ in range(2))
    c = RNG.standard_normal(64).astype(np.float32)
    [found] = run_lanes("v_dot2_f32_f16 v20, v10, v11, v12", [a, b, c])
    exact = (halves(a, "f16") * halves(b, "f16")).sum(axis=1) + c
    room = np.abs(halves(a, "f16") * halves(b, "f16")).sum(axis=1) + np.abs(c)
    assert (np.abs(found.view(np.float32) - exact) <= room * 2.0**-22).all()


def apart(a: int, b: int, bits: int, masked: bool = False) -> int:
    pairs = zip(parts(a, bits, False), parts(b, bits, False), strict=True)
    return sum(abs(x - y) for x, y in pairs if y or not masked)


BYTES: dict[str, Callable[[int, int, int], int]] = {
    "v_sad_u8": lambda a, b, c: apart(a, b, 8) + c,
    "v_sad_hi_u8": lambda a, b, c: (apart(a, b, 8) << 16) + c,
    "v_sad_u16": lambda a, b, c: apart(a, b, 16) + c,
    "v_msad_u8": lambda a, b, c: apart(a, b, 8, masked=True) + c,
    "v_lerp_u8": lambda a, b, c: sum(
        (x + y + (z & 1) >> 1) << 8 * at
        for at, (x, y, z) in enumerate(zip(*(parts(word, 8, False) for word in (a, b, c)), strict=True))
    ),
}


def test_sums_of_differences_and_means_of_bytes() -> None:
    B[::5] &= 0x00FF00FF  # bytes that are 0
    lines = [f"{name} v{20 + i}, v10, v11, v12" for i, name in enumerate(BYTES)]
    found = run_lanes("\n".join(lines), ROWS, len(BYTES))
    for got, (name, truth) in zip(found, BYTES.items(), strict=True):
        assert got.tolist() == [value & WORD for value in expected(truth)], name


def byte(value: int, signed: bool) -> int:
    low, high = (-128, 127) if signed else (0, 255)
    return min(max(value, low), high) & 0xFF


def test_numbers_are_bounded_to_bytes() -> None:
    a, b = RNG.integers(-(1 << 12), 1 << 12, (2, 64)).astype(np.int32)
    shift = RNG.integers(0, 64, 64).astype(np.uint32)
    lines = "\n".join(
        f"v_mov_b32 v{at}, 0\nv_ashr_pk_{kind}_i32 v{at}, v10, v11, v12" for at, kind in ((20, "i8"), (21, "u8"))
    )
    found = run_lanes(lines, [a, b, shift], 2) & 0xFFFF
    for row, signed in zip(found, (True, False), strict=True):
        wanted = [
            byte(int(x) >> (int(s) & 31), signed) | byte(int(y) >> (int(s) & 31), signed) << 8
            for x, y, s in zip(a, b, shift, strict=True)
        ]
        assert row.tolist() == wanted
    for form in encodings("v_sat_pk_u8_i16 v20, v10"):
        [got] = run_lanes(form, [A]) & 0xFFFF
        pairs = [parts(int(word), 16, True) for word in A]
        assert got.tolist() == [byte(low, False) | byte(high, False) << 8 for low, high in pairs]


def test_16_bit_integers() -> None:
    """Low halves; what becomes of the other half of v_add_i16 and v_sub_i16 no document says."""
    lines = "v_add_i16 v20, v10, v11\nv_sub_i16 v21, v10, v11\nv_mad_i16 v22, v10, v11, v12\n"
    lines += "v_add_i16 v23, v10, v11 clamp\nv_sub_i16 v24, v10, v11 clamp\nv_mad_i16 v25, v10, v11, v12 clamp"
    found = run_lanes(lines, ROWS, 6).astype(np.uint16).view(np.int16)
    truths = (lambda a, b, c: a + b, lambda a, b, c: a - b, lambda a, b, c: a * b + c)
    for at, truth in enumerate(truths):
        exact = [truth(*(parts(int(word), 16, True)[0] for word in words)) for words in zip(A, B, C, strict=True)]
        assert found[at].tolist() == [(value + (1 << 15)) % (1 << 16) - (1 << 15) for value in exact]
        assert found[at + 3].tolist() == [min(max(value, -(1 << 15)), (1 << 15) - 1) for value in exact]


SWIZZLES = {
    0x8000 | 0b00_01_10_11: lambda lane: lane & ~3 | 3 - lane % 4,  # a quad, reversed
    0x1F | 1 << 10: lambda lane: lane ^ 1,
    0x1F | 16 << 10: lambda lane: lane ^ 16,
    0x10 | 3 << 5: lambda lane: lane & 32 | lane & 16 | 3,  # broadcast of lane 3 of each 16
    0xC000 | 5 << 5: lambda lane: lane & 32 | (lane + 5) % 32,
    0xC000 | 1 << 10 | 5 << 5: lambda lane: lane & 32 | (lane - 5) % 32,
}


@pytest.mark.parametrize("pattern", SWIZZLES)
def test_lanes_read_others_by_a_pattern(pattern: int) -> None:
    [found] = run_lanes(f"ds_swizzle_b32 v20, v10 offset:{pattern}\ns_waitcnt lgkmcnt(0)", [A])
    assert found.tolist() == [int(A[SWIZZLES[pattern](lane)]) for lane in range(64)]
    lines = f"v_mov_b32 v20, 7\ns_mov_b64 exec, 0xffff\nds_swizzle_b32 v20, v10 offset:{pattern}\ns_waitcnt lgkmcnt(0)"
    [found] = run_lanes(f"{lines}\ns_mov_b64 exec, -1", [A])
    for lane in range(16):
        origin = SWIZZLES[pattern](lane)
        assert found[lane] == (A[origin] if origin < 16 else 0)
    assert (found[16:] == 7).all()


def test_truth_tables_of_16_bits() -> None:
    """Low halves; entry abc of the table is bit 4a + 2b + c."""
    tables = (0b11001010, 0b01101000, 0x1E)
    lines = "\n".join(f"v_bitop3_b16 v{20 + i}, v10, v11, v12 bitop3:{table:#x}" for i, table in enumerate(tables))
    found = run_lanes(lines, ROWS, len(tables)) & 0xFFFF
    for row, table in zip(found, tables, strict=True):
        for lane in range(64):
            a, b, c = (int(words[lane]) for words in ROWS)
            bits = (table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1 for i in range(16))
            assert row[lane] == sum(bit << i for i, bit in enumerate(bits))


def test_least_and_greatest_of_three_packed_halves() -> None:
    rows = RNG.standard_normal((3, 128)).astype(np.float16)
    rows[0, :9], rows[1, 9:18] = np.nan, np.inf
    words = [np.ascontiguousarray(row).view(np.uint32) for row in rows]
    found = run_lanes("v_pk_minimum3_f16 v20, v10, v11, v12\nv_pk_maximum3_f16 v21, v10, v11, v12", words, 2)
    for row, rule in zip(found, (np.min, np.max), strict=True):
        got = np.ascontiguousarray(row).view(np.float16)
        np.testing.assert_array_equal(got, rule(rows, axis=0))  # of numpy, too, a NaN comes out
