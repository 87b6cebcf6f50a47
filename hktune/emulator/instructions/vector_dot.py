"""Dot products of packed numbers in a register, added to a third source or to the destination (AMD CDNA4 ISA guide,
sections 12.7 and 12.9).

Integers: products and sums are exact, and wrap in 32 bits or are clamped. Floats: products are exact in float32, and
are added to the sum one after another, the low half's first. AMD has not published how sums are rounded inside, so they
agree with hardware to their rounding, not bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Read, Step, register_source, unimplemented, vector_source
from hktune.emulator.instructions.rounding import in_fma
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes, Waves

_NAME = re.compile(r"v_dot([248])(c?)_([fiu])32_(bf16|f16|[iu](?:16|8|4))$")
_ALL_HIGH = 3  # op_sel_hi as assemblers leave it
F32, U32 = np.float32, np.uint32


def is_dot(name: str) -> bool:
    return _NAME.match(name) is not None


def build_dot(instruction: Instruction, mode: FloatMode) -> Step:
    """The step of a dot product. Raises KernelFault for modifiers that are not emulated."""
    found = _NAME.match(instruction.mnemonic)
    assert found is not None
    fields = instruction.fields
    swapped = fields.get("opsel", 0) or fields.get("opsel_hi", _ALL_HIGH) != _ALL_HIGH
    if swapped or fields.get("neg") or fields.get("neg_hi") or fields.get("abs") or fields.get("omod"):
        raise unimplemented(instruction, "a modifier of a dot product")
    first = vector_source(instruction, "src0")
    second = vector_source(instruction, "vsrc1" if "vsrc1" in instruction.operands else "src1")
    kind, clamps = found[4], bool(fields.get("clmp"))
    addend = _addend(instruction, bool(found[2]))
    if kind in ("f16", "bf16"):
        if clamps:
            raise unimplemented(instruction, "a clamp of a dot product")
        operation = _floats(_WIDEN[kind], in_fma(mode))
    else:
        operation = _integers(int(found[1]), int(kind[1:]), kind[0] == "i", clamps)
    target = fields["vdst"]

    def step(m: Waves, w: Lanes) -> None:
        m.write(target, w, operation(_words(first(m, w)), _words(second(m, w)), _words(addend(m, w))))

    return step


def _words(value: Array) -> Array:
    return np.asarray(value).view(U32)


def _addend(instruction: Instruction, destination: bool) -> Read:
    if destination:
        return register_source(instruction.fields["vdst"], instruction.operand("vdst"))
    return vector_source(instruction, "src2")


_WIDEN: dict[str, Callable[[Array], Array]] = {
    "f16": lambda half: half.astype(np.uint16).view(np.float16).astype(F32),
    "bf16": lambda half: (half << U32(16)).view(F32),
}


def _floats(widen: Callable[[Array], Array], fma: Callable[..., Array]) -> Callable[..., Array]:
    low, high = U32(0xFFFF), U32(16)

    def total(a: Array, b: Array, c: Array) -> Array:
        total = fma(widen(a & low), widen(b & low), c.view(F32))
        return np.asarray(fma(widen(a >> high), widen(b >> high), total)).view(U32)

    return total


def _integers(count: int, bits: int, signed: bool, clamps: bool) -> Callable[..., Array]:
    mask, sign = (1 << bits) - 1, 1 << (bits - 1) if signed else 0
    least, most = (-(1 << 31), (1 << 31) - 1) if signed else (0, (1 << 32) - 1)

    def part(word: Array, at: int) -> Array:
        found: Array = (((word >> U32(bits * at)).astype(np.int64) & mask) ^ sign) - sign
        return found

    def total(a: Array, b: Array, c: Array) -> Array:
        total = c.view(np.int32 if signed else U32).astype(np.int64)
        for at in range(count):
            total = total + part(a, at) * part(b, at)
        return (np.clip(total, least, most) if clamps else total).astype(U32)

    return total
