"""Operands of the vector ALU with their modifiers and the wave's float mode: what is read, and how a result is stored.

Modifiers: AMD CDNA4 ISA guide, section 6.2 (neg, abs, omod, clamp, op_sel).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import (
    Read,
    Write,
    dtype_of,
    vector_destination,
    vector_source,
)
from hktune.emulator.machine.float_mode import FloatMode, flushed
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes, Waves

_KEEP_OTHER_HALF = frozenset(
    {"v_mad_u16", "v_mad_i16", "v_fma_f16", "v_div_fixup_f16", "v_add_i16", "v_sub_i16", "v_ashr_pk_i8_i32",
     "v_ashr_pk_u8_i32", "v_bitop3_b16"}
)  # fmt: skip
"""16-bit results that leave the other half of the register alone; the older operations clear the high half. Of
v_add_i16 and v_sub_i16 the ISA guide does not say it: they have op_sel, as the others here."""
_OUTPUT_SCALE = {1: 2.0, 2: 4.0, 3: 0.5}
_BITS_AS_THEY_ARE = ("v_cmp_class", "v_cmpx_class", "v_div_", "v_pack_b32_f16")
"""Operations that take float sources bit for bit, or whose formulas treat subnormals themselves."""


def sources_of(instruction: Instruction, mode: FloatMode) -> list[Read]:
    """Readers of the explicit sources in order: neg, abs and op_sel applied, subnormals flushed where `mode` asks."""
    names = [name for name in ("src0", "vsrc1", "src1", "src2") if name in instruction.operands]
    reads = [modified_source(instruction, name, position) for position, name in enumerate(names)]
    return [in_mode(read, instruction, name, mode) for read, name in zip(reads, names, strict=True)]


def in_mode(read: Read, instruction: Instruction, name: str, mode: FloatMode) -> Read:
    """`read`, with subnormals of a float operand flushed where `mode` asks for it."""
    operand = instruction.operand(name)
    if not operand.format.startswith("f") or instruction.mnemonic.startswith(_BITS_AS_THEY_ARE):
        return read
    if mode.keeps_sources(dtype_of(operand)) or np.dtype(dtype_of(operand)).kind != "f":
        return read
    return lambda m, w: flushed(read(m, w))


def modified_source(instruction: Instruction, name: str, position: int) -> Read:
    """Reader of source number `position`: neg, abs and op_sel applied."""
    fields = instruction.fields
    negate, absolute = fields.get("neg", 0) >> position & 1, fields.get("abs", 0) >> position & 1
    if instruction.variant:
        negate, absolute = fields.get(f"src{position}_neg", 0), fields.get(f"src{position}_abs", 0)
    high_half = bool(fields.get("opsel", 0) >> position & 1)
    read = vector_source(instruction, name, high_half)
    if instruction.mnemonic.startswith("v_bitop3") or not (negate or absolute):
        return read
    dtype = np.dtype(dtype_of(instruction.operand(name)))
    sign = np.array(1 << (8 * dtype.itemsize - 1), f"u{dtype.itemsize}")[()]

    def modified(m: Waves, w: Lanes) -> Array:
        bits = read(m, w).view(sign.dtype)
        bits = bits & ~sign if absolute else bits
        return (bits ^ sign if negate else bits).view(dtype)

    return modified


def destination_of(instruction: Instruction, mode: FloatMode) -> Write:
    """Writer of the vector destination: output modifiers applied, subnormals flushed where `mode` asks."""
    operand, fields = instruction.operand("vdst"), instruction.fields
    write = vector_destination(fields["vdst"], operand)
    if operand.bits == 16 and (fields.get("opsel", 0) & 8 or instruction.mnemonic in _KEEP_OTHER_HALF):
        write = write_half(fields["vdst"], bool(fields["opsel"] & 8))
    if instruction.mnemonic.startswith("v_bitop3"):
        return write
    clamp = bool(fields.get("clmp", 0))
    if not operand.format.startswith("f"):
        return write
    keeps = mode.keeps_results(dtype_of(operand)) or instruction.mnemonic.startswith(_BITS_AS_THEY_ARE)
    scale = 0 if mode.ieee or keeps else fields.get("omod", 0)  # ISA guide, 6.2.2: else output modifiers are ignored
    if keeps and not clamp:
        return write
    return _shaped(write, _OUTPUT_SCALE.get(scale), keeps, clamped(mode) if clamp else None)


def clamped(mode: FloatMode) -> Callable[[Array], Array]:
    """What a clamp to 0 and 1 makes of a float."""

    def bounded(value: Array) -> Array:
        value = np.nan_to_num(value, nan=0.0) if mode.dx10_clamp else value
        return np.clip(value, value.dtype.type(0), value.dtype.type(1))

    return bounded


def _shaped(write: Write, scale: float | None, keeps: bool, clamp: Callable[[Array], Array] | None) -> Write:
    """`write` of what scaling (which makes -0 a +0), flushing and clamping leave of a result."""

    def shaped(m: Waves, w: Lanes, value: Array) -> None:
        kind = value.dtype.type
        value = value if keeps else flushed(value)
        if scale is not None:
            value = flushed(value * kind(scale))
            value = np.where(value == 0, kind(0), value)
        write(m, w, clamp(value) if clamp else value)

    return shaped


def write_half(register: int, high: bool) -> Write:
    """Writer of 16 bits of a register that leaves the others alone."""
    kept, shift = np.uint32(0xFFFF if high else 0xFFFF0000), np.uint32(16 if high else 0)

    def write(m: Waves, w: Lanes, value: Array) -> None:
        other = m.registers[register, w] & kept
        m.write(register, w, other | value.view(np.uint16).astype(np.uint32) << shift)

    return write
