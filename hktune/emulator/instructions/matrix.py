"""Matrix instructions: D = A @ B + C on the registers of a wave.

Register layout (AMD CDNA4 ISA guide, section 7.1, "Matrix Core Layout"): with R rows and columns, B blocks that are
multiplied each by itself, and K = 64 / (R * B) * E, a lane holds E consecutive k of one row of A (or column of B),
packed from the low bits of a register up: A[i][k] of block b is element k % E of lane i + R * (b + B * (k / E)). Of D a
lane holds H = 4 consecutive rows of a column (H = 1 in float64): row h + H * (l + L * g) of block b + S * c, column j,
is in place h + H * (g + G * c) of lane j + R * (l + L * b), where S blocks are side by side in the lanes (as many as
have no more than one place), L = 64 / (S * R), G = R / (H * L). EXEC is ignored. Products are exact; sums of floats are
float32 (or float64) in an order that AMD has not published, so results agree with hardware to their rounding, not bit
for bit. Integer sums wrap.

With CBSZ, 2**CBSZ neighbouring blocks all multiply the A of the one that ABID names among them. In float64 BLGP negates
A, B and C.

The f8f6f4 shapes (E = 32) take a format for each of A and B. 6 and 4 bits are stored as above; of 8 bits a lane holds
two runs of 16 k, of the lower and of the upper half of K: k = 16 * (lane / R) + e % 16 + K / 2 * (e / 16). A scale is
one byte a lane, for the 32 k from 32 * (lane / R) on of row lane % R, whatever the format (section 7.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hktune.emulator.instructions.decode import Instruction, Operand
from hktune.emulator.instructions.operand_access import (
    VGPR,
    Read,
    Step,
    constant,
    pair,
    unimplemented,
    vector_source,
)
from hktune.emulator.instructions.small_floats import FORMATS, SmallFloat, scale_of, unpack_codes
from hktune.emulator.machine.memory import Array, NumberType
from hktune.emulator.machine.waves import AGPR, LANES, Lanes, Waves

_NAME = re.compile(
    r"v_mfma_[fi](?:32|64)_(4x4|16x16|32x32)x\d+(?:_(\d+)b)?_(bf16|f16|f32|f64|i8|(?:fp8|bf8)_(?:fp8|bf8))$"
)
_MIXED = re.compile(r"v_mfma_(?:scale_)?f32_(16x16|32x32)x(\d+)_f8f6f4$")
_MIXED_FORMATS = ("fp8", "bf8", "fp6", "bf6", "fp4")
_HIGH_HALF = np.uint32(0xFFFF0000)
SUMS: dict[str, NumberType] = {"i8": np.int32, "f64": np.float64}
_FORMATS: dict[NumberType, str] = {np.float32: "f32", np.float64: "f64", np.int32: "i32"}

Widen = Callable[[Array, int], Array]
"""(registers, n, 64) words and the rows of all blocks to float32, or float64, (n, k, row)."""


@dataclass(frozen=True)
class Shape:
    """Rows (and columns) of a block, blocks, and consecutive rows of D that a lane holds."""

    rows: int
    blocks: int = 1
    held: int = 4

    @property
    def places(self) -> int:
        """Elements of C or D in a lane."""
        return self.blocks * self.rows * self.rows // LANES


def build_matrix(instruction: Instruction) -> Step:
    """The function that executes an MFMA. Raises KernelFault for the shapes and types that are not emulated."""
    mixed = _MIXED.match(instruction.mnemonic)
    if mixed is not None:
        return _build_mixed(instruction, int(mixed[1][:2]), int(mixed[2]))
    if instruction.mnemonic.endswith("_xf32"):
        raise unimplemented(instruction, "gfx942 has xf32, gfx950 has not")
    found = _NAME.match(instruction.mnemonic)
    if found is None:
        raise unimplemented(instruction)
    kinds = found[3].split("_")
    dtype = SUMS.get(kinds[0], np.float32)
    doubled = dtype is np.float64
    shape = Shape(int(found[1].partition("x")[0]), int(found[2] or 1), 1 if doubled else 4)
    signs = _checked_modifiers(instruction, shape, doubled)
    multiply = _multiply(instruction, shape, (WIDEN[kinds[0]], WIDEN[kinds[-1]]))
    addend = _addend(instruction, shape, dtype, negated=bool(signs >> 2))
    store = storing(instruction, shape)
    negative = (signs ^ signs >> 1) & 1

    def step(m: Waves, w: Lanes) -> None:
        result = multiply(m, w).astype(dtype, copy=False)
        result = -result if negative else result
        store(m, w, result + addend(m, w) if addend else result)

    return step


def _checked_modifiers(instruction: Instruction, shape: Shape, doubled: bool) -> int:
    """Which of A, B and C are negated, as bits. Raises KernelFault for what the instruction cannot do, or is not
    emulated."""
    fields = instruction.fields
    count = 1 << fields["cbsz"]
    if count > shape.blocks or fields["abid"] >= count:
        raise unimplemented(instruction, f"CBSZ {fields['cbsz']} and ABID {fields['abid']}")
    if fields["blgp"] and not doubled:
        raise unimplemented(instruction, f"BLGP {fields['blgp']}")
    return fields["blgp"]


def _multiply(instruction: Instruction, shape: Shape, widen: tuple[Widen, Widen]) -> Read:
    """Reader of A @ B as D's places (places, n, 64)."""
    first, second = sources(instruction)
    width, lanes_of_k = instruction.operand("src0").registers, shape.rows * shape.blocks
    widen_a, widen_b = widen
    same = second == first and widen_a is widen_b
    repeats, chosen = 1 << instruction.fields["cbsz"], instruction.fields["abid"]
    of_block = np.arange(shape.blocks) // repeats * repeats + chosen

    def multiply(m: Waves, w: Lanes) -> Array:
        a = widen_a(m.registers[first : first + width, w], lanes_of_k)
        b = a if same else widen_b(m.registers[second : second + width, w], lanes_of_k)
        if shape.blocks == 1:
            return tiles(np.matmul(a.transpose(0, 2, 1), b), shape)
        a, b = (each.reshape(*each.shape[:2], shape.blocks, shape.rows).transpose(0, 2, 1, 3) for each in (a, b))
        return tiles(np.matmul(a[:, of_block].transpose(0, 1, 3, 2), b), shape)

    return multiply


