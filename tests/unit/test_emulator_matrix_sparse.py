"""Sparse matrix instructions: against float64 sums of the dense matrix that their operands stand for, and against where
a gfx950 was found to take its operands from, one value at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words
from test_emulator_matrix import addend_registers, result_matrix
from test_emulator_matrix_small import close, consecutive, packed, random_codes, run, span, values_of

from hktune.core.dtype import BF16

RNG = np.random.default_rng(23)
BITS = {"bf16": 16, "f16": 16, "i8": 8, "fp8": 8, "bf8": 8}
CDNA3 = {16: {16: 32, 32: 16}, 8: {16: 64, 32: 32}}
"""K by bits of a value and rows; CDNA4 adds shapes of twice that."""
CASES = [
    (rows, times * depth, a, b)
    for a, b in [("bf16",) * 2, ("f16",) * 2, ("i8",) * 2, *((x, y) for x in ("fp8", "bf8") for y in ("fp8", "bf8"))]
    for rows, depth in CDNA3[BITS[a]].items()
    for times in (1, 2)
]


def name_of(rows: int, depth: int, a: str, b: str) -> str:
    types = a if BITS[a] == 16 or a == "i8" else f"{a}_{b}"
    return f"v_smfmac_{'i32' if a == 'i8' else 'f32'}_{rows}x{rows}x{depth}_{types}"


def random_values(kind: str, shape: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Codes, and what they mean."""
    if kind in ("fp8", "bf8"):
        codes = random_codes(kind, shape)
        return codes, values_of(kind, codes)
    if kind == "i8":
        numbers = RNG.integers(-128, 128, shape)
        return numbers, numbers.astype(np.float64)
    floats = RNG.standard_normal(shape).astype(np.float32)
    bits = BF16.bits(floats) if kind == "bf16" else floats.astype(np.float16).view(np.uint16)
    values = BF16.values(bits) if kind == "bf16" else bits.view(np.float16)
    return bits.astype(np.int64), values.astype(np.float64)


