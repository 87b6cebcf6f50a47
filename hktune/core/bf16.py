"""bf16 on the host, as uint16 bit patterns: numpy has no such type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def bf16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """float32 -> bf16 bit patterns, rounded to nearest even; finite values only."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def bf16_values(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bf16 bit patterns -> float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
