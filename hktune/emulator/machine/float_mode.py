"""The float part of a wave's MODE register, as the kernel's descriptor sets it at the start.

Bits of compute_pgm_rsrc1: LLVM's AMDGPUUsage, "Kernel Descriptor"; their meaning: AMD CDNA4 ISA guide, section 3.4.
s_setreg, which would change them, is not emulated, so a kernel has one mode throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.emulator.machine.memory import Array, NumberType

_KEEP_SOURCES, _KEEP_RESULTS = 1, 2
_SINGLE_BYTES = 4


@dataclass(frozen=True)
class FloatMode:
    """Rounding and subnormals, of float32 and of the other widths; what clamping and minima make of a NaN.

    `rounding_*`: 0 to nearest even, then up, down, towards zero. `denormals_*`: bit 0 keeps subnormal sources, bit 1
    subnormal results; what is not kept becomes a zero of its sign.
    """

    rounding_32: int = 0
    rounding_16_64: int = 0
    denormals_32: int = 3
    denormals_16_64: int = 3
    dx10_clamp: bool = True
    ieee: bool = True
    fp16_overflow: bool = False

    @classmethod
    def read(cls, rsrc1: int) -> FloatMode:
        return cls(
            rounding_32=rsrc1 >> 12 & 3,
            rounding_16_64=rsrc1 >> 14 & 3,
            denormals_32=rsrc1 >> 16 & 3,
            denormals_16_64=rsrc1 >> 18 & 3,
            dx10_clamp=bool(rsrc1 >> 21 & 1),
            ieee=bool(rsrc1 >> 23 & 1),
            fp16_overflow=bool(rsrc1 >> 26 & 1),
        )

    def unsupported(self) -> str | None:
        """What of the mode is not emulated, in words; None when all is."""
        if self.rounding_32 or self.rounding_16_64:
            modes = f"{self.rounding_32} and others by {self.rounding_16_64}"
            return f"rounds float32 by mode {modes}, only 0 (nearest even)"
        return "clamps overflowing float16 results (FP16_OVFL), only infinity" if self.fp16_overflow else None

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
    return np.where(np.abs(value) < np.finfo(value.dtype).tiny, np.copysign(value.dtype.type(0), value), value)
