"""Multiply and add of sources that are float32 or float16 each (AMD CDNA4 ISA guide, 12.9).

AMD's compiler uses them for fma of float32, so they round that once; what goes to half of a register is rounded to
float16 after that.
"""

from __future__ import annotations

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Read, Step
from hktune.emulator.instructions.rounding import in_fma, to_half
from hktune.emulator.instructions.vector_operands import clamped, write_half
from hktune.emulator.instructions.vector_packed import half_source
from hktune.emulator.machine.float_mode import FloatMode, flushed
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes, Waves

MIXED = frozenset({"v_mad_mix_f32", "v_mad_mixlo_f16", "v_mad_mixhi_f16"})
_F16, F32 = np.float16, np.float32


def build_mixed(instruction: Instruction, mode: FloatMode) -> Step:
    """The step of one of MIXED: `opsel_hi` says which sources are float16, `opsel` which half of a register they are,
    `neg_hi` of which the magnitude is meant."""
    fields = instruction.fields
    a, b, c = (_source(instruction, position, mode) for position in range(3))
    register, keeps_f32, fma = fields["vdst"], mode.keeps_results(F32), in_fma(mode)
    bounded = clamped(mode) if fields["clmp"] else lambda value: value

    def result(m: Waves, w: Lanes) -> Array:
        total = fma(a(m, w), b(m, w), c(m, w))
        return total if keeps_f32 else flushed(total)

    if instruction.mnemonic == "v_mad_mix_f32":
        return lambda m, w: m.write(register, w, bounded(result(m, w)).view(np.uint32))
    narrow = to_half(mode)
    write, keeps_f16 = write_half(register, instruction.mnemonic == "v_mad_mixhi_f16"), mode.keeps_results(_F16)

    def narrowed(m: Waves, w: Lanes) -> None:
        value = narrow(result(m, w))
        write(m, w, bounded(value if keeps_f16 else flushed(value)))

    return narrowed


def _source(instruction: Instruction, position: int, mode: FloatMode) -> Read:
    """Reader of source number `position` as float32."""
    fields = instruction.fields
    is_half = (fields["opsel_hi"] | fields["opsel_hi2"] << 2) >> position & 1
    dtype = _F16 if is_half else F32
    read = half_source(instruction, f"src{position}", is_half and fields["opsel"] >> position & 1, dtype)
    negate, magnitude = fields["neg"] >> position & 1, fields["neg_hi"] >> position & 1
    keeps = mode.keeps_sources(dtype)

    def modified(m: Waves, w: Lanes) -> Array:
        value = read(m, w)
        value = (value if keeps else flushed(value)).astype(F32)
        value = np.abs(value) if magnitude else value
        return -value if negate else value

    return modified