def storing(instruction: Instruction, shape: Shape) -> Callable[[Waves, Lanes, Array], None]:
    """Writer of D from its places (places, n, 64)."""
    target = instruction.fields["vdst"] + (AGPR if instruction.fields["acc_cd"] else 0)

    def store(m: Waves, w: Lanes, value: Array) -> None:
        m.registers[target : target + shape.places, w] = value.view(np.uint32)

    def store_pairs(m: Waves, w: Lanes, value: Array) -> None:
        pairs = np.ascontiguousarray(value).view(np.uint32).reshape(*value.shape, 2)
        m.registers[target : target + 2 * shape.places, w] = np.moveaxis(pairs, -1, 1).reshape(-1, *value.shape[1:])

    return store if shape.held > 1 else store_pairs


def _build_mixed(instruction: Instruction, rows: int, depth: int) -> Step:
    """An f8f6f4 MFMA, with scales or without."""
    fields = instruction.fields
    if max(fields["cbsz"], fields["blgp"]) >= len(_MIXED_FORMATS):
        raise unimplemented(instruction, f"formats {fields['cbsz']} and {fields['blgp']}")
    form_a, form_b = (FORMATS[_MIXED_FORMATS[fields[name]]] for name in ("cbsz", "blgp"))
    first, second = sources(instruction)
    width_a, width_b = instruction.operand("src0").registers, instruction.operand("src1").registers
    shape = Shape(rows)
    addend, store = _addend(instruction, shape, np.float32), storing(instruction, shape)
    scales = [_scales(instruction, i, rows) for i in range(2)] if "scale0" in fields else []

    def step(m: Waves, w: Lanes) -> None:
        a = _small_values(m.registers[first : first + width_a, w], rows, form_a)
        b = _small_values(m.registers[second : second + width_b, w], rows, form_b)
        if scales:
            a, b = (
                (each.reshape(len(each), -1, 32, rows) * scale(m, w)[:, :, None]).reshape(len(each), depth, rows)
                for each, scale in zip((a, b), scales, strict=True)
            )
        result = tiles(np.matmul(a.transpose(0, 2, 1), b), shape)
        total = result + addend(m, w) if addend else result
        store(m, w, total.astype(np.float32))

    return step


