"""Matrix instructions with several blocks, and those of float64: float64 and int64 products of every block.

Where elements are is written out from the ISA guide's formulas (section 7.1), element by element.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, vector_program

from hktune.core.dtype import BF16
from hktune.core.errors import KernelFault
from hktune.emulator.instructions.decode import decode
from hktune.emulator.instructions.matrix import build_matrix

RNG = np.random.default_rng(8)
SHAPES = {
    "v_mfma_f32_32x32x4_2b_bf16": (32, 4, 2),
    "v_mfma_f32_16x16x4_4b_bf16": (16, 4, 4),
    "v_mfma_f32_4x4x4_16b_bf16": (4, 4, 16),
    "v_mfma_f32_32x32x4_2b_f16": (32, 4, 2),
    "v_mfma_f32_16x16x4_4b_f16": (16, 4, 4),
    "v_mfma_f32_4x4x4_16b_f16": (4, 4, 16),
    "v_mfma_f32_32x32x1_2b_f32": (32, 1, 2),
    "v_mfma_f32_16x16x1_4b_f32": (16, 1, 4),
    "v_mfma_f32_4x4x1_16b_f32": (4, 1, 16),
    "v_mfma_i32_32x32x4_2b_i8": (32, 4, 2),
    "v_mfma_i32_16x16x4_4b_i8": (16, 4, 4),
    "v_mfma_i32_4x4x4_16b_i8": (4, 4, 16),
    "v_mfma_f64_16x16x4_f64": (16, 4, 1),
    "v_mfma_f64_4x4x4_4b_f64": (4, 4, 4),
}
BITS = {"bf16": 16, "f16": 16, "f32": 32, "f64": 64, "i8": 8}


def kind_of(name: str) -> str:
    return name.rpartition("_")[2]


def random(kind: str, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
    """Bits, and the numbers that they mean."""
    if kind == "i8":
        values = RNG.integers(-128, 128, shape)
        return (values & 0xFF).astype(np.uint64), values.astype(float)
    numbers = RNG.standard_normal(shape)
    if kind == "bf16":
        bits = BF16.bits(numbers.astype(np.float32))
        return bits.astype(np.uint64), BF16.values(bits).astype(float)
    narrow = numbers.astype({"f16": np.float16, "f32": np.float32, "f64": np.float64}[kind])
    return narrow.view(f"u{narrow.itemsize}").astype(np.uint64), narrow.astype(float)


def operand(kind: str, bits: npt.NDArray[np.uint64]) -> Words:
    """(block, row, k) elements as (registers, 64): element k % E of lane row + R * (block + B * (k / E))."""
    blocks, rows, depth = bits.shape
    each = depth * rows * blocks // 64
    words = np.zeros((each * BITS[kind] // 32, 64), np.uint32)
    for block in range(blocks):
        for row in range(rows):
            for k in range(depth):
                at, lane = k % each * BITS[kind], row + rows * (block + blocks * (k // each))
                for part in range(max(1, BITS[kind] // 32)):
                    word = int(bits[block, row, k]) >> 32 * part & 0xFFFFFFFF
                    words[at // 32 + part, lane] |= np.uint32(word << at % 32)
    return words


def place(name: str, block: int, row: int, column: int) -> tuple[int, int]:
    """(place, lane) of an element of C or D."""
    rows, _, _ = SHAPES[name]
    held = 1 if kind_of(name) == "f64" else 4
    beside = -(-64 // (rows * rows // held))
    lines = 64 // beside // rows
    groups = rows // (held * lines)
    at = row % held + held * (row // (held * lines) + groups * (block // beside))
    return at, column + rows * (row // held % lines + lines * (block % beside))


def scattered(name: str, matrix: npt.NDArray[np.generic]) -> Words:
    """(block, row, column) as C's registers."""
    blocks, rows, _ = matrix.shape
    out = np.zeros((blocks * rows * rows // 64, 64), matrix.dtype)
    for block, row, column in np.ndindex(matrix.shape):
        out[place(name, block, row, column)] = matrix[block, row, column]
    pairs = out.view(np.uint32).reshape(len(out), 64, -1)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1)).reshape(-1, 64)


