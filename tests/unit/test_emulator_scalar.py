"""Scalar instructions against plain integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gfx950_code import run_lanes, run_scalar

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
VALUES = (0, 1, 2, 31, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678, 0xDEADBEEF)
PAIRS = [(a, b) for a in VALUES for b in (0, 1, 5, 0x7FFFFFFF, 0x80000001, 0xFFFFFFFE)]


def signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def field(value: int, control: int, bits: int, extends: bool) -> int:
    offset, width = control & (bits - 1), control >> 16 & 0x7F
    part = (value >> offset) & ((1 << width) - 1)
    return part - (1 << width) if extends and width and part >> (width - 1) else part


def overflows(value: int) -> bool:
    return not -(1 << 31) <= value < 1 << 31


Two = Callable[[int, int], tuple[int, "bool | None"]]
# name -> (result, SCC or None where SCC is left alone) of two 32-bit sources
BINARY: dict[str, Two] = {
    "s_add_u32": lambda a, b: (a + b, a + b > M32),
    "s_sub_u32": lambda a, b: (a - b, b > a),
    "s_add_i32": lambda a, b: (a + b, overflows(signed(a) + signed(b))),
    "s_sub_i32": lambda a, b: (a - b, overflows(signed(a) - signed(b))),
    "s_min_i32": lambda a, b: (min(signed(a), signed(b)), signed(a) < signed(b)),
    "s_max_u32": lambda a, b: (max(a, b), a > b),
    "s_and_b32": lambda a, b: (a & b, a & b != 0),
    "s_orn2_b32": lambda a, b: (a | ~b, (a | ~b) & M32 != 0),
    "s_xnor_b32": lambda a, b: (~(a ^ b), ~(a ^ b) & M32 != 0),
    "s_lshl_b32": lambda a, b: (a << (b & 31), a << (b & 31) & M32 != 0),
    "s_lshr_b32": lambda a, b: (a >> (b & 31), a >> (b & 31) != 0),
    "s_ashr_i32": lambda a, b: (signed(a) >> (b & 31), signed(a) >> (b & 31) != 0),
    "s_bfm_b32": lambda a, b: (((1 << (a & 31)) - 1) << (b & 31), None),
    "s_mul_i32": lambda a, b: (a * b, None),
    "s_mul_hi_u32": lambda a, b: (a * b >> 32, None),
    "s_mul_hi_i32": lambda a, b: (signed(a) * signed(b) >> 32, None),
    "s_lshl2_add_u32": lambda a, b: ((a << 2) + b, (a << 2) + b > M32),
    "s_absdiff_i32": lambda a, b: (abs(signed(a - b & M32)), a != b),
    "s_pack_lh_b32_b16": lambda a, b: (a & 0xFFFF | b & 0xFFFF0000, None),
    "s_pack_hh_b32_b16": lambda a, b: (a >> 16 | b & 0xFFFF0000, None),
}


def run_many(cases: list[str]) -> list[int]:
    """Each case leaves s18 (result) and SCC, and starts with SCC set; both are collected into one word list."""
    lines = []
    for i, case in enumerate(cases):
        lines += ["s_cmp_eq_u32 0, 0", case, "s_cselect_b32 s19, 1, 0"]
        lines += [f"v_mov_b32 v{20 + 2 * i}, s18", f"v_mov_b32 v{21 + 2 * i}, s19"]
    return [int(row[0]) for row in run_lanes("\n".join(lines), (), 2 * len(cases))]


@pytest.mark.parametrize("name", BINARY)
def test_operations_on_two_words(name: str) -> None:
    cases = [f"s_mov_b32 s10, {a:#x}\ns_mov_b32 s11, {b:#x}\n{name} s18, s10, s11" for a, b in PAIRS]
    found = run_many(cases)
    for i, (a, b) in enumerate(PAIRS):
        result, scc = BINARY[name](a, b)
        expected = (result & M32, 1 if scc is None else int(scc))
        assert (found[2 * i], found[2 * i + 1]) == expected, f"{name} {a:#x} {b:#x}"


@pytest.mark.parametrize("control", [0x80004, 0x200000, 0x10001F, 0x70019, 5])
@pytest.mark.parametrize("kind", ["u", "i"])
def test_bit_fields(control: int, kind: str) -> None:
    values = [0xDEADBEEF, 0x7FFFFFFF, 0x80000001]
    cases = [f"s_mov_b32 s10, {a:#x}\ns_mov_b32 s11, {control:#x}\ns_bfe_{kind}32 s18, s10, s11" for a in values]
    found = run_many(cases)
    for i, a in enumerate(values):
        wide = a if kind == "u" else signed(a)
        expected = field(wide, control, 32, kind == "i") & M32
        assert (found[2 * i], found[2 * i + 1]) == (expected, int(expected != 0))


UNARY: dict[str, Callable[[int], int]] = {
    "s_not_b32": lambda a: ~a,
    "s_brev_b32": lambda a: int(f"{a:032b}"[::-1], 2),
    "s_bcnt1_i32_b32": lambda a: bin(a).count("1"),
    "s_ff1_i32_b32": lambda a: (a & -a).bit_length() - 1,
    "s_flbit_i32_b32": lambda a: 32 - a.bit_length() if a else -1,
    "s_flbit_i32": lambda a: 32 - (a if a < 1 << 31 else ~a & M32).bit_length() if a not in (0, M32) else -1,
    "s_sext_i32_i8": lambda a: signed(a & 0xFF, 8),
    "s_sext_i32_i16": lambda a: signed(a & 0xFFFF, 16),
    "s_abs_i32": lambda a: abs(signed(a)),
}


@pytest.mark.parametrize("name", UNARY)
def test_operations_on_one_word(name: str) -> None:
    found = run_many([f"s_mov_b32 s10, {a:#x}\n{name} s18, s10" for a in VALUES])
    assert found[::2] == [UNARY[name](a) & M32 for a in VALUES]


def test_carries_chain_into_64_bits() -> None:
    a, b = 0x1_FFFF_FFFF, 0xABCD_0000_0001
    lines = f"""
    s_mov_b32 s10, {a & M32:#x}
    s_mov_b32 s11, {a >> 32:#x}
    s_mov_b32 s12, {b & M32:#x}
    s_mov_b32 s13, {b >> 32:#x}
    s_add_u32 s20, s10, s12
    s_addc_u32 s21, s11, s13
    s_sub_u32 s22, s10, s12
    s_subb_u32 s23, s11, s13
    """
    found = run_scalar(lines, 4)
    assert found[0] | found[1] << 32 == a + b
    assert found[2] | found[3] << 32 == (a - b) & M64


def test_64_bit_shifts_and_logic() -> None:
    value = 0x8123_4567_89AB_CDEF
    lines = f"""
    s_mov_b32 s10, {value & M32:#x}
    s_mov_b32 s11, {value >> 32:#x}
    s_lshl_b64 s[20:21], s[10:11], 20
    s_lshr_b64 s[22:23], s[10:11], 36
    s_ashr_i64 s[24:25], s[10:11], 36
    s_andn2_b64 s[26:27], s[10:11], 0xff
    s_bcnt1_i32_b64 s28, s[10:11]
    s_ff1_i32_b64 s29, s[10:11]
    """
    found = run_scalar(lines, 10)
    wide = [found[i] | found[i + 1] << 32 for i in range(0, 8, 2)]
    assert wide == [value << 20 & M64, value >> 36, (signed(value, 64) >> 36) & M64, value & ~0xFF]
    assert found[8:] == [bin(value).count("1"), 0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("s_cmp_gt_i32 s10, 1", False),
        ("s_cmp_gt_u32 s10, 1", True),
        ("s_cmp_lg_u64 s[10:11], 0", True),
        ("s_cmpk_eq_i32 s10, 0xfffe", True),
        ("s_cmpk_lt_u32 s10, 0xfffe", False),
        ("s_bitcmp1_b32 s10, 0", False),
        ("s_bitcmp0_b32 s10, 32", True),
    ],
)
def test_comparisons(line: str, expected: bool) -> None:
    lines = f"s_mov_b32 s10, -2\ns_mov_b32 s11, 0\n{line}\ns_cselect_b32 s20, 7, 9"
    assert run_scalar(lines) == [7 if expected else 9]


def test_immediate_forms() -> None:
    lines = "s_movk_i32 s20, 0x8001\ns_mov_b32 s21, 5\ns_addk_i32 s21, -7\ns_mov_b32 s22, -3\ns_mulk_i32 s22, 9"
    assert [signed(value) for value in run_scalar(lines, 3)] == [-32767, -2, -27]
