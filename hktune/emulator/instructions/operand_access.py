"""Operands as functions: what an encoded source reads, typed, and where an encoded destination writes.

Source encoding and inline constants: AMD CDNA4 ISA guide, section 6.1 (table of source operands) and 5.2.
A scalar source is shaped (n,) for scalar instructions and (n, 1) for vector ones; a vector register (n, 64); a constant
is a numpy scalar. n is the number of waves executing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hktune.core.errors import KernelFault
from hktune.emulator.instructions.decode import LITERAL, Instruction, Operand
from hktune.emulator.machine.memory import Array, NumberType
from hktune.emulator.machine.waves import EXEC, VCC, Lanes, Waves

Read = Callable[[Waves, Lanes], Array]
Write = Callable[[Waves, Lanes, Array], None]
Step = Callable[[Waves, Lanes], None]

VGPR = 256
_VCCZ, _EXECZ, _SCC = 251, 252, 253
_INLINE_FLOATS = {240: 0.5, 241: -0.5, 242: 1.0, 243: -1.0, 244: 2.0, 245: -2.0, 246: 4.0, 247: -4.0, 248: 0.15915494}
LDS_APERTURE, PRIVATE_APERTURE = 1 << 48, 2 << 48
"""Where generic addresses mean LDS or private memory. The hardware's driver chooses; here, above every allocation."""
_APERTURES = {
    235: LDS_APERTURE,
    236: LDS_APERTURE + 0xFFFFFFFF,
    237: PRIVATE_APERTURE,
    238: PRIVATE_APERTURE + 0xFFFFFFFF,
}

DTYPES: dict[str, NumberType] = {
    "f64": np.float64,
    "u64": np.uint64,
    "i64": np.int64,
    "b64": np.uint64,
    "m64": np.uint64,
    "f32": np.float32,
    "i32": np.int32,
    "i24": np.int32,
    "f16": np.float16,
    "u16": np.uint16,
    "b16": np.uint16,
    "i16": np.int16,
    "bf16": np.uint16,
}
"""numpy's type for an operand's number format; everything else is 32 opaque bits."""


def unimplemented(instruction: Instruction, what: str = "") -> KernelFault:
    detail = f"unimplemented instruction {instruction}" + (f": {what}" if what else "")
    return KernelFault("crashed", detail)


def dtype_of(operand: Operand) -> NumberType:
    return DTYPES.get(operand.format, np.uint64 if operand.bits == 64 else np.uint32)


def constant(code: int, operand: Operand, literal: int) -> Array | None:
    """The value of an inline or literal constant in the operand's type; None when `code` is a register."""
    dtype = np.dtype(dtype_of(operand))
    if 128 <= code <= 208:
        number = code - 128 if code <= 192 else 192 - code
        width = f"i{dtype.itemsize}"
        return np.array(number, dtype=width).view(f"u{dtype.itemsize}").view(dtype)[()]
    if code in _INLINE_FLOATS:
        return _inline_float(_INLINE_FLOATS[code], dtype, operand)
    if code == LITERAL:
        return _literal(literal, dtype, operand)
    return None


def _inline_float(value: float, dtype: np.dtype[np.number], operand: Operand) -> Array:
    """A float constant takes the operand's width; where the format is integer, its float bits are used."""
    if operand.format == "bf16":
        return np.array(int(np.float32(value).view(np.uint32)) >> 16, np.uint16)[()]
    kinds: dict[int, NumberType] = {2: np.float16, 4: np.float32, 8: np.float64}
    return np.array(value, kinds[dtype.itemsize]).view(dtype)[()]


def _literal(literal: int, dtype: np.dtype[np.number], operand: Operand) -> Array:
    """32 bits: the high half of a float64, sign-extended to an int64, zero-extended to other 64-bit operands."""
    if dtype.itemsize == 2:
        return np.array(literal & 0xFFFF, np.uint16).view(dtype)[()]
    if dtype.itemsize == 4:
        return np.array(literal, np.uint32).view(dtype)[()]
    if operand.format == "f64":
        return np.array(literal << 32, np.uint64).view(np.float64)[()]
    extend = operand.format == "i64" and literal >> 31
    return np.array(literal | (0xFFFFFFFF00000000 if extend else 0), np.uint64).view(dtype)[()]


