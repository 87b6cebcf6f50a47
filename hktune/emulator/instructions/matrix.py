"""Matrix instructions: D = A @ B + C on the registers of a wave.

Register layout (AMD CDNA4 ISA guide, section 7.1, "Matrix Core Layout"): with R rows and columns and K = 64 / R * E,
a lane holds E consecutive k of one row of A (or column of B), packed from the low bits of a register up: A[i][k] is
element k % E of lane i + R * (k / E). Of D, register v holds row v % 4 + 4 * (lane / R) + 4 * (64 / R) * (v / 4),
column lane % R. EXEC is ignored. Products are exact; sums of floats are float32 in an order that AMD has not published,
so results agree with hardware to float32 rounding, not bit for bit. Integer sums wrap.

The f8f6f4 shapes (E = 32) take a format for each of A and B. 6 and 4 bits are stored as above; of 8 bits a lane holds
two runs of 16 k, of the lower and of the upper half of K: k = 16 * (lane / R) + e % 16 + K / 2 * (e / 16). A scale is
one byte a lane, for the 32 k from 32 * (lane / R) on of row lane % R, whatever the format (section 7.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import VGPR, Step, constant, unimplemented, vector_source
from hktune.emulator.instructions.small_floats import FORMATS, SmallFloat, scale_of, unpack_codes
from hktune.emulator.machine.memory import Array, NumberType
from hktune.emulator.machine.waves import AGPR, LANES, Lanes, Waves

_NAME = re.compile(r"v_mfma_[fi]32_(16x16|32x32)x(\d+)_(bf16|f16|f32|i8|(?:fp8|bf8)_(?:fp8|bf8))$")
_MIXED = re.compile(r"v_mfma_(?:scale_)?f32_(16x16|32x32)x(\d+)_f8f6f4$")
_MIXED_FORMATS = ("fp8", "bf8", "fp6", "bf6", "fp4")
_HIGH_HALF = np.uint32(0xFFFF0000)

Widen = Callable[[Array, int], Array]
"""(registers, n, 64) words and the rows to float32 (n, k, row)."""


def build_matrix(instruction: Instruction) -> Step:
    """The function that executes an MFMA. Raises KernelFault for the shapes and types that are not emulated."""
    mixed = _MIXED.match(instruction.mnemonic)
    if mixed is not None:
        return _build_mixed(instruction, int(mixed[1][:2]), int(mixed[2]))
    found = _NAME.match(instruction.mnemonic)
    fields = instruction.fields
    if found is None or fields["cbsz"] or fields["abid"] or fields["blgp"]:
        raise unimplemented(instruction)
    rows, kinds = int(found[1][:2]), found[3].split("_")
    integers = kinds == ["i8"]
    widen_a, widen_b = _WIDEN[kinds[0]], _WIDEN[kinds[-1]]
    first, second = _sources(instruction)
    addend = _addend(instruction, rows, np.int32 if integers else np.float32)
    target = fields["vdst"] + (AGPR if fields["acc_cd"] else 0)
    width = instruction.operand("src0").registers
    same = second == first and widen_a is widen_b

    def step(m: Waves, w: Lanes) -> None:
        a = widen_a(m.registers[first : first + width, w], rows)
        b = a if same else widen_b(m.registers[second : second + width, w], rows)
        result = _tiles(np.matmul(a.transpose(0, 2, 1), b), rows)
        if integers:
            result = result.astype(np.int32)
        total = result + addend(m, w) if addend else result
        m.registers[target : target + len(total), w] = total.view(np.uint32)

    return step


def _build_mixed(instruction: Instruction, rows: int, depth: int) -> Step:
    """An f8f6f4 MFMA, with scales or without."""
    fields = instruction.fields
    if max(fields["cbsz"], fields["blgp"]) >= len(_MIXED_FORMATS):
        raise unimplemented(instruction, f"formats {fields['cbsz']} and {fields['blgp']}")
    form_a, form_b = (FORMATS[_MIXED_FORMATS[fields[name]]] for name in ("cbsz", "blgp"))
    first, second = _sources(instruction)
    width_a, width_b = instruction.operand("src0").registers, instruction.operand("src1").registers
    target = fields["vdst"] + (AGPR if fields["acc_cd"] else 0)
    addend = _addend(instruction, rows, np.float32)
    scales = [_scales(instruction, i, rows) for i in range(2)] if "scale0" in fields else []

    def step(m: Waves, w: Lanes) -> None:
        a = _small_values(m.registers[first : first + width_a, w], rows, form_a)
        b = _small_values(m.registers[second : second + width_b, w], rows, form_b)
        if scales:
            a, b = (
                (each.reshape(len(each), -1, 32, rows) * scale(m, w)[:, :, None]).reshape(len(each), depth, rows)
                for each, scale in zip((a, b), scales, strict=True)
            )
        result = _tiles(np.matmul(a.transpose(0, 2, 1), b), rows)
        total = result + addend(m, w) if addend else result
        m.registers[target : target + len(total), w] = total.astype(np.float32).view(np.uint32)

    return step


def _scales(instruction: Instruction, number: int, rows: int) -> Callable[[Waves, Lanes], Array]:
    """Reader of the scales of A (0) or B (1) as float64 (n, blocks of 32 k, row)."""
    read, shift = vector_source(instruction, f"scale{number}"), np.uint32(8 * instruction.fields[f"scale{number}_byte"])

    def scales(m: Waves, w: Lanes) -> Array:
        codes = (np.asarray(read(m, w)) >> shift) & np.uint32(0xFF)
        return scale_of(np.broadcast_to(codes, m.active[w].shape)).reshape(-1, LANES // rows, rows)

    return scales


def _sources(instruction: Instruction) -> tuple[int, int]:
    """The first registers of A and of B."""
    fields = instruction.fields
    return _register(fields["src0"], fields["acc"] & 1), _register(fields["src1"], fields["acc"] >> 1)


def _register(code: int, accumulation: int) -> int:
    return code - VGPR + (AGPR if accumulation else 0)


def _tiles(product: Array, rows: int) -> Array:
    """(n, row, column) as D's registers (registers, n, 64)."""
    tiles = product.reshape(-1, rows // 4 * rows // LANES, LANES // rows, 4, rows).transpose(1, 3, 0, 2, 4)
    return tiles.reshape(rows * rows // LANES, -1, LANES)


def _addend(instruction: Instruction, rows: int, dtype: NumberType) -> Callable[[Waves, Lanes], Array] | None:
    """Reader of C in `dtype` (registers, n, 64); None for the constant zero."""
    code = instruction.fields["src2"]
    count = rows * rows // LANES
    if code < VGPR:
        value = constant(code, instruction.operand("src2"), instruction.literal)
        if value is None:
            raise unimplemented(instruction, f"src2 {code}")
        number = np.array(value).view(dtype)[()]
        return (lambda _m, _w: number) if number else None
    register = _register(code, instruction.fields["acc_cd"])
    return lambda m, w: m.registers[register : register + count, w].view(dtype)


def _small_values(registers: Array, rows: int, form: SmallFloat) -> Array:
    """(registers, n, 64) words of 32 codes a lane to float64 (n, k, row)."""
    values = form.values.astype(np.float64)[unpack_codes(np.moveaxis(registers, 0, -1), form.bits)]
    groups = values.reshape(-1, LANES // rows, rows, 32)
    if form.bits < 8:
        return groups.transpose(0, 1, 3, 2).reshape(len(groups), -1, rows)
    halves = groups.reshape(len(groups), LANES // rows, rows, 2, 16)
    return halves.transpose(0, 3, 1, 4, 2).reshape(len(groups), -1, rows)


def _widen_bf16(registers: Array, rows: int) -> Array:
    count, waves = registers.shape[:2]
    source = registers.reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    wide = np.empty((waves, LANES // rows, count, 2, rows), np.uint32)
    np.left_shift(source, np.uint32(16), out=wide[:, :, :, 0])
    np.bitwise_and(source, _HIGH_HALF, out=wide[:, :, :, 1])
    return wide.view(np.float32).reshape(waves, -1, rows)


def _widen_f16(registers: Array, rows: int) -> Array:
    count, waves = registers.shape[:2]
    source = registers.reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    halves = np.ascontiguousarray(source)[..., None].view(np.float16)
    return np.moveaxis(halves, -1, -2).astype(np.float32).reshape(waves, -1, rows)


def _widen_f32(registers: Array, rows: int) -> Array:
    count, waves = registers.shape[:2]
    source = registers.view(np.float32).reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    return source.reshape(waves, -1, rows)


def _octets(registers: Array, rows: int) -> Array:
    """The bytes of (registers, n, 64) words as (n, k, row)."""
    count, waves = registers.shape[:2]
    source = registers.reshape(count, waves, LANES // rows, rows).transpose(1, 2, 0, 3)
    octets = np.ascontiguousarray(source)[..., None].view(np.uint8)
    return np.moveaxis(octets, -1, -2).reshape(waves, -1, rows)


def _widen_i8(registers: Array, rows: int) -> Array:
    """float32 holds every sum of products of bytes that one instruction makes."""
    return _octets(registers, rows).view(np.int8).astype(np.float32)


def _widen_fp8(registers: Array, rows: int) -> Array:
    return FORMATS["fp8"].values[_octets(registers, rows)]


def _widen_bf8(registers: Array, rows: int) -> Array:
    return FORMATS["bf8"].values[_octets(registers, rows)]


_WIDEN: dict[str, Widen] = {
    "bf16": _widen_bf16,
    "f16": _widen_f16,
    "f32": _widen_f32,
    "i8": _widen_i8,
    "fp8": _widen_fp8,
    "bf8": _widen_bf8,
}
