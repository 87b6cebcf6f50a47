"""Vector operations that read or write lane masks: comparisons, selects, carries and division steps.

A lane mask is a pair of scalar registers. Inactive lanes of a produced mask are zero (AMD CDNA4 ISA guide, 6.8).
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Read, Step, unimplemented, vector_destination
from hktune.emulator.instructions.rounding import fused_double, in_fma, in_rounding
from hktune.emulator.instructions.vector_float import quiet_bit
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import EXEC, VCC, Lanes, Waves, pack, unpack

_ORDERED: dict[str, Callable[[Array, Array], Array]] = {
    "f": lambda a, b: np.zeros(np.broadcast(a, b).shape, bool),
    "lt": operator.lt,
    "eq": operator.eq,
    "le": operator.le,
    "gt": operator.gt,
    "lg": lambda a, b: (a < b) | (a > b),
    "ne": operator.ne,
    "ge": operator.ge,
    "o": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "u": lambda a, b: np.isnan(a) | np.isnan(b),
    "nge": lambda a, b: ~(a >= b),
    "nlg": lambda a, b: ~((a < b) | (a > b)),
    "ngt": lambda a, b: ~(a > b),
    "nle": lambda a, b: ~(a <= b),
    "neq": operator.ne,
    "nlt": lambda a, b: ~(a < b),
    "t": lambda a, b: np.ones(np.broadcast(a, b).shape, bool),
    "tru": lambda a, b: np.ones(np.broadcast(a, b).shape, bool),
}
_CARRIES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "v_add_co_u32": lambda a, b, c: a + b + c,
    "v_sub_co_u32": lambda a, b, c: a - b - c,
    "v_subrev_co_u32": lambda a, b, c: b - a - c,
    "v_addc_co_u32": lambda a, b, c: a + b + c,
    "v_subb_co_u32": lambda a, b, c: a - b - c,
    "v_subbrev_co_u32": lambda a, b, c: b - a - c,
}
_WITH_CARRY_IN = ("v_addc_co_u32", "v_subb_co_u32", "v_subbrev_co_u32")
_OTHERS = (
    "v_cndmask_b32",
    "v_mad_u64_u32",
    "v_mad_i64_i32",
    "v_div_scale_f32",
    "v_div_fmas_f32",
    "v_div_scale_f64",
    "v_div_fmas_f64",
)


def is_masked(name: str) -> bool:
    return name.startswith("v_cmp") or name in _CARRIES or name in _OTHERS


def build_masked(instruction: Instruction, sources: list[Read], mode: FloatMode) -> Step:
    """The step of an instruction that reads or writes a lane mask."""
    name = instruction.mnemonic
    if name.startswith("v_cmp"):
        return _compare(instruction, sources)
    if name in _CARRIES:
        return _carry(instruction, sources)
    if instruction.fields.get("clmp") or instruction.fields.get("omod"):
        raise unimplemented(instruction, "an output modifier")
    if name in ("v_div_fmas_f32", "v_div_fmas_f64"):
        fma = in_fma(mode) if name == "v_div_fmas_f32" else in_rounding("v_fma_f64", fused_double, mode)
        return _fused_division(instruction, sources, fma)
    return _BUILDERS[name](instruction, sources)


def write_mask(m: Waves, w: Lanes, register: int, mask: Array) -> None:
    """Store a lane mask, inactive lanes cleared."""
    active = m.active[w]
    m.scalars[register : register + 2, w] = pack(mask & active)


def _mask_destination(instruction: Instruction) -> int:
    if instruction.format == "VOP3SD":
        return instruction.fields["sdst"]
    if instruction.format == "VOP3":
        return instruction.fields["vdst"]
    if instruction.fields.get("sd"):
        return instruction.fields["sdst"]
    return VCC


def _mask_source(instruction: Instruction) -> int:
    return instruction.fields["src2"] if "src2" in instruction.operands else VCC


def _compare(instruction: Instruction, sources: list[Read]) -> Step:
    writes_exec = instruction.mnemonic.startswith("v_cmpx")
    kind = instruction.mnemonic.split("_")[2]
    test: Callable[[Array, Array], Array] = _class_of if kind == "class" else _ORDERED[kind]
    first, second = sources
    register = _mask_destination(instruction)

    def step(m: Waves, w: Lanes) -> None:
        write_mask(m, w, register, test(first(m, w), second(m, w)))
        if writes_exec:
            m.scalars[EXEC : EXEC + 2, w] = m.scalars[register : register + 2, w]
            m.refresh_exec(w)

    return step


def _class_of(value: Array, wanted: Array) -> Array:
    """v_cmp_class: bits 0-9 of `wanted` are signalling NaN, quiet NaN, -inf, -normal, -subnormal, -0, +0, ... +inf."""
    negative = np.signbit(value)
    bits, quiet = quiet_bit(value)
    magnitude = np.abs(value)
    normal = magnitude >= np.finfo(value.dtype).tiny
    size = np.where(np.isinf(value), 3, np.where(normal, 2, np.where(magnitude > 0, 1, 0)))
    number = np.where(np.isnan(value), bits & quiet != 0, np.where(negative, 5 - size, 6 + size))
    # v_cmp_class_f16's are called f16, and are not
    classes = wanted.view(f"u{wanted.dtype.itemsize}").astype(np.uint32)
    chosen: Array = (classes >> number.astype(np.uint32)) & np.uint32(1) == 1
    return chosen


def _carry(instruction: Instruction, sources: list[Read]) -> Step:
    operation, out = _CARRIES[instruction.mnemonic], _mask_destination(instruction)
    write = vector_destination(instruction.fields["vdst"], instruction.operand("vdst"))
    carry_in = _mask_source(instruction) if instruction.mnemonic in _WITH_CARRY_IN else None
    first, second = sources[:2]
    no_carry, clamps = np.zeros((), np.int64), bool(instruction.fields.get("clmp"))

    def step(m: Waves, w: Lanes) -> None:
        carry = no_carry if carry_in is None else unpack(m.scalars[carry_in : carry_in + 2, w]).astype(np.int64)
        total = operation(first(m, w).astype(np.int64), second(m, w).astype(np.int64), carry)
        write(m, w, (np.clip(total, 0, 0xFFFFFFFF) if clamps else total).astype(np.uint32))
        write_mask(m, w, out, (total < 0) | (total > 0xFFFFFFFF))

    return step


def _select(instruction: Instruction, sources: list[Read]) -> Step:
    """v_cndmask_b32: the second source where the mask is set."""
    write = vector_destination(instruction.fields["vdst"], instruction.operand("vdst"))
    register = _mask_source(instruction)
    unset, chosen = sources[:2]

    def step(m: Waves, w: Lanes) -> None:
        mask = unpack(m.scalars[register : register + 2, w])
        write(m, w, np.where(mask, chosen(m, w), unset(m, w)))

    return step


def _multiply_add(instruction: Instruction, sources: list[Read]) -> Step:
    """v_mad_u64_u32 and v_mad_i64_i32; the mask receives the carry out of 64 bits."""
    wide = np.uint64 if instruction.mnemonic == "v_mad_u64_u32" else np.int64
    write = vector_destination(instruction.fields["vdst"], instruction.operand("vdst"))
    out = _mask_destination(instruction)
    first, second, addend = sources

    def step(m: Waves, w: Lanes) -> None:
        product = first(m, w).astype(wide) * second(m, w).astype(wide)
        added = addend(m, w)
        total = product + added
        over = total < product if wide is np.uint64 else ((product ^ total) & (added ^ total)) < 0
        write(m, w, total)
        write_mask(m, w, out, over)

    return step


def _scale_division(instruction: Instruction, sources: list[Read]) -> Step:
    """v_div_scale: scales operands of a division out of the subnormal range (ISA guide, V_DIV_SCALE_F32 and _F64)."""
    write = vector_destination(instruction.fields["vdst"], instruction.operand("vdst"))
    out = _mask_destination(instruction)

    def step(m: Waves, w: Lanes) -> None:
        value, denominator, numerator = (np.broadcast_to(read(m, w), m.active[w].shape) for read in sources)
        scaled, flag = _scaled(value, denominator, numerator)
        write(m, w, scaled)
        write_mask(m, w, out, flag)

    return step


def _scaled(value: Array, denominator: Array, numerator: Array) -> tuple[Array, Array]:
    kind = value.dtype.type
    limits, (far, power) = np.finfo(kind), (96, 64) if kind is np.float32 else (768, 128)
    tiny, bias, few = limits.tiny, -int(limits.minexp), 23 if kind is np.float32 else 53
    gap = np.frexp(numerator)[1] - np.frexp(denominator)[1]
    tiny_inverse = np.abs(1.0 / denominator.astype(np.float64)) < tiny
    quotient = np.abs(numerator / denominator)
    tiny_quotient = (quotient < tiny) & (quotient > 0)
    up, down = np.ldexp(value, power).astype(kind), np.ldexp(value, -power).astype(kind)
    only = np.where(value == denominator, up, value)
    cases = [
        (numerator == 0) | (denominator == 0),
        gap >= far,
        np.abs(denominator) < tiny,
        tiny_inverse & tiny_quotient,
        tiny_inverse,
        tiny_quotient,
        np.frexp(numerator)[1] + bias <= few,
    ]
    last = np.where(value == numerator, up, value)
    results = [np.full_like(value, np.nan), only, up, only, down, last, up]
    flags = [False, True, False, True, False, True, False]
    return np.select(cases, results, value), np.select(cases, flags, False)


def _fused_division(instruction: Instruction, sources: list[Read], fma: Callable[..., Array]) -> Step:
    """v_div_fmas: a fused multiply-add, scaled where VCC says so."""
    write = vector_destination(instruction.fields["vdst"], instruction.operand("vdst"))

    def step(m: Waves, w: Lanes) -> None:
        a, b, c = (read(m, w) for read in sources)
        scale = unpack(m.scalars[VCC : VCC + 2, w])
        power = 64 if c.dtype.type is np.float32 else 128
        exponent = np.where(np.frexp(np.broadcast_to(c, scale.shape))[1] > 1, power, -power)
        total = fma(a, b, c)
        write(m, w, np.where(scale, np.ldexp(total, exponent).astype(c.dtype), total))

    return step


_BUILDERS: dict[str, Callable[[Instruction, list[Read]], Step]] = {
    "v_cndmask_b32": _select,
    "v_mad_u64_u32": _multiply_add,
    "v_mad_i64_i32": _multiply_add,
    "v_div_scale_f32": _scale_division,
    "v_div_scale_f64": _scale_division,
}