def in_halves(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A lane's values: one run of the lower half of K, then one of the upper."""
    half = matrix.shape[1] // 2
    return np.concatenate([consecutive(matrix[:, :half]), consecutive(matrix[:, half:])], axis=1)


def picked(rows: int, depth: int) -> npt.NDArray[np.int64]:
    """Which two of each four k a row has, in order: (rows, depth / 2)."""
    pairs = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
    chosen: npt.NDArray[np.int64] = pairs[RNG.integers(0, 6, (rows, depth // 4))].reshape(rows, -1)
    return chosen


def dense(kept: npt.NDArray[np.float64], which: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    rows, count = kept.shape
    out = np.zeros((rows, 2 * count))
    for row in range(rows):
        for i in range(count):
            out[row, 4 * (i // 2) + which[row, i]] = kept[row, i]
    return out


def index_words(which: npt.NDArray[np.int64], number: int = 0) -> Words:
    """Two bits of each value of a lane, the first lowest, as set `number`; other sets hold all ones."""
    lanes = consecutive(which)
    bits = 2 * lanes.shape[1]
    words = [sum(int(each) << 2 * i for i, each in enumerate(lane)) << number * bits for lane in lanes]
    others = 0xFFFFFFFF ^ ((1 << bits) - 1) << number * bits
    return np.array([[word | others for word in words]], np.uint32)


def multiply(case: tuple[int, int, str, str], modifiers: str = "", number: int = 0, accumulation: bool = False) -> None:
    rows, depth, a_type, b_type = case
    a, a_values = random_values(a_type, (rows, depth // 2))
    b, b_values = random_values(b_type, (rows, depth))
    which, integers = picked(rows, depth), a_type == "i8"
    doubled = depth == 2 * CDNA3[BITS[a_type]][rows]
    c = RNG.integers(-1000, 1000, (rows, rows)).astype(np.float32)
    addend = addend_registers(c)
    if integers:
        addend = addend.view(np.float32).astype(np.int32).view(np.uint32)
    operands = [
        packed(consecutive(a), BITS[a_type]),
        packed(in_halves(b) if doubled else consecutive(b), BITS[b_type]),
        index_words(which, number),
        addend,
    ]
    width_a, width_b, count = (len(operands[i]) for i in (0, 1, 3))
    sources = f"{span(100, width_a)}, {span(100 + width_a, width_b)}, v{100 + width_a + width_b}"
    call = f"{name_of(*case)} {span(20, count)}, {sources} {modifiers}"
    if accumulation:
        into = [f"v_accvgpr_write_b32 a{i}, v{20 + i}" for i in range(count)]
        back = [f"v_accvgpr_read_b32 v{20 + i}, a{i}" for i in range(count)]
        call = f"{name_of(*case)} a[0:{count - 1}], {sources} {modifiers}"
        call = "\n".join([*into, "s_nop 7", call, "s_nop 15", "s_nop 7", *back])
    found = run(call, operands, count)
    full = dense(a_values, which)
    exact = full @ b_values.T + c
    if integers:
        assert (result_matrix(found.view(np.int32).astype(np.float32), rows) == exact).all()
    else:
        close(found, rows, exact, np.abs(full) @ np.abs(b_values).T + np.abs(c))


@pytest.mark.parametrize("case", CASES, ids=lambda case: name_of(*case))
def test_products_are_those_of_the_dense_matrix(case: tuple[int, int, str, str]) -> None:
    multiply(case)


@pytest.mark.parametrize(
    ("case", "modifiers", "number"),
    [
        ((16, 32, "f16", "f16"), "abid:3", 3),
        ((16, 32, "f16", "f16"), "cbsz:1 abid:3", 0),
        ((32, 16, "bf16", "bf16"), "abid:2", 2),
        ((16, 64, "fp8", "bf8"), "abid:1", 1),
        ((16, 64, "f16", "f16"), "abid:1", 1),
        ((32, 64, "fp8", "fp8"), "abid:1", 0),
    ],
)
def test_a_set_of_indices_is_chosen(case: tuple[int, int, str, str], modifiers: str, number: int) -> None:
    multiply(case, modifiers, number)


def test_results_may_be_in_accumulation_registers() -> None:
    multiply((32, 32, "bf16", "bf16"), accumulation=True)


@pytest.mark.parametrize("bits", [16, 8])
def test_operands_are_taken_from_where_a_gfx950_takes_them(bits: int) -> None:
    """What was found with one value in each operand: value `a` of lane group `g` of A meets value `b` of group `h` of
    B, and `b + 2` where the index has the last two of each four."""
    kind, per_lane = ("f16", 8) if bits == 16 else ("fp8", 16)
    one = 0x3C00 if bits == 16 else 0x38
    name = name_of(16, 64 if bits == 16 else 128, kind, kind)
    for a, g in [(0, 0), (1, 1), (per_lane // 2, 0), (per_lane // 2 + 3, 3), (per_lane - 1, 2), (2, 3)]:
        b = per_lane * (g // 2) + 4 * (a % (per_lane // 2) // 2) + a % 2
        h = 2 * (g % 2) + a // (per_lane // 2)
        for word, shift in ((0x44444444, 0), (0xEEEEEEEE, 2)):
            lanes_a, lanes_b = np.zeros((64, per_lane), np.int64), np.zeros((64, 2 * per_lane), np.int64)
            lanes_a[16 * g, a], lanes_b[16 * h, b + shift] = one, one
            operands = [packed(lanes_a, bits), packed(lanes_b, bits), np.full((1, 64), word, np.uint32)]
            found = run(
                f"{name} v[20:23], v[100:103], v[104:111], v112", [*operands, np.zeros((4, 64), np.uint32)], 4
            ).view(np.float32)
            assert found[0, 0] == 1
            assert np.count_nonzero(found) == 1


def test_what_the_index_leaves_out_is_not_multiplied() -> None:
    """So infinity there is no NaN."""
    a, b = np.full((2, 64), 0x3C003C00, np.uint32), np.full((4, 64), 0x7C003C00, np.uint32)
    operands = [a, b, np.full((1, 64), 0x88, np.uint32), np.zeros((4, 64), np.uint32)]
    found = run("v_smfmac_f32_16x16x32_f16 v[20:23], v[100:101], v[102:105], v106", operands, 4).view(np.float32)
    assert (found == 16).all()