def _scales(instruction: Instruction, number: int, rows: int) -> Callable[[Waves, Lanes], Array]:
    """Reader of the scales of A (0) or B (1) as float64 (n, blocks of 32 k, row)."""
    read, shift = vector_source(instruction, f"scale{number}"), np.uint32(8 * instruction.fields[f"scale{number}_byte"])

    def scales(m: Waves, w: Lanes) -> Array:
        codes = (np.asarray(read(m, w)) >> shift) & np.uint32(0xFF)
        return scale_of(np.broadcast_to(codes, m.active[w].shape)).reshape(-1, LANES // rows, rows)

    return scales


def sources(instruction: Instruction) -> tuple[int, int]:
    """The first registers of A and of B."""
    fields = instruction.fields
    return _register(fields["src0"], fields["acc"] & 1), _register(fields["src1"], fields["acc"] >> 1)


def _register(code: int, accumulation: int) -> int:
    return code - VGPR + (AGPR if accumulation else 0)


def tiles(product: Array, shape: Shape) -> Array:
    """(n, [block,] row, column) as D's places (places, n, 64)."""
    rows, held = shape.rows, shape.held
    beside = max(1, LANES * held // (rows * rows))
    groups = LANES // (beside * rows)
    parts = (shape.blocks // beside, beside, rows // (held * groups), groups, held, rows)
    tiles = product.reshape(-1, *parts).transpose(1, 3, 5, 0, 2, 4, 6)
    return tiles.reshape(shape.places, -1, LANES)


def _addend(
    instruction: Instruction, shape: Shape, dtype: NumberType, negated: bool = False
) -> Callable[[Waves, Lanes], Array] | None:
    """Reader of C in `dtype` (places, n, 64); None for the constant zero."""
    code = instruction.fields["src2"]
    if code < VGPR:
        value = constant(code, Operand(8 * np.dtype(dtype).itemsize, _FORMATS[dtype]), instruction.literal)
        if value is None:
            raise unimplemented(instruction, f"src2 {code}")
        number = np.array(-value if negated else value)
        return (lambda _m, _w: number) if number else None
    register, count = _register(code, instruction.fields["acc_cd"]), shape.places
    if dtype is not np.float64:
        return lambda m, w: m.registers[register : register + count, w].view(dtype)

    def pairs(m: Waves, w: Lanes) -> Array:
        words = m.registers[register : register + 2 * count, w]
        value = pair(words[::2], words[1::2]).view(np.float64)
        return -value if negated else value

    return pairs


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


def _widen_f64(registers: Array, rows: int) -> Array:
    """One k of float64 a lane."""
    return pair(registers[0], registers[1]).view(np.float64).reshape(registers.shape[1], -1, rows)


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


WIDEN: dict[str, Widen] = {
    "bf16": _widen_bf16,
    "f16": _widen_f16,
    "f32": _widen_f32,
    "f64": _widen_f64,
    "i8": _widen_i8,
    "fp8": _widen_fp8,
    "bf8": _widen_bf8,
}
