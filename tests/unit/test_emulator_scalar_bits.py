"""Scalar instructions that no other test reaches, against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gfx950_code import run_scalar

A, B = 0x8000F00F, 0x00FF1234
WIDE_A, WIDE_B = 0x80000000_0F0F00FF, 0x00FF00FF_F000000F
M32, M64 = (1 << 32) - 1, (1 << 64) - 1


def set_wide() -> str:
    words = [WIDE_A & M32, WIDE_A >> 32, WIDE_B & M32, WIDE_B >> 32]
    return "\n".join(f"s_mov_b32 s{30 + i}, {word:#x}" for i, word in enumerate(words))


BINARY: dict[str, Callable[[int, int], int]] = {
    "s_andn2_b32": lambda a, b: a & ~b,
    "s_nand_b32": lambda a, b: ~(a & b),
    "s_nor_b32": lambda a, b: ~(a | b),
    "s_xor_b32": lambda a, b: a ^ b,
    "s_min_u32": min,
    "s_lshl3_add_u32": lambda a, b: (a << 3) + b,
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
