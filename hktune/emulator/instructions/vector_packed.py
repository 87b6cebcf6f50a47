"""Packed operations: two 16-bit values in a register, or two float32 in a pair (AMD CDNA4 ISA guide, 6.7, 12.9)."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction, Operand
from hktune.emulator.instructions.operand_access import VGPR, Read, Step, constant, unimplemented
from hktune.emulator.instructions.rounding import fused, in_rounding
from hktune.emulator.instructions.vector_float import (
    greatest,
    largest_of_three,
    least,
    loosely_greatest,
    loosely_least,
    smallest_of_three,
)
from hktune.emulator.instructions.vector_integer import SATURATING, pack16, saturating
from hktune.emulator.instructions.vector_operands import clamped
from hktune.emulator.machine.float_mode import FloatMode, flushed
from hktune.emulator.machine.memory import Array, NumberType
from hktune.emulator.machine.waves import Lanes, Waves

Operation = Callable[..., Array]


def _shift_count(amount: Array, value: Array) -> Array:
    count: Array = amount & amount.dtype.type(15)
    return count.astype(value.dtype)


_SHAPES: dict[str, tuple[Operation, NumberType]] = {
    "v_pk_fma_f32": (fused, np.float32),
    "v_pk_mul_f32": (operator.mul, np.float32),
    "v_pk_add_f32": (operator.add, np.float32),
    "v_pk_fma_f16": (fused, np.float16),
    "v_pk_mul_f16": (operator.mul, np.float16),
    "v_pk_add_f16": (operator.add, np.float16),
    "v_pk_min_f16": (least, np.float16),
    "v_pk_max_f16": (greatest, np.float16),
    "v_pk_minimum3_f16": (smallest_of_three, np.float16),
    "v_pk_maximum3_f16": (largest_of_three, np.float16),
    "v_pk_mad_u16": (lambda a, b, c: a * b + c, np.uint16),
    "v_pk_mad_i16": (lambda a, b, c: a * b + c, np.int16),
    "v_pk_mul_lo_u16": (operator.mul, np.uint16),
    "v_pk_lshlrev_b16": (lambda a, b: b << _shift_count(a, b), np.uint16),
    "v_pk_lshrrev_b16": (lambda a, b: b >> _shift_count(a, b), np.uint16),
    "v_pk_ashrrev_i16": (lambda a, b: b >> _shift_count(a, b), np.int16),
}
for _type, _dtype in (("u16", np.uint16), ("i16", np.int16)):
    _SHAPES[f"v_pk_add_{_type}"] = (operator.add, _dtype)
    _SHAPES[f"v_pk_sub_{_type}"] = (operator.sub, _dtype)
    _SHAPES[f"v_pk_min_{_type}"] = (np.minimum, _dtype)
    _SHAPES[f"v_pk_max_{_type}"] = (np.maximum, _dtype)

PACKED = frozenset(_SHAPES) | {"v_pk_mov_b32"}
_NOT_IEEE: dict[str, Operation] = {"v_pk_min_f16": loosely_least, "v_pk_max_f16": loosely_greatest}


def build_packed(instruction: Instruction, mode: FloatMode) -> Step:
    """The step of a packed operation: the low result from the op_sel halves, the high one from the op_sel_hi halves."""
    fields, register = instruction.fields, instruction.fields["vdst"]
    if instruction.mnemonic == "v_pk_mov_b32":
        low, high = (
            half_source(instruction, "src0", fields["opsel"] & 1),
            half_source(instruction, "src1", fields["opsel"] >> 1 & 1),
        )
        return _write_pair(register, low, high)
    operation, dtype = _SHAPES[instruction.mnemonic]
    if not mode.ieee:
        operation = _NOT_IEEE.get(instruction.mnemonic, operation)
    if np.dtype(dtype).kind == "f":
        operation = _in_mode(in_rounding(instruction.mnemonic, operation, mode), dtype, mode)
    if fields["clmp"]:
        operation = _clamping(instruction, operation, dtype, mode)
    names = [name for name in ("src0", "src1", "src2") if name in instruction.operands]
    high_select = fields["opsel_hi"] | fields["opsel_hi2"] << 2
    low = _result(instruction, operation, dtype, names, fields["opsel"], fields["neg"])
    high = _result(instruction, operation, dtype, names, high_select, fields["neg_hi"])
    if dtype is np.float32:
        return _write_pair(register, low, high)
    return lambda m, w: m.write(register, w, pack16(low(m, w), high(m, w)))


def _in_mode(operation: Operation, dtype: NumberType, mode: FloatMode) -> Operation:
    """`operation`, subnormal sources and results flushed where `mode` asks."""
    keeps_sources, keeps_results = mode.keeps_sources(dtype), mode.keeps_results(dtype)

    def within(*values: Array) -> Array:
        result = operation(*(values if keeps_sources else map(flushed, values)))
        return result if keeps_results else flushed(result)

    return operation if keeps_sources and keeps_results else within


def _clamping(instruction: Instruction, operation: Operation, dtype: NumberType, mode: FloatMode) -> Operation:
    """`operation` with its result bounded: floats to 0 and 1, integers to their type."""
    if np.dtype(dtype).kind == "f":
        bounded = clamped(mode)
        return lambda *values: bounded(operation(*values))
    wide = SATURATING.get(instruction.mnemonic.replace("v_pk_", "v_"))
    if wide is None:
        raise unimplemented(instruction, "integer clamp")
    return saturating(wide, dtype)


def _write_pair(register: int, low: Read, high: Read) -> Step:
    def step(m: Waves, w: Lanes) -> None:
        first, second = np.array(low(m, w)).view(np.uint32), np.array(high(m, w)).view(np.uint32)
        m.write(register, w, first)
        m.write(register + 1, w, second)

    return step


def _result(
    instruction: Instruction, operation: Operation, dtype: NumberType, names: list[str], select: int, negate: int
) -> Read:
    """Reader of one half of the result."""
    reads = []
    for position, name in enumerate(names):
        read = half_source(instruction, name, select >> position & 1, dtype)
        reads.append(_negated(read) if negate >> position & 1 else read)
    return lambda m, w: operation(*(read(m, w) for read in reads))


def _negated(read: Read) -> Read:
    return lambda m, w: -read(m, w)


def half_source(instruction: Instruction, name: str, high: int, dtype: NumberType = np.uint32) -> Read:
    """Reader of one half of a packed source: a register of a pair, or 16 bits of a register."""
    code, wide = instruction.fields[name], np.dtype(dtype).itemsize == 4
    kind = np.dtype(dtype)
    form = Operand(8 * kind.itemsize, {"f": "f", "u": "u", "i": "i"}[kind.kind] + str(8 * kind.itemsize))
    value = constant(code, form, instruction.literal)
    if value is not None:
        return lambda _m, _w: value
    if wide:
        register = code - VGPR + high
        if code >= VGPR:
            return lambda m, w: m.registers[register, w].view(dtype)
        return lambda m, w: m.scalars[code + high, w].view(dtype)[:, None]
    shift = np.uint32(16 * high)
    if code >= VGPR:
        return lambda m, w: (m.registers[code - VGPR, w] >> shift).astype(np.uint16).view(dtype)
    return lambda m, w: (m.scalars[code, w] >> shift).astype(np.uint16).view(dtype)[:, None]
