"""Builds vector ALU steps: sources, the operation, the destination under EXEC (AMD CDNA4 ISA guide, chapter 6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import (
    Read,
    Step,
    Write,
    dtype_of,
    register_source,
    unimplemented,
)
from hktune.emulator.instructions.rounding import fused, fused_double, in_rounding
from hktune.emulator.instructions.vector_compare import build_masked, is_masked
from hktune.emulator.instructions.vector_dot import build_dot, is_dot
from hktune.emulator.instructions.vector_float import FLOAT, NOT_IEEE
from hktune.emulator.instructions.vector_integer import INTEGER, SATURATING, saturating
from hktune.emulator.instructions.vector_lanes import LANE_STEPS, with_dpp, with_sdwa
from hktune.emulator.instructions.vector_mixed import MIXED, build_mixed
from hktune.emulator.instructions.vector_operands import destination_of, in_mode, sources_of
from hktune.emulator.instructions.vector_packed import PACKED, build_packed
from hktune.emulator.instructions.vector_small import build_small, converts_small
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import Array

OPERATIONS: dict[str, Callable[..., Array]] = {**INTEGER, **FLOAT}
_TRUTH_TABLES = ("v_bitop3_b32", "v_bitop3_b16")
_ONLY_SHORT = frozenset({"v_accvgpr_mov_b32", "v_readfirstlane_b32", "v_swap_b32"})

_FUSED: dict[str, tuple[str, Callable[..., Array]]] = {
    **dict.fromkeys(("v_fmac_f32", "v_fmamk_f32", "v_fmaak_f32"), ("v_fma_f32", fused)),
    "v_fmac_f64": ("v_fma_f64", fused_double),
}
"""Those that add their destination or a constant, as the operation with three sources."""


def build_vector(instruction: Instruction, mode: FloatMode) -> Step:
    """The function that executes a vector ALU instruction. Raises KernelFault if there is none."""
    build = partial(_build, mode=mode)
    if instruction.variant == "dpp":
        return with_dpp(instruction, build)
    if instruction.variant == "sdwa":
        return with_sdwa(instruction, build)
    return build(instruction)


def _build(instruction: Instruction, mode: FloatMode) -> Step:
    name = instruction.mnemonic
    if instruction.format == "VOP3" and name in _ONLY_SHORT:
        raise unimplemented(instruction, "assemblers know its short encoding only")
    if name in LANE_STEPS:
        return LANE_STEPS[name](instruction)
    if is_masked(name):
        return build_masked(instruction, sources_of(instruction, mode), mode)
    if is_dot(name):
        return build_dot(instruction, mode)
    if name in MIXED:
        return build_mixed(instruction, mode)
    if name in PACKED:
        return build_packed(instruction, mode)
    if converts_small(name):
        return build_small(instruction, mode)
    operation, sources = _operation(instruction, mode)
    return _apply(operation, sources, destination_of(instruction, mode))


def _operation(instruction: Instruction, mode: FloatMode) -> tuple[Callable[..., Array], list[Read]]:
    name, sources = instruction.mnemonic, sources_of(instruction, mode)
    if name in _FUSED:
        return in_rounding(*_FUSED[name], mode), _with_addend(instruction, sources, mode)
    if name in _TRUTH_TABLES:
        return _truth_table(instruction), sources
    if name not in OPERATIONS:
        raise unimplemented(instruction)
    destination = instruction.operand("vdst")
    if instruction.fields.get("clmp") and not destination.format.startswith("f"):
        if name not in SATURATING:
            raise unimplemented(instruction, "integer clamp")
        return saturating(SATURATING[name], dtype_of(destination)), sources
    operation = OPERATIONS[name] if mode.ieee else NOT_IEEE.get(name, OPERATIONS[name])
    return in_rounding(name, operation, mode), sources


def _with_addend(instruction: Instruction, sources: list[Read], mode: FloatMode) -> list[Read]:
    """The three factors of v_fmac (adds the destination), v_fmamk (a * K + b) and v_fmaak (a * b + K)."""
    if instruction.mnemonic.startswith("v_fmac"):
        addend = register_source(instruction.fields["vdst"], instruction.operand("vdst"))
        return [*sources, in_mode(addend, instruction, "vdst", mode)]
    literal = np.array(instruction.literal, np.uint32).view(np.float32)[()]
    place = 1 if instruction.mnemonic == "v_fmamk_f32" else 2
    sources.insert(place, in_mode(lambda _m, _w: literal, instruction, "vdst", mode))
    return sources


def _truth_table(instruction: Instruction) -> Callable[..., Array]:
    """v_bitop3: an 8-entry truth table kept in the modifier fields; entry abc is bit 4a + 2b + c."""
    fields = instruction.fields
    table = fields["omod"] << 6 | fields["abs"] << 3 | fields["neg"]

    def operation(a: Array, b: Array, c: Array) -> Array:
        result = np.zeros(np.broadcast(a, b, c).shape, a.dtype)
        for entry in range(8):
            if table >> entry & 1:
                result |= (a if entry & 4 else ~a) & (b if entry & 2 else ~b) & (c if entry & 1 else ~c)
        return result

    return operation


def _apply(operation: Callable[..., Array], sources: list[Read], write: Write) -> Step:
    if len(sources) == 1:
        (only,) = sources
        return lambda m, w: write(m, w, operation(only(m, w)))
    if len(sources) == 2:
        first, second = sources
        return lambda m, w: write(m, w, operation(first(m, w), second(m, w)))
    first, second, third = sources
    return lambda m, w: write(m, w, operation(first(m, w), second(m, w), third(m, w)))
