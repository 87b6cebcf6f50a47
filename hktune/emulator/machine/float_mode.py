"""The float part of a wave's MODE register: set by the kernel's descriptor at the start, and by s_setreg later.

Bits of compute_pgm_rsrc1: LLVM's AMDGPUUsage, "Kernel Descriptor"; of MODE and their meaning: AMD CDNA4 ISA guide,
section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.emulator.machine.memory import Array, NumberType

_KEEP_SOURCES, _KEEP_RESULTS = 1, 2
_SINGLE_BYTES = 4
NEAREST, UP, DOWN, TOWARD_ZERO = range(4)
"""Roundings, by their numbers in MODE. Nearest is to even."""


@dataclass(frozen=True)
class FloatMode:
    """Rounding and subnormals, of float32 and of the other widths; what clamping and minima make of a NaN.

    `denormals_*`: bit 0 keeps subnormal sources, bit 1 subnormal results; what is not kept becomes a zero of its sign.
    `fp16_overflow`: a finite result too large for float16 (or fp8, bf8) becomes the largest number, not infinity.
    """

    rounding_32: int = NEAREST
    rounding_16_64: int = NEAREST
    denormals_32: int = 3
    denormals_16_64: int = 3
    dx10_clamp: bool = True
    ieee: bool = True
    fp16_overflow: bool = False

    @classmethod
    def read(cls, rsrc1: int) -> FloatMode:
        """As a kernel descriptor asks for it."""
        flags = (rsrc1 >> 21 & 1) << 8 | (rsrc1 >> 23 & 1) << 9 | (rsrc1 >> 26 & 1) << 23
        return cls.of_register(rsrc1 >> 12 & 0xFF | flags)

    @classmethod
    def of_register(cls, register: int) -> FloatMode:
        """Of MODE's bits; those that are not of floats do not count."""
        return cls(
            rounding_32=register & 3,
            rounding_16_64=register >> 2 & 3,
            denormals_32=register >> 4 & 3,
            denormals_16_64=register >> 6 & 3,
            dx10_clamp=bool(register >> 8 & 1),
            ieee=bool(register >> 9 & 1),
            fp16_overflow=bool(register >> 23 & 1),
        )

    @property
    def register(self) -> int:
        """MODE's bits."""
        numbers = self.rounding_32 | self.rounding_16_64 << 2 | self.denormals_32 << 4 | self.denormals_16_64 << 6
        return numbers | self.dx10_clamp << 8 | self.ieee << 9 | self.fp16_overflow << 23

    def rounding(self, dtype: NumberType) -> int:
        """How results in the numpy float `dtype` are rounded."""
        return self.rounding_32 if np.dtype(dtype).itemsize == _SINGLE_BYTES else self.rounding_16_64

    def keeps_sources(self, dtype: NumberType) -> bool:
        """Whether subnormal sources of the numpy float `dtype` are used as they are."""
        return bool(self._denormals(dtype) & _KEEP_SOURCES)

    def keeps_results(self, dtype: NumberType) -> bool:
        return bool(self._denormals(dtype) & _KEEP_RESULTS)

    def _denormals(self, dtype: NumberType) -> int:
        return self.denormals_32 if np.dtype(dtype).itemsize == _SINGLE_BYTES else self.denormals_16_64


def flushed(value: Array) -> Array:
    """Subnormal numbers of a numpy float become zeros of their sign."""
    value = np.asarray(value)
    bits = value.view(f"u{value.dtype.itemsize}")
    sign, exponent = _PARTS[value.dtype.itemsize]
    large = bits & exponent
    if large.all():
        return value
    return np.where(large, bits, bits & sign).view(value.dtype)


def _parts(dtype: NumberType, bits: NumberType) -> tuple[np.number, np.number]:
    """The bits of a float's sign, and of its exponent."""
    return bits(np.array(-0.0, dtype).view(bits)), bits(np.array(np.inf, dtype).view(bits))


_PARTS = {2: _parts(np.float16, np.uint16), 4: _parts(np.float32, np.uint32), 8: _parts(np.float64, np.uint64)}
