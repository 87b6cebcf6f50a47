"""The number formats of operands and outputs: one record each, the only place where they are written.

A format is added here, and then named by an `Operation` (`f16.nt`); everything else reads the record. Numpy is imported
where numbers are converted: the command line and production read records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Bits: TypeAlias = "npt.NDArray[np.unsignedinteger]"
"""Numbers of one format as unsigned integers of its width: numpy has not all of the formats."""
Floats: TypeAlias = "npt.NDArray[np.floating]"


@dataclass(frozen=True)
class Dtype:
    """A number format. `torch_name` is torch's attribute, `significand_bits` counts the implicit one.

    `bytes` are those of what is stored as one: an element, or `packed` of them that are neighbours of a row, the first
    in the low bits. (Of 6 bits, `packed` elements are in `units` of what is stored.) `poison_bits` fills memory before
    a proof: a NaN that no arithmetic here produces, where the format has one, so memory that still holds it was never
    written. Of a format with a `block`, so many elements along K share one scale, which is an operand.
    """

    name: str
    torch_name: str
    bytes: int
    significand_bits: int
    poison_bits: int
    packed: int = 1
    block: int = 0
    units: int = 1

    @property
    def width_bits(self) -> int:
        """Bits of one element."""
        return 8 * self.bytes * self.units // self.packed

    @property
    def is_integer(self) -> bool:
        return False

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of one rounding to nearest in the normal range (Higham, Accuracy and Stability,
        theorem 2.2)."""
        return 2.0**-self.significand_bits

    @property
    def exponent_max(self) -> int:
        """Of the largest power of two (IEEE 754-2019, 3.3: emax)."""
        return int(2 ** (self.width_bits - self.significand_bits - 1)) - 1

    @property
    def exponent_min(self) -> int:
        """Of the smallest normal number."""
        return 2 - int(2 ** (self.width_bits - self.significand_bits - 1))

    @property
    def integer_max(self) -> int:
        """This integer, and all of smaller magnitude, are numbers of the format."""
        return int(2**self.significand_bits)

    @property
    def bits_type(self) -> np.dtype[np.unsignedinteger]:
        """The unsigned integer of this format's width."""
        import numpy as np

        return np.dtype(f"u{self.bytes}")

    def bits(self, values: Floats) -> Bits:
        """float32 -> this format, rounded to nearest even. What is too large, and inf, becomes inf; where there is no
        inf, the largest number. A NaN stays one; where there is none it is the largest number, or the integer 0."""
        import numpy as np

        exact = np.ascontiguousarray(values, dtype=np.float32)
        if self.name == "bf16":
            wide = exact.view(np.uint32)
            rounded = (wide + np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            # Rounding would carry a NaN of many bits to -0, and cut one of few bits to inf.
            return np.where(np.isnan(exact), (wide >> np.uint32(16)) | np.uint32(0x40), rounded).astype("u2")
        with np.errstate(over="ignore"):
            return exact.astype(f"f{self.bytes}").view(self.bits_type)

    def values(self, bits: Bits) -> Floats:
        """This format -> float32, exactly; float64 of integers."""
        import numpy as np

        if self.name == "bf16":
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return bits.astype(self.bits_type, copy=False).view(f"f{self.bytes}").astype(np.float32)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class SmallFloat(Dtype):
    """A format of 8 bits or fewer, whose numbers are in a table. Its largest number has the code `largest`; of larger
    codes without sign, `infinity` is one (None: there is none), and all others are NaN."""

    largest: int = 0
    infinity: int | None = None

    @property
    def exponent_max(self) -> int:
        import math

        return math.frexp(float(_values_of(self)[self.largest]))[1] - 1

    def bits(self, values: Floats) -> Bits:
        import numpy as np

        table = _values_of(self)[: self.largest + 1].astype(np.float64)
        table = np.append(table, 2 * table[-1] - table[-2])  # where the next one would be
        magnitude = np.abs(np.asarray(values, np.float64))
        below = np.clip(np.searchsorted(table, magnitude, side="right") - 1, 0, self.largest)
        middle = (table[below] + table[below + 1]) / 2
        codes = below + ((magnitude > middle) | ((magnitude == middle) & (below % 2 == 1)))
        codes = np.where(codes > self.largest, self.largest if self.infinity is None else self.infinity, codes)
        codes = np.where(np.isnan(magnitude), 2 ** (self.width_bits - 1) - 1, codes)
        signed = codes | np.signbit(values).astype(np.int64) << (self.width_bits - 1)
        return self._joined(signed).astype(np.uint8)

    def values(self, bits: Bits) -> Floats:
        import numpy as np

        table = _values_of(self)
        if self.packed == 1:
            return table[bits]
        groups = bits.reshape(*bits.shape[:-1], -1, self.units).astype(np.uint32)
        words = (groups << np.arange(0, 8 * self.units, 8, dtype=np.uint32)).sum(-1, dtype=np.uint32)
        codes: Bits = words[..., None] >> self._places & np.uint32(2**self.width_bits - 1)
        return table[codes.reshape(*bits.shape[:-1], -1)]

    def _joined(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self.packed == 1:
            return codes
        import numpy as np

        groups = codes.reshape(*codes.shape[:-1], -1, self.packed)
        words = (groups << self._places.astype(np.int64)).sum(-1)
        octets: npt.NDArray[np.int64] = words[..., None] >> np.arange(0, 8 * self.units, 8) & 0xFF
        return octets.reshape(*codes.shape[:-1], -1)

    @property
    def _places(self) -> npt.NDArray[np.uint32]:
        """The lowest bits of the elements that are stored together."""
        import numpy as np

        return np.arange(self.packed, dtype=np.uint32) * np.uint32(self.width_bits)


@lru_cache(maxsize=16)
def _values_of(form: SmallFloat) -> npt.NDArray[np.float32]:
    """The value of every code of `form` (IEEE 754-2019, 3.4, with the ends that `form` has)."""
    import numpy as np

    codes = np.arange(2**form.width_bits)
    magnitude = codes % 2 ** (form.width_bits - 1)
    fraction_bits = form.significand_bits - 1
    exponent, fraction = magnitude >> fraction_bits, magnitude % 2**fraction_bits
    significand = np.where(exponent > 0, fraction + 2**fraction_bits, fraction)
    values = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - 1 + form.exponent_min - fraction_bits)
    values = np.where(magnitude > form.largest, np.nan, values)
    if form.infinity is not None:
        values = np.where(magnitude == form.infinity, np.inf, values)
    return np.where(codes == magnitude, values, -values).astype(np.float32)


@dataclass(frozen=True)
class Integer(Dtype):
    """Two's complement. Values are rounded to nearest even, and the ends stand for what is beyond them."""

    @property
    def is_integer(self) -> bool:
        return True

    @property
    def integer_max(self) -> int:
        return int(2 ** (self.width_bits - 1)) - 1

    def bits(self, values: Floats) -> Bits:
        import numpy as np

        whole = np.clip(np.rint(np.asarray(values, np.float64)), -self.integer_max - 1, self.integer_max)
        whole = np.where(np.isnan(whole), 0, whole)
        return whole.astype(f"i{self.bytes}").view(self.bits_type)

    def values(self, bits: Bits) -> Floats:
        import numpy as np

        return bits.astype(self.bits_type, copy=False).view(f"i{self.bytes}").astype(np.float64)


@dataclass(frozen=True)
class PowerOfTwo(Dtype):
    """E8M0: the code c is 2^(c - 127), and 255 is a NaN (OCP Microscaling Formats 1.0, section 5.4.1). Values are
    rounded to the nearest, of two as near to the larger, without their sign. What is too large is a NaN, and so is inf.
    """

    def bits(self, values: Floats) -> Bits:
        import numpy as np

        magnitude = np.abs(np.asarray(values, np.float64))
        fraction, exponent = np.frexp(magnitude)
        codes = np.where(fraction > 0, exponent - 1 + (fraction >= 0.75) + 127, 0)
        return np.where(np.isfinite(magnitude), np.clip(codes, 0, 255), 255).astype(np.uint8)

    def values(self, bits: Bits) -> Floats:
        import numpy as np

        power = np.ldexp(np.float32(1), np.minimum(bits, 254).astype(np.int32) - 127)
        return np.where(bits == 255, np.float32(np.nan), power)


# Widths: IEEE 754-2019, table 3.5, for binary16 and binary32; bf16 is binary32 cut to its upper half.
BF16 = Dtype("bf16", "bfloat16", 2, 8, 0x7FD5)
F16 = Dtype("f16", "float16", 2, 11, 0x7ED5)
F32 = Dtype("f32", "float32", 4, 24, 0x7FD5_7FD5)
# OCP 8-bit floating point (OFP8) 1.0, table 1: E4M3 has one NaN of either sign and no infinity.
E4M3 = SmallFloat("e4m3", "float8_e4m3fn", 1, 4, 0xFF, largest=0x7E)
E5M2 = SmallFloat("e5m2", "float8_e5m2", 1, 3, 0xFD, largest=0x7B, infinity=0x7C)
# OCP Microscaling Formats 1.0, table 1: with a scale of E8M0 for 32 elements. MXFP8 is E4M3 or E5M2, MXFP6 E2M3 or
# E3M2, and MXFP4 E2M1. The second ones have AMD's names, bf8 and bf6. Below 8 bits none has a NaN: the poison is of
# large numbers.
MXFP8 = SmallFloat("mxfp8", "float8_e4m3fn", 1, 4, 0xFF, block=32, largest=0x7E)
MXBF8 = SmallFloat("mxbf8", "float8_e5m2", 1, 3, 0xFD, block=32, largest=0x7B, infinity=0x7C)
MXFP6 = SmallFloat("mxfp6", "", 1, 4, 0x77, packed=4, block=32, units=3, largest=0x1F)
MXBF6 = SmallFloat("mxbf6", "", 1, 3, 0x77, packed=4, block=32, units=3, largest=0x1F)
MXFP4 = SmallFloat("mxfp4", "float4_e2m1fn_x2", 1, 2, 0x77, packed=2, block=32, largest=0x7)
I8 = Integer("i8", "int8", 1, 7, 0x55)
I32 = Integer("i32", "int32", 4, 31, 0x7FD5_7FD5)
E8M0 = PowerOfTwo("e8m0", "float8_e8m0fnu", 1, 1, 0xFF)
"""What blocks are scaled by; no operation names it."""

FLOAT8 = frozenset({E4M3, E5M2})
DTYPES = {dtype.name: dtype for dtype in (BF16, F16, F32, E4M3, E5M2, MXFP8, MXBF8, MXFP6, MXBF6, MXFP4, I8, I32)}
