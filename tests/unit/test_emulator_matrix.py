"""Matrix instructions against an einsum over operands laid out as the ISA guide's formulas say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gfx950_code import Words, assemble, launch, vector_program

from hktune.core.dtype import BF16

SHAPES = {
    "v_mfma_f32_16x16x32_bf16": (16, 32),
    "v_mfma_f32_32x32x16_bf16": (32, 16),
    "v_mfma_f32_16x16x16_bf16": (16, 16),
    "v_mfma_f32_32x32x8_bf16": (32, 8),
    "v_mfma_f32_16x16x16_f16": (16, 16),
    "v_mfma_f32_32x32x8_f16": (32, 8),
    "v_mfma_f32_16x16x32_f16": (16, 32),
    "v_mfma_f32_32x32x16_f16": (32, 16),
}
RNG = np.random.default_rng(4)


def operand_registers(bits: npt.NDArray[np.uint16]) -> Words:
    """(rows, k) 16-bit values as (registers, 64 lanes): element e of lane l is [l % rows][e + each * (l / rows)]."""
    rows, depth = bits.shape
    each = depth * rows // 64
    words = np.zeros((each // 2, 64), np.uint32)
    for lane in range(64):
        for element in range(each):
            value = int(bits[lane % rows, element + each * (lane // rows)])
            words[element // 2, lane] |= np.uint32(value << 16 * (element % 2))
    return words


def result_matrix(registers: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """D from its registers: row i is in register i % 4 + 4 * (i / (256 / R)), lanes R * (i / 4 % (64 / R)) and on."""
    out = np.zeros((rows, rows), np.float32)
    for i in range(rows):
        for j in range(rows):
            register = i % 4 + 4 * (i // (4 * 64 // rows))
            out[i, j] = registers[register, j + rows * (i // 4 % (64 // rows))]
    return out


def addend_registers(matrix: npt.NDArray[np.float32]) -> Words:
    rows = len(matrix)
    words = np.zeros((rows * rows // 64, 64), np.float32)
    for i in range(rows):
        for j in range(rows):
            words[i % 4 + 4 * (i // (4 * 64 // rows)), j + rows * (i // 4 % (64 // rows))] = matrix[i, j]
    return words.view(np.uint32)


def multiply(name: str, placement: str, exec_mask: str = "-1") -> None:
    rows, depth = SHAPES[name]
    floats = [RNG.standard_normal((rows, depth)).astype(np.float32) for _ in range(2)]
    c = RNG.standard_normal((rows, rows)).astype(np.float32)
    if name.endswith("_bf16"):
        bits = [BF16.bits(x) for x in floats]
        a, b = (BF16.values(x) for x in bits)
    else:
        bits = [x.astype(np.float16).view(np.uint16) for x in floats]
        a, b = (x.view(np.float16).astype(np.float32) for x in bits)
    width, count = depth * rows // 128, rows * rows // 64
    inputs = np.concatenate([operand_registers(bits[0]), operand_registers(bits[1]), addend_registers(c)])
    lines = f"{_loads(len(inputs))}\n{_program(name, placement, width, count, exec_mask)}"
    code = assemble(vector_program(lines, 0, count))
    out = launch(code, inputs, np.zeros((count, 64), np.uint32))[1].view(np.float32)
    exact = np.einsum("ik,jk->ij", a.astype(np.float64), b.astype(np.float64)) + c
    scale = np.einsum("ik,jk->ij", np.abs(a), np.abs(b)) + np.abs(c)
    assert (np.abs(result_matrix(out, rows) - exact) <= scale * 2.0**-20).all()


def _loads(count: int) -> str:
    """Row i of the first argument into v[100 + i]."""
    lines = [
        f"global_load_dword v{100 + i}, v1, s[6:7]\ns_add_u32 s6, s6, 256\ns_addc_u32 s7, s7, 0" for i in range(count)
    ]
    return "\n".join([*lines, "s_waitcnt vmcnt(0)"])


def _program(name: str, placement: str, width: int, count: int, exec_mask: str) -> str:
    a, b, c = 100, 100 + width, 100 + 2 * width
    if placement == "architectural":
        moved = [f"v_mov_b32 v{20 + i}, v{c + i}" for i in range(count)]
        call = f"{name} v[20:{19 + count}], v[{a}:{a + width - 1}], v[{b}:{b + width - 1}], v[20:{19 + count}]"
        back = []
    else:
        moved = [f"v_accvgpr_write_b32 a{i}, v{c + i}" for i in range(count)]
        moved += [f"v_accvgpr_write_b32 a{64 + i}, v{b + i}" for i in range(width)]
        call = f"{name} a[0:{count - 1}], v[{a}:{a + width - 1}], a[64:{63 + width}], a[0:{count - 1}]"
        back = [f"v_accvgpr_read_b32 v{20 + i}, a{i}" for i in range(count)]
    return "\n".join([*moved, f"s_mov_b64 exec, {exec_mask}", call, "s_nop 15", "s_mov_b64 exec, -1", *back])


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("placement", ["architectural", "accumulation"])
def test_products_land_where_the_layout_says(name: str, placement: str) -> None:
    multiply(name, placement)


def test_exec_is_ignored() -> None:
    multiply("v_mfma_f32_16x16x32_bf16", "architectural", exec_mask="0xff")


def test_a_constant_may_stand_for_the_addend() -> None:
    ones = np.full((8, 64), 0x3F803F80, np.uint32)
    lines = f"{_loads(8)}\nv_mfma_f32_16x16x32_bf16 v[20:23], v[100:103], v[104:107], 1.0\ns_nop 15"
    code = assemble(vector_program(lines, 0, 4))
    out = launch(code, ones, np.zeros((4, 64), np.uint32))[1].view(np.float32)
    assert (out == 33.0).all()
