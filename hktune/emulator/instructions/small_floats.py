"""Floats of 4, 6 and 8 bits, to and from float32: the OCP formats (OFP8 1.0; Microscaling 1.0, section 5.3).

fp8 is E4M3 (no infinity, one NaN a sign), bf8 E5M2, fp6 E2M3, bf6 E3M2, fp4 E2M1 (the last three have neither). gfx950
has the OCP's fp8 and bf8, not those of gfx942. A scale is E8M0: 2**(code - 127), and NaN for 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hktune.emulator.machine.memory import Array

F64 = np.float64
_SCALE_BIAS = 127
SCALE_NAN = 255


@dataclass(frozen=True)
class SmallFloat:
    """A format of a sign, `exponent_bits` and `mantissa_bits`. Codes above `largest` (of a positive number) are not
    finite: `infinity` is the code of one, None where there is none; `nan` likewise. Without either, results saturate.
    """

    exponent_bits: int
    mantissa_bits: int
    largest: int
    infinity: int | None = None
    nan: int | None = None

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def _lowest_exponent(self) -> int:
        return 2 - (1 << (self.exponent_bits - 1))

    @cached_property
    def values(self) -> npt.NDArray[np.float32]:
        """The value of every code."""
        codes = np.arange(1 << self.bits)
        magnitude = codes & (1 << (self.bits - 1)) - 1
        exponent, mantissa = magnitude >> self.mantissa_bits, magnitude & (1 << self.mantissa_bits) - 1
        hidden = np.where(exponent > 0, 1 << self.mantissa_bits, 0)
        power = np.maximum(exponent, 1) - 1 + self._lowest_exponent - self.mantissa_bits
        value = np.ldexp((mantissa + hidden).astype(F64), power)
        value = np.where(magnitude > self.largest, np.nan, value)
        if self.infinity is not None:
            value = np.where(magnitude == self.infinity, np.inf, value)
        return np.where(codes >> (self.bits - 1), -value, value).astype(np.float32)

    def decode(self, codes: Array) -> Array:
        """float32 of integer codes."""
        return self.values[codes]

    def encode(self, value: Array, random: Array | None = None, saturates: bool = False) -> Array:
        """uint32 codes of float64 values, rounded to nearest even, ties to an even code.

        With `random`, uint32, rounded away from zero with the probability that the distance gives: its high bits,
        one for each mantissa bit that float32 has more, are added below the last bit kept, and the rest is cut off.
        `saturates` (FP16_OVFL): what is finite and too large becomes the largest number.
        """
        exponent = np.where(value == 0, self._lowest_exponent, np.frexp(value)[1] - 1)
        exponent = np.maximum(exponent, self._lowest_exponent)
        steps = np.ldexp(np.abs(value), self.mantissa_bits - exponent)
        whole = np.isfinite(value)
        steps = np.where(whole, steps, 0.0)
        if random is None:
            count = np.rint(steps)
        else:
            dropped = 23 - self.mantissa_bits
            noise = np.asarray(random, np.uint32) >> np.uint32(32 - dropped)
            count = np.floor(steps + noise.astype(F64) * 2.0**-dropped)
        normal = np.where(whole, exponent - self._lowest_exponent, 0)
        codes = (normal << self.mantissa_bits) + count.astype(np.int64)
        codes = self._bounded(codes, value)
        if saturates:
            codes = np.where((codes > self.largest) & whole, self.largest, codes)
        sign = np.signbit(value).astype(np.int64) << (self.bits - 1)
        return (codes | sign).astype(np.uint32)

    def _bounded(self, codes: Array, value: Array) -> Array:
        """Codes of magnitudes, what is too large and what is no number put right."""
        over = self.infinity if self.infinity is not None else self.nan if self.nan is not None else self.largest
        codes = np.where((codes > self.largest) | np.isinf(value), over, codes)
        return np.where(np.isnan(value), self.largest if self.nan is None else self.nan, codes)


FORMATS = {
    "fp8": SmallFloat(4, 3, largest=0x7E, nan=0x7F),
    "bf8": SmallFloat(5, 2, largest=0x7B, infinity=0x7C, nan=0x7F),
    "fp6": SmallFloat(2, 3, largest=0x1F),
    "bf6": SmallFloat(3, 2, largest=0x1F),
    "fp4": SmallFloat(2, 1, largest=0x7),
}


def scale_of(code: Array) -> Array:
    """float64 of an E8M0 scale's code."""
    return np.where(code == SCALE_NAN, np.nan, np.ldexp(1.0, code.astype(np.int64) - _SCALE_BIAS))


def unpack_codes(words: Array, bits: int) -> Array:
    """Codes of `bits` bits, the lowest first, from uint32 (..., registers) words as (..., codes)."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return octets
    if bits == 4:
        return np.stack([octets & 15, octets >> 4], axis=-1).reshape(*octets.shape[:-1], -1)
    low, middle, high = (octets[..., i::3].astype(np.uint32) for i in range(3))
    triple = low | middle << np.uint32(8) | high << np.uint32(16)
    parts = [(triple >> np.uint32(6 * i)) & np.uint32(63) for i in range(4)]
    return np.stack(parts, axis=-1).reshape(*triple.shape[:-1], -1)


def pack_codes(codes: Array, bits: int) -> Array:
    """The reverse of unpack_codes: uint32 (..., registers); codes beyond a whole register are not kept."""
    ones = (codes[..., None] >> np.arange(bits, dtype=np.uint32)) & np.uint32(1)
    flat = ones.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    return np.packbits(flat, axis=-1, bitorder="little").view(np.uint32)