def scalar_source(instruction: Instruction, name: str) -> Read:
    """Reads a source of a scalar instruction as (n,) in the operand's type."""
    operand, code = instruction.operand(name), instruction.fields[name]
    value = constant(code, operand, instruction.literal)
    if value is not None:
        return lambda _m, _w: value
    dtype = dtype_of(operand)
    if code in (_VCCZ, _EXECZ, _SCC):
        return _flag(code, dtype)
    if code in _APERTURES and operand.bits == 64:
        aperture = np.array(_APERTURES[code], np.uint64).view(dtype)[()]
        return lambda _m, _w: aperture
    if code > EXEC + 1:
        raise unimplemented(instruction, f"scalar source {code}")
    if operand.bits == 64:
        return lambda m, w: pair(m.scalars[code, w], m.scalars[code + 1, w]).view(dtype)
    if operand.bits == 16:
        return lambda m, w: m.scalars[code, w].astype(np.uint16).view(dtype)
    return lambda m, w: m.scalars[code, w].view(dtype)


def _flag(code: int, dtype: NumberType) -> Read:
    if code == _SCC:
        return lambda m, w: m.scc[w].astype(dtype)
    register = VCC if code == _VCCZ else EXEC
    return lambda m, w: (m.scalars[register : register + 2, w] == 0).all(axis=0).astype(dtype)


def vector_source(instruction: Instruction, name: str, high_half: bool = False) -> Read:
    """Reads a source of a vector instruction as (n, 64), (n, 1) or a scalar in the operand's type.

    Of a 16-bit operand the low half of the register, or the high one, is read.
    """
    operand, code = instruction.operand(name), instruction.fields[name]
    if name.startswith("vsrc"):
        code += VGPR
    if code < VGPR:
        read = scalar_source(instruction, name)
        if constant(code, operand, instruction.literal) is not None:
            return read
        return lambda m, w: read(m, w)[:, None]
    return register_source(code - VGPR, operand, high_half)


def register_source(register: int, operand: Operand, high_half: bool = False) -> Read:
    """Reads vector register `register` (accumulation registers from 256) in the operand's type."""
    dtype = dtype_of(operand)
    if operand.bits == 64:
        return lambda m, w: pair(m.registers[register, w], m.registers[register + 1, w]).view(dtype)
    if operand.bits == 16:
        shift = np.uint32(16 if high_half else 0)
        return lambda m, w: (m.registers[register, w] >> shift).astype(np.uint16).view(dtype)
    if dtype is np.uint32:
        return lambda m, w: m.registers[register, w]
    return lambda m, w: m.registers[register, w].view(dtype)


def pair(low: Array, high: Array) -> Array:
    """64-bit values from their halves."""
    return low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))


def halves(value: Array) -> tuple[Array, Array]:
    """Low and high 32-bit words of 64-bit values."""
    bits = value.view(np.uint64)
    return bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)


def scalar_destination(instruction: Instruction, name: str = "sdst") -> Write:
    """Writes (n,) values of 32 or 64 bits to a scalar register or pair."""
    code, wide = instruction.fields[name], instruction.operand(name).bits == 64
    if code > EXEC + 1:
        raise unimplemented(instruction, f"scalar destination {code}")
    touches_exec = code in (EXEC, EXEC + 1)

    def write(m: Waves, w: Lanes, value: Array) -> None:
        if wide:
            m.scalars[code, w], m.scalars[code + 1, w] = halves(value)
        else:
            m.scalars[code, w] = value.view(np.uint32)
        if touches_exec:
            m.refresh_exec(w)

    return write


def vector_destination(register: int, operand: Operand) -> Write:
    """Writes (n, 64)-shaped values to vector register `register`; a 16-bit result clears the high half."""
    if operand.bits == 64:

        def write_wide(m: Waves, w: Lanes, value: Array) -> None:
            low, high = halves(value)
            m.write(register, w, low)
            m.write(register + 1, w, high)

        return write_wide
    if operand.bits == 16:
        return lambda m, w, value: m.write(register, w, value.view(np.uint16))

    return lambda m, w, value: m.write(register, w, value.view(np.uint32))
