"""Bits, fields, masks and short comparisons of scalars, and EXEC combined with them: against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gfx950_code import run_lanes, run_scalar

A, B = 0x8000F00F, 0x00FF1234
WIDE_A, WIDE_B = 0x80000000_0F0F00FF, 0x00FF00FF_F000000F
M32, M64 = (1 << 32) - 1, (1 << 64) - 1


def set_wide() -> str:
    words = [WIDE_A & M32, WIDE_A >> 32, WIDE_B & M32, WIDE_B >> 32]
    return "\n".join(f"s_mov_b32 s{30 + i}, {word:#x}" for i, word in enumerate(words))


def signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


BINARY: dict[str, Callable[[int, int], int]] = {
    "s_andn2_b32": lambda a, b: a & ~b,
    "s_nand_b32": lambda a, b: ~(a & b),
    "s_nor_b32": lambda a, b: ~(a | b),
    "s_xor_b32": lambda a, b: a ^ b,
    "s_min_u32": min,
    "s_max_i32": lambda a, b: max(signed(a), signed(b)),
    "s_lshl3_add_u32": lambda a, b: (a << 3) + b,
    "s_lshl4_add_u32": lambda a, b: (a << 4) + b,
    "s_pack_ll_b32_b16": lambda a, b: (a & 0xFFFF) | (b & 0xFFFF) << 16,
}
BINARY_WIDE: dict[str, Callable[[int, int], int]] = {
    "s_nand_b64": lambda a, b: ~(a & b),
    "s_nor_b64": lambda a, b: ~(a | b),
    "s_xnor_b64": lambda a, b: ~(a ^ b),
}
UNARY: dict[str, Callable[[int], int]] = {
    "s_bcnt0_i32_b32": lambda a: 32 - bin(a).count("1"),
    "s_ff0_i32_b32": lambda a: next((i for i in range(32) if not a >> i & 1), -1),
}
UNARY_WIDE: dict[str, tuple[Callable[[int], int], int]] = {
    "s_bcnt0_i32_b64": (lambda a: 64 - bin(a).count("1"), 1),
    "s_ff0_i32_b64": (lambda a: next((i for i in range(64) if not a >> i & 1), -1), 1),
    "s_flbit_i32_i64": (lambda a: next((i for i in range(1, 64) if a >> 63 - i & 1 != a >> 63), -1), 1),
    "s_flbit_i32_b64": (lambda a: 64 - a.bit_length() if a else -1, 1),
    "s_not_b64": (lambda a: ~a, 2),
    "s_brev_b64": (lambda a: int(f"{a:064b}"[::-1], 2), 2),
}
COMPARED: dict[str, Callable[[int, int], bool]] = {
    "eq_i32": lambda a, b: a == b,
    "lg_i32": lambda a, b: a != b,
    "ge_i32": lambda a, b: a >= b,
    "le_i32": lambda a, b: a <= b,
    "le_u32": lambda a, b: a & M32 <= b & M32,
}


def test_two_operands() -> None:
    lines = [f"s_mov_b32 s10, {A:#x}\ns_mov_b32 s11, {B:#x}"]
    lines += [f"{name} s{20 + i}, s10, s11" for i, name in enumerate(BINARY)]
    expected = [operation(A, B) & M32 for operation in BINARY.values()]
    assert run_scalar("\n".join(lines), len(BINARY)) == expected


def test_two_wide_operands() -> None:
    lines = [
        set_wide(),
        *(f"{name} s[{20 + 2 * i}:{21 + 2 * i}], s[30:31], s[32:33]" for i, name in enumerate(BINARY_WIDE)),
    ]
    found = run_scalar("\n".join(lines), 2 * len(BINARY_WIDE))
    for i, (name, operation) in enumerate(BINARY_WIDE.items()):
        assert found[2 * i] | found[2 * i + 1] << 32 == operation(WIDE_A, WIDE_B) & M64, name


def test_one_operand() -> None:
    lines = [f"s_mov_b32 s10, {A:#x}", *(f"{name} s{20 + i}, s10" for i, name in enumerate(UNARY))]
    assert run_scalar("\n".join(lines), len(UNARY)) == [operation(A) & M32 for operation in UNARY.values()]


@pytest.mark.parametrize("name", UNARY_WIDE)
def test_one_wide_operand(name: str) -> None:
    operation, words = UNARY_WIDE[name]
    target = "s[20:21]" if words == 2 else "s20"
    found = run_scalar(f"{set_wide()}\n{name} {target}, s[30:31]", words)
    got = sum(word << 32 * i for i, word in enumerate(found))
    assert got == operation(WIDE_A) & (M64 if words == 2 else M32)


@pytest.mark.parametrize("pair", [(-5, 7), (7, -5), (7, 7), (0, -1)])
def test_comparisons_and_conditional_moves(pair: tuple[int, int]) -> None:
    a, b = pair
    lines = [f"s_mov_b32 s10, {a & M32:#x}\ns_mov_b32 s11, {b & M32:#x}"]
    for i, name in enumerate(COMPARED):
        lines += [f"s_mov_b32 s{20 + i}, 3", f"s_cmp_{name} s10, s11", f"s_cmovk_i32 s{20 + i}, 9"]
    expected = [9 if holds(a, b) else 3 for holds in COMPARED.values()]
    assert run_scalar("\n".join(lines), len(COMPARED)) == expected


def test_single_bits() -> None:
    lines = f"s_mov_b32 s20, {A:#x}\ns_mov_b32 s21, {A:#x}\ns_bitset1_b32 s20, 5\ns_bitset0_b32 s21, 31"
    assert run_scalar(lines, 2) == [A | 1 << 5, A & ~(1 << 31)]


@pytest.mark.parametrize("value", [0, M64, 1, M64 - 1, 1 << 62, 0xFFFF_0000_0000_1234])
def test_sign_bits_are_counted(value: int) -> None:
    lines = f"s_mov_b32 s10, {value & M32:#x}\ns_mov_b32 s11, {value >> 32:#x}\ns_flbit_i32_i64 s20, s[10:11]"
    assert run_scalar(lines)[0] == UNARY_WIDE["s_flbit_i32_i64"][0](value) & M32


@pytest.mark.parametrize("scc", [0, 1])
def test_a_conditional_move_of_a_register(scc: int) -> None:
    lines = f"s_mov_b32 s20, 3\ns_mov_b32 s10, 9\ns_cmp_eq_u32 0, {1 - scc}\ns_cmov_b32 s20, s10"
    assert run_scalar(lines) == [9 if scc else 3]


# Offset in the low six bits, width from bit 16; fields that end at bit 63, run past it, or are empty.
FIELDS = [(4, 8), (0, 64), (31, 33), (60, 9), (63, 1), (10, 0), (0, 1), (37, 20)]


@pytest.mark.parametrize("kind", ["u", "i"])
def test_wide_bit_fields(kind: str) -> None:
    lines = [set_wide()]
    for i, (offset, width) in enumerate(FIELDS):
        lines += [f"s_mov_b32 s10, {offset | width << 16:#x}", f"s_bfe_{kind}64 s[12:13], s[30:31], s10"]
        lines += ["s_cselect_b32 s14, 1, 0", *(f"v_mov_b32 v{20 + 3 * i + j}, s{12 + j}" for j in range(3))]
    found = run_lanes("\n".join(lines), (), 3 * len(FIELDS))[:, 0].tolist()
    for i, (offset, width) in enumerate(FIELDS):
        width = min(width, 64 - offset)
        part = WIDE_A >> offset & (1 << width) - 1
        expected = (signed(part, width) if kind == "i" and width else part) & M64
        assert (found[3 * i] | found[3 * i + 1] << 32, found[3 * i + 2]) == (expected, expected != 0), (offset, width)


def test_wide_masks() -> None:
    pairs = [(0, 5), (1, 0), (33, 7), (63, 1), (64, 3), (5, 66)]
    lines = [
        f"s_movk_i32 s10, {width}\ns_movk_i32 s11, {offset}\ns_bfm_b64 s[{20 + 2 * i}:{21 + 2 * i}], s10, s11"
        for i, (width, offset) in enumerate(pairs)
    ]
    found = run_scalar("\n".join(lines), 2 * len(pairs))
    for i, (width, offset) in enumerate(pairs):
        expected = ((1 << (width & 63)) - 1) << (offset & 63) & M64
        assert found[2 * i] | found[2 * i + 1] << 32 == expected, (width, offset)


SAVING: dict[str, Callable[[int, int], int]] = {
    "s_and_saveexec_b64": lambda source, exec_: source & exec_,
    "s_or_saveexec_b64": lambda source, exec_: source | exec_,
    "s_xor_saveexec_b64": lambda source, exec_: source ^ exec_,
    "s_nand_saveexec_b64": lambda source, exec_: ~(source & exec_),
    "s_nor_saveexec_b64": lambda source, exec_: ~(source | exec_),
    "s_xnor_saveexec_b64": lambda source, exec_: ~(source ^ exec_),
    "s_andn1_saveexec_b64": lambda source, exec_: ~source & exec_,
    "s_andn2_saveexec_b64": lambda source, exec_: source & ~exec_,
    "s_orn1_saveexec_b64": lambda source, exec_: ~source | exec_,
    "s_orn2_saveexec_b64": lambda source, exec_: source | ~exec_,
    "s_andn1_wrexec_b64": lambda source, exec_: ~source & exec_,
    "s_andn2_wrexec_b64": lambda source, exec_: source & ~exec_,
}
"""What EXEC becomes. The destination receives the old EXEC, or with wrexec the new one."""


@pytest.mark.parametrize("old", [WIDE_B, WIDE_A, M64 ^ WIDE_A])
def test_exec_is_combined_and_saved(old: int) -> None:
    lines = [set_wide(), f"s_mov_b32 s34, {old & M32:#x}\ns_mov_b32 s35, {old >> 32:#x}"]
    for i, name in enumerate(SAVING):
        lines += ["s_mov_b64 exec, s[34:35]", f"{name} s[12:13], s[30:31]", "s_cselect_b32 s16, 1, 0"]
        lines += ["s_mov_b64 s[14:15], exec", "s_mov_b64 exec, -1"]
        lines += [f"v_mov_b32 v{20 + 5 * i + j}, s{12 + j}" for j in range(5)]
    found = run_lanes("\n".join(lines), (), 5 * len(SAVING))[:, 0].tolist()
    for i, (name, combined) in enumerate(SAVING.items()):
        kept_low, kept_high, low, high, scc = found[5 * i : 5 * i + 5]
        new = combined(WIDE_A, old) & M64
        assert (low | high << 32, scc) == (new, new != 0), name
        assert kept_low | kept_high << 32 == (new if "wrexec" in name else old), name


@pytest.mark.parametrize("position", [0, 31, 32, 63, 64 + 5])
def test_one_bit_of_a_pair(position: int) -> None:
    lines = [set_wide(), f"s_movk_i32 s10, {position}"]
    lines += [f"s_bitcmp{bit}_b64 s[30:31], s10\ns_cselect_b32 s{20 + bit}, 1, 0" for bit in (0, 1)]
    bit = WIDE_A >> (position & 63) & 1
    assert run_scalar("\n".join(lines), 2) == [1 - bit, bit]


@pytest.mark.parametrize("constant", [5, 0x8000])
def test_comparisons_with_a_short_constant(constant: int) -> None:
    """The constant is sign-extended by the signed comparisons, zero-extended by the others."""
    tests = {"eq": int.__eq__, "lg": int.__ne__, "gt": int.__gt__, "ge": int.__ge__, "lt": int.__lt__, "le": int.__le__}
    values = (0, 5, 0x7FFF, 0x8000, 0xFFFF, M32, 0xFFFF8000, 0x80000000)
    cases = [(value, test, kind) for value in values for test in tests for kind in ("i32", "u32")]
    lines = [
        f"s_mov_b32 s10, {value:#x}\ns_cmpk_{test}_{kind} s10, {constant:#x}\n"
        f"s_cselect_b32 s11, 1, 0\nv_mov_b32 v{20 + i}, s11"
        for i, (value, test, kind) in enumerate(cases)
    ]
    found = run_lanes("\n".join(lines), (), len(cases))[:, 0].tolist()
    for got, (value, test, kind) in zip(found, cases, strict=True):
        operands = (value, constant) if kind == "u32" else (signed(value), signed(constant, 16))
        assert got == tests[test](*operands), (hex(value), test, kind)
