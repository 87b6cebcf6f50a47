"""Builds vector ALU steps: sources with their modifiers, the operation, the destination under EXEC.

Modifiers: AMD CDNA4 ISA guide, section 6.2 (neg, abs, omod, clamp, op_sel), SDWA and DPP sections 6.5 and 6.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import (
    Read,
    Step,
    Write,
    dtype_of,
    register_source,
    unimplemented,
    vector_destination,
    vector_source,
)
from hktune.emulator.instructions.vector_compare import build_masked, is_masked
from hktune.emulator.instructions.vector_float import FLOAT, fused
from hktune.emulator.instructions.vector_integer import INTEGER
from hktune.emulator.instructions.vector_lanes import LANE_STEPS, with_dpp, with_sdwa
from hktune.emulator.instructions.vector_packed import PACKED, build_packed
from hktune.emulator.machine.waves import Lanes, Waves

OPERATIONS: dict[str, Callable[..., Any]] = {**INTEGER, **FLOAT}
_KEEP_OTHER_HALF = frozenset({"v_mad_u16", "v_fma_f16"})
"""16-bit results that leave the other half of the register alone; the older operations clear the high half."""
_ONLY_SHORT = frozenset({"v_accvgpr_mov_b32", "v_readfirstlane_b32", "v_swap_b32"})
_OUTPUT_SCALE = {1: 2.0, 2: 4.0, 3: 0.5}


def build_vector(instruction: Instruction) -> Step:
    """The function that executes a vector ALU instruction. Raises KernelFault if there is none."""
    if instruction.variant == "dpp":
        return with_dpp(instruction, _build)
    if instruction.variant == "sdwa":
        return with_sdwa(instruction, _build)
    return _build(instruction)


def _build(instruction: Instruction) -> Step:
    name = instruction.mnemonic
    if instruction.format == "VOP3" and name in _ONLY_SHORT:
        raise unimplemented(instruction, "assemblers know its short encoding only")
    if name in LANE_STEPS:
        return LANE_STEPS[name](instruction)
    if is_masked(name):
        return build_masked(instruction, sources_of(instruction))
    if name in PACKED:
        return build_packed(instruction)
    operation, sources = _operation(instruction)
    return _apply(operation, sources, destination_of(instruction))


def _operation(instruction: Instruction) -> tuple[Callable[..., Any], list[Read]]:
    name, sources = instruction.mnemonic, sources_of(instruction)
    if name in ("v_fmac_f32", "v_fmamk_f32", "v_fmaak_f32"):
        return fused, _with_addend(instruction, sources)
    if name == "v_bitop3_b32":
        return _truth_table(instruction), sources
    if name not in OPERATIONS:
        raise unimplemented(instruction)
    return OPERATIONS[name], sources


def sources_of(instruction: Instruction) -> list[Read]:
    """Readers of the explicit sources in order, neg, abs and op_sel applied."""
    names = [name for name in ("src0", "vsrc1", "src1", "src2") if name in instruction.operands]
    return [_modified(instruction, name, position) for position, name in enumerate(names)]


def _modified(instruction: Instruction, name: str, position: int) -> Read:
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

    def modified(m: Waves, w: Lanes) -> Any:
        bits = read(m, w).view(sign.dtype)
        bits = bits & ~sign if absolute else bits
        return (bits ^ sign if negate else bits).view(dtype)

    return modified


def _with_addend(instruction: Instruction, sources: list[Read]) -> list[Read]:
    """The three factors of v_fmac (adds the destination), v_fmamk (a * K + b) and v_fmaak (a * b + K)."""
    if instruction.mnemonic == "v_fmac_f32":
        return [*sources, register_source(instruction.fields["vdst"], instruction.operand("vdst"))]
    literal = np.array(instruction.literal, np.uint32).view(np.float32)[()]
    place = 1 if instruction.mnemonic == "v_fmamk_f32" else 2
    sources.insert(place, lambda _m, _w: literal)
    return sources


def _truth_table(instruction: Instruction) -> Callable[..., Any]:
    """v_bitop3: an 8-entry truth table kept in the modifier fields; entry abc is bit 4a + 2b + c."""
    fields = instruction.fields
    table = fields["omod"] << 6 | fields["abs"] << 3 | fields["neg"]

    def operation(a: Any, b: Any, c: Any) -> Any:
        result = np.zeros(np.broadcast(a, b, c).shape, np.uint32)
        for entry in range(8):
            if table >> entry & 1:
                result |= (a if entry & 4 else ~a) & (b if entry & 2 else ~b) & (c if entry & 1 else ~c)
        return result

    return operation


def destination_of(instruction: Instruction) -> Write:
    """Writer of the vector destination, output modifiers applied."""
    operand, fields = instruction.operand("vdst"), instruction.fields
    write = vector_destination(fields["vdst"], operand)
    if operand.bits == 16 and (fields.get("opsel", 0) & 8 or instruction.mnemonic in _KEEP_OTHER_HALF):
        write = _one_half(fields["vdst"], bool(fields["opsel"] & 8))
    scale, clamp = fields.get("omod", 0), fields.get("clmp", 0)
    if not (scale or clamp) or instruction.mnemonic.startswith("v_bitop3"):
        return write
    if not operand.format.startswith("f"):
        raise unimplemented(instruction, "integer clamp")

    def shaped(m: Waves, w: Lanes, value: Any) -> None:
        kind = value.dtype.type
        value = value * kind(_OUTPUT_SCALE[scale]) if scale else value
        write(m, w, np.clip(np.nan_to_num(value, nan=0.0), kind(0), kind(1)) if clamp else value)

    return shaped


def _one_half(register: int, high: bool) -> Write:
    kept, shift = np.uint32(0xFFFF if high else 0xFFFF0000), np.uint32(16 if high else 0)

    def write(m: Waves, w: Lanes, value: Any) -> None:
        other = m.registers[register, w] & kept
        m.write(register, w, other | value.view(np.uint16).astype(np.uint32) << shift)

    return write


def _apply(operation: Callable[..., Any], sources: list[Read], write: Write) -> Step:
    if len(sources) == 1:
        (only,) = sources
        return lambda m, w: write(m, w, operation(only(m, w)))
    if len(sources) == 2:
        first, second = sources
        return lambda m, w: write(m, w, operation(first(m, w), second(m, w)))
    first, second, third = sources
    return lambda m, w: write(m, w, operation(first(m, w), second(m, w), third(m, w)))