def gathered(name: str, registers: Words, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    rows, _, blocks = SHAPES[name]
    parts = np.dtype(dtype).itemsize // 4
    values = np.ascontiguousarray(registers.reshape(-1, parts, 64).transpose(0, 2, 1)).view(dtype)[..., 0]
    out = np.zeros((blocks, rows, rows), dtype)
    for at in np.ndindex(out.shape):
        out[at] = values[place(name, *at)]
    return out


def span(first: int, count: int) -> str:
    return f"v{first}" if count == 1 else f"v[{first}:{first + count - 1}]"


def run(call: str, operands: list[Words], count: int) -> Words:
    """C is in v[20:] and D comes there; A begins at v100, B right behind it."""
    inputs = np.concatenate(operands)
    loads = [
        f"global_load_dword v{100 + i}, v1, s[6:7]\ns_add_u32 s6, s6, 256\ns_addc_u32 s7, s7, 0"
        for i in range(len(inputs))
    ]
    first = 100 + len(inputs) - len(operands[-1])
    moves = [f"v_mov_b32 v{20 + i}, v{first + i}" for i in range(len(operands[-1]))]
    lines = "\n".join([*loads, "s_waitcnt vmcnt(0)", *moves, "s_nop 1", call, "s_nop 15", "s_nop 15"])
    found: Words = launch(assemble(vector_program(lines, 0, count)), inputs, np.zeros((count, 64), np.uint32))[1]
    return found


def products(
    name: str, modifiers: str = "", chosen: list[int] | None = None, signs: tuple[int, int, int] = (1, 1, 1)
) -> None:
    """Compare D with the product of every block, block b of A being number `chosen[b]`."""
    rows, depth, blocks = SHAPES[name]
    kind = kind_of(name)
    dtype = {"f64": np.float64, "i8": np.int32}.get(kind, np.float32)
    (bits_a, a), (bits_b, b) = (random(kind, (blocks, rows, depth)) for _ in range(2))
    c = (
        RNG.integers(-(1 << 31), 1 << 31, (blocks, rows, rows))
        if kind == "i8"
        else RNG.standard_normal((blocks, rows, rows))
    ).astype(dtype)
    operands = [operand(kind, bits_a), operand(kind, bits_b), scattered(name, c)]
    width, count = len(operands[0]), len(operands[2])
    call = f"{name} {span(20, count)}, {span(100, width)}, {span(100 + width, width)}, {span(20, count)} {modifiers}"
    found = gathered(name, run(call, operands, count), dtype)
    a = a if chosen is None else a[chosen]
    exact = signs[0] * signs[1] * (a @ b.transpose(0, 2, 1)) + signs[2] * c.astype(float)
    if kind == "i8":
        wrapped = (exact.astype(np.int64) + (1 << 31)) % (1 << 32) - (1 << 31)
        assert found.tolist() == wrapped.tolist()
        return
    scale = np.abs(a) @ np.abs(b).transpose(0, 2, 1) + np.abs(c)
    assert (np.abs(found - exact) <= scale * (2.0**-50 if kind == "f64" else 2.0**-20)).all()


@pytest.mark.parametrize("name", SHAPES)
def test_every_block_is_multiplied(name: str) -> None:
    products(name)


@pytest.mark.parametrize(
    ("name", "cbsz", "abid"),
    [
        ("v_mfma_f32_32x32x4_2b_bf16", 1, 1),
        ("v_mfma_f32_16x16x4_4b_f16", 1, 0),
        ("v_mfma_f32_16x16x1_4b_f32", 2, 3),
        ("v_mfma_f32_4x4x4_16b_bf16", 4, 9),
        ("v_mfma_i32_4x4x4_16b_i8", 2, 1),
    ],
)
def test_one_block_of_a_may_serve_its_neighbours(name: str, cbsz: int, abid: int) -> None:
    blocks, group = SHAPES[name][2], 1 << cbsz
    products(name, f"cbsz:{cbsz} abid:{abid}", [block // group * group + abid for block in range(blocks)])


@pytest.mark.parametrize("name", ["v_mfma_f64_16x16x4_f64", "v_mfma_f64_4x4x4_4b_f64"])
@pytest.mark.parametrize("negated", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_float64_operands_may_be_negated(name: str, negated: tuple[int, int, int]) -> None:
    signs = (1 - 2 * negated[0], 1 - 2 * negated[1], 1 - 2 * negated[2])
    products(name, f"neg:[{negated[0]},{negated[1]},{negated[2]}]", signs=signs)


def test_a_constant_may_stand_for_a_float64_addend() -> None:
    ones = operand("f64", np.ones((1, 16, 4)).view(np.uint64))
    call = "v_mfma_f64_16x16x4_f64 v[20:27], v[100:101], v[102:103], 0.5"
    out = gathered("v_mfma_f64_16x16x4_f64", run(call, [ones, ones, np.zeros((8, 64), np.uint32)], 8), np.float64)
    assert (out == 4.5).all()


@pytest.mark.parametrize(
    ("modifiers", "rule"),
    [("blgp:1", "BLGP 1"), ("cbsz:3", "CBSZ 3 and ABID 0"), ("cbsz:1 abid:2", "CBSZ 1 and ABID 2")],
)
def test_modifiers_that_are_not_emulated_are_refused(modifiers: str, rule: str) -> None:
    zeros = np.zeros((2, 64), np.uint32)
    call = f"v_mfma_f32_16x16x4_4b_bf16 v[20:35], v[100:101], v[102:103], v[20:35] {modifiers}"
    with pytest.raises(KernelFault, match=rule):
        run(call, [zeros, zeros, np.zeros((16, 64), np.uint32)], 16)


def test_xf32_is_refused_as_gfx950_has_none() -> None:
    """Words that clang 22 makes for gfx942; for gfx950 it knows no such instruction."""
    words = (0xD3BE0000, 0x04020902)  # v_mfma_f32_16x16x8_xf32 v[0:3], v[2:3], v[4:5], v[0:3]
    instruction = decode(b"".join(word.to_bytes(4, "little") for word in words).ljust(16, b"\0"), 0)
    assert instruction.mnemonic == "v_mfma_f32_16x16x8_xf32"
    with pytest.raises(KernelFault, match="gfx950 has not"):
        build_matrix(instruction)
