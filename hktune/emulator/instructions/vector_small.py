"""Conversions between the floats of 4, 6 and 8 bits and the wider ones (AMD CDNA4 ISA guide, 12.8 and 12.11).

A name says what happens: v_cvt_[scalef32_][sr_][pk_|pk32_|2xpk16_]TO_FROM. With `scalef32` the exponent of a float32
source is a scale: values are divided by it before they are narrowed and multiplied after they are widened. `sr` rounds
stochastically with the random bits of a source; of several values each next one gets the bits of v_prng_b32.
The guide's formula of v_cvt_sr adds those bits and then rounds to nearest, which would round up twice; here, as in
ROCm's host library for these types, what is below the last bit is cut off after the addition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import VGPR, Read, Step, unimplemented, vector_source
from hktune.emulator.instructions.rounding import round_to_bf16
from hktune.emulator.instructions.small_floats import FORMATS, pack_codes, scale_of, unpack_codes
from hktune.emulator.instructions.vector_integer import next_random
from hktune.emulator.instructions.vector_operands import modified_source
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes, Waves

_SMALL = "fp8|bf8|fp6|bf6|fp4"
_WIDE = "f32|f16|bf16"
_NARROWING = re.compile(rf"v_cvt_(scalef32_)?(sr_)?(pk_|pk32_|2xpk16_)?({_SMALL})_({_WIDE})$")
_WIDENING = re.compile(rf"v_cvt_(scalef32_)?()(pk_|pk32_)?({_WIDE})_({_SMALL})$")
_COUNTS = {None: 1, "pk_": 2, "pk32_": 32, "2xpk16_": 32}


@dataclass(frozen=True)
class _Conversion:
    """What the mnemonic says: `count` values `from_type` to `to_type`, `two_sources` of them interleaved."""

    scaled: bool
    stochastic: bool
    count: int
    two_sources: bool
    to_type: str
    from_type: str


def converts_small(name: str) -> bool:
    """Whether the instruction converts from or to a float of at most 8 bits."""
    return bool(_NARROWING.match(name) or _WIDENING.match(name))


def build_small(instruction: Instruction, mode: FloatMode) -> Step:
    """The step of such a conversion."""
    found = _NARROWING.match(instruction.mnemonic) or _WIDENING.match(instruction.mnemonic)
    assert found is not None
    pairs = found[3] == "2xpk16_" or (found[3] == "pk_" and found[5] == "f32" and not found[2])
    two = pairs and found[4] in FORMATS
    what = _Conversion(bool(found[1]), bool(found[2]), _COUNTS[found[3]], two, found[4], found[5])
    if instruction.fields.get("clmp") or instruction.fields.get("omod"):
        raise unimplemented(instruction, "an output modifier")
    return _narrow(instruction, what, mode.fp16_overflow) if what.to_type in FORMATS else _widen(instruction, what)


def _narrow(instruction: Instruction, what: _Conversion, saturates: bool) -> Step:
    form, read = FORMATS[what.to_type], _wide_values(instruction, what)
    bits, register = form.bits * what.count, instruction.fields["vdst"]
    random = _words(instruction, "src1") if what.stochastic else None
    scale = _scale(instruction, what)
    shift = 8 * (instruction.fields["opsel"] >> 2)
    mask = np.uint32(((1 << bits) - 1) << shift & 0xFFFFFFFF)

    def step(m: Waves, w: Lanes) -> None:
        values = read(m, w)
        if scale is not None:
            values = values / scale(m, w)
        codes = form.encode(values, _randoms(random(m, w), what.count) if random else None, saturates)
        if bits > 32:
            m.deliver(register, w, pack_codes(np.moveaxis(codes, 0, -1), form.bits))
            return
        packed = codes[0] if what.count == 1 else codes[0] | codes[1] << np.uint32(form.bits)
        m.write(register, w, m.registers[register, w] & ~mask | packed << np.uint32(shift))

    return step


def _widen(instruction: Instruction, what: _Conversion) -> Step:
    form, register, opsel = FORMATS[what.from_type], instruction.fields["vdst"], instruction.fields.get("opsel", 0)
    words = -(-form.bits * what.count // 32)
    place = opsel & 1 if form.bits * what.count == 16 else opsel & 3
    shift = np.uint32(0 if words > 1 else place * form.bits * what.count)
    source = _registers(instruction, "src0", words)
    scale = _scale(instruction, what)
    half = opsel >> 3 & 1 if what.count == 1 and what.to_type == "f16" else None

    def step(m: Waves, w: Lanes) -> None:
        codes = unpack_codes(np.moveaxis(source(m, w) >> shift, 0, -1), form.bits)[..., : what.count]
        values = np.moveaxis(form.decode(codes), -1, 0).astype(np.float64)
        if scale is not None:
            values = values * scale(m, w)
        if half is not None:
            kept = m.registers[register, w] & np.uint32(0xFFFF if half else 0xFFFF0000)
            m.write(register, w, kept | _bits(values[0], "f16") << np.uint32(16 * half))
            return
        m.deliver(register, w, np.moveaxis(_packed_wide(values, what.to_type), 0, -1))

    return step


def _scale(instruction: Instruction, what: _Conversion) -> Callable[[Waves, Lanes], Array] | None:
    """Reader of the scale as float64: the exponent of the last source."""
    if not what.scaled:
        return None
    read = _words(instruction, "src2" if "src2" in instruction.operands else "src1")
    return lambda m, w: scale_of((read(m, w) >> np.uint32(23)) & np.uint32(0xFF))


def _words(instruction: Instruction, name: str) -> Read:
    read = vector_source(instruction, name)
    return lambda m, w: np.asarray(read(m, w)).view(np.uint32)


def _registers(instruction: Instruction, name: str, count: int) -> Read:
    """Reader of (count, n, 64) words of a source; of a scalar one only if one is enough."""
    code = instruction.fields[name]
    if code >= VGPR:
        return lambda m, w: m.registers[code - VGPR : code - VGPR + count, w]
    if count > 1 or code > 127:
        raise unimplemented(instruction, f"source {code}")
    return lambda m, w: np.broadcast_to(m.scalars[code, w][None, :, None], (1, *m.active[w].shape))


def _wide_values(instruction: Instruction, what: _Conversion) -> Read:
    """Reader of (count, n, 64) float64 values in the order of the result."""
    names = ("src0", "src1") if what.two_sources else ("src0",)
    each = what.count // len(names)
    if each == 1:
        high = bool(instruction.fields["opsel"] & 1) and what.from_type != "f32"
        reads = [_one_value(instruction, name, what.from_type, high) for name in names]
        return lambda m, w: np.stack([np.broadcast_to(read(m, w), m.active[w].shape) for read in reads])
    size = each if what.from_type == "f32" else each // 2
    sources = [_registers(instruction, name, size) for name in names]

    def read_all(m: Waves, w: Lanes) -> Array:
        values = [_unpacked_wide(source(m, w), what.from_type) for source in sources]
        return values[0] if len(values) == 1 else np.stack(values, axis=1).reshape(-1, *values[0].shape[1:])

    return read_all


def _one_value(instruction: Instruction, name: str, kind: str, high: bool) -> Read:
    number = int(name[-1])
    read = vector_source(instruction, name, high) if high else modified_source(instruction, name, number)
    if kind == "bf16":
        return lambda m, w: (np.asarray(read(m, w)).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(float)
    return lambda m, w: np.asarray(read(m, w)).astype(np.float64)


def _unpacked_wide(words: Array, kind: str) -> Array:
    """(count, ...) float64 of (registers, ...) words."""
    if kind == "f32":
        return np.ascontiguousarray(words).view(np.float32).astype(np.float64)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=1).reshape(-1, *words.shape[1:])
    if kind == "bf16":
        return (halves << np.uint32(16)).view(np.float32).astype(np.float64)
    return halves.astype(np.uint16).view(np.float16).astype(np.float64)


def _bits(values: Array, kind: str) -> Array:
    """uint32 holding the bits of float64 values rounded to `kind`."""
    if kind == "f32":
        return values.astype(np.float32).view(np.uint32)
    if kind == "bf16":
        return round_to_bf16(values.astype(np.float32)).astype(np.uint32)
    return values.astype(np.float16).view(np.uint16).astype(np.uint32)


def _packed_wide(values: Array, kind: str) -> Array:
    """(registers, ...) words of (count, ...) values."""
    bits = _bits(values, kind)
    return bits if kind == "f32" else bits[::2] | bits[1::2] << np.uint32(16)


def _randoms(first: Array, count: int) -> Array:
    """(count, ...) random words: `first`, and what v_prng_b32 makes of each for the next."""
    words = [np.asarray(first)]
    for _ in range(count - 1):
        words.append(next_random(words[-1]))
    return np.stack(words)
