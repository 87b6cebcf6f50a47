"""Matrix instructions: D = A @ B + C on the registers of a wave.

Register layout (AMD CDNA4 ISA guide, section 7.1, "Matrix Core Layout"): with R rows and columns and K = 64 / R * E,
a lane holds E consecutive k of one row of A (or column of B), two 16-bit values a register, even k low:
A[i][k] is element k % E of lane i + R * (k / E). Of D, register v holds row v % 4 + 4 * (lane / R) + 4 * (64 / R) *
(v / 4), column lane % R. EXEC is ignored. Products are exact in float32; sums are float32 in an order that AMD has not
published, so results agree with hardware to float32 rounding, not bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import VGPR, Step, constant, unimplemented
from hktune.emulator.machine.waves import AGPR, LANES, Lanes, Waves

_NAME = re.compile(r"v_mfma_f32_(16x16|32x32)x(\d+)_(bf16|f16)$")
_HIGH_HALF = np.uint32(0xFFFF0000)


def build_matrix(instruction: Instruction) -> Step:
    """The function that executes an MFMA. Raises KernelFault for the shapes and types that are not emulated."""
    found = _NAME.match(instruction.mnemonic)
    fields = instruction.fields
    if found is None or fields["cbsz"] or fields["abid"] or fields["blgp"]:
        raise unimplemented(instruction)
    rows, depth = int(found[1][:2]), int(found[2])
    elements = depth * rows // LANES
    widen = _widen_bf16 if found[3] == "bf16" else _widen_f16
    first = _register(fields["src0"], fields["acc"] & 1)
    second = _register(fields["src1"], fields["acc"] >> 1)
    target = fields["vdst"] + (AGPR if fields["acc_cd"] else 0)
    addend = _addend(instruction, rows)
    width = elements // 2

    def step(m: Waves, w: Lanes) -> None:
        a = widen(m.registers[first : first + width, w], rows)
        b = a if second == first else widen(m.registers[second : second + width, w], rows)
        product = np.matmul(a.transpose(0, 2, 1), b)
        tiles = product.reshape(-1, rows // 4 * rows // LANES, LANES // rows, 4, rows).transpose(1, 3, 0, 2, 4)
        result = tiles.reshape(rows * rows // LANES, -1, LANES)
        total = result + addend(m, w) if addend else result
        m.registers[target : target + len(total), w] = total.view(np.uint32)

    return step


def _register(code: int, accumulation: int) -> int:
    return code - VGPR + (AGPR if accumulation else 0)


def _addend(instruction: Instruction, rows: int) -> Callable[[Waves, Lanes], Any] | None:
    """Reader of C as float32 (registers, n, 64); None for the constant zero."""
    code = instruction.fields["src2"]
    count = rows * rows // LANES
    if code < VGPR:
        value = constant(code, instruction.operand("src2"), instruction.literal)
        if value is None:
            raise unimplemented(instruction, f"src2 {code}")
        number = np.array(value).view(np.float32)[()]
        return (lambda _m, _w: number) if number else None
    register = _register(code, instruction.fields["acc_cd"])
    return lambda m, w: m.registers[register : register + count, w].view(np.float32)


def _widen_bf16(registers: Any, rows: int) -> Any:
    """(registers, n, 64) words to float32 (n, k, row); k runs over lane group, register, half."""
    count, waves = registers.shape[:2]
    source = registers.reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    wide = np.empty((waves, LANES // rows, count, 2, rows), np.uint32)
    np.left_shift(source, np.uint32(16), out=wide[:, :, :, 0])
    np.bitwise_and(source, _HIGH_HALF, out=wide[:, :, :, 1])
    return wide.view(np.float32).reshape(waves, -1, rows)


def _widen_f16(registers: Any, rows: int) -> Any:
    count, waves = registers.shape[:2]
    source = registers.reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    halves = np.ascontiguousarray(source)[..., None].view(np.float16)
    return np.moveaxis(halves, -1, -2).astype(np.float32).reshape(waves, -1, rows)
