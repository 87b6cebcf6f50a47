"""What the judge asks of an array library, so that one set of formulas serves the host (numpy) and a GPU (torch).

Arrays of both have operators, `abs`, `.T`, `.clip`, `.sum`, `.argmin`, `.reshape` and slices that mean the same; what
they spell differently is here. Stored numbers are bit patterns: integers of the format's width, which numpy has for
every format.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

import numpy as np

from hktune.core.dtype import Dtype
from hktune.device.device import Buffer, Device

Array: TypeAlias = Any
"""An array of numpy or a tensor of torch."""


class Arrays(Protocol):
    """An array library."""

    def encoded(self, values: Array, dtype: Dtype) -> Array:
        """Bits of float numbers, rounded to float32 and then to `dtype`, to nearest even both times; what is beyond its
        largest is as `Dtype.bits` has it. An integer is rounded once."""

    def decoded(self, bits: Array, dtype: Dtype) -> Array:
        """Bits of `dtype` as float64, exactly."""

    def filled(self, size: int, bits: int, dtype: Dtype) -> Array:
        """`size` elements of these bits, one after another."""

    def norm(self, values: Array) -> float:
        """The Frobenius norm."""

    def exp(self, values: Array) -> Array:
        """e to the power of float64 numbers; below the smallest number it is 0."""

    def erfc(self, values: Array) -> Array:
        """1 - erf of float64 numbers, with a small relative error wherever it is a normal number."""


class Memory(Protocol):
    """How arrays reach a device and come back."""

    def place(self, bits: Array) -> Buffer:
        """A buffer that holds `bits`, for as long as both live."""

    def send(self, buffer: Buffer, bits: Array) -> None:
        """What `bits` hold by now is in their buffer before the next launch."""

    def fetch(self, buffer: Buffer, bits: Array) -> None:
        """Launches are done, and `bits` hold what their buffer does."""


class HostArrays:
    """Arrays of numpy."""

    def encoded(self, values: Array, dtype: Dtype) -> Array:
        with np.errstate(over="ignore"):
            return dtype.bits(values if dtype.is_integer else values.astype(np.float32))

    def decoded(self, bits: Array, dtype: Dtype) -> Array:
        with np.errstate(invalid="ignore"):  # of NaNs that signal
            return dtype.values(bits).astype(np.float64)

    def filled(self, size: int, bits: int, dtype: Dtype) -> Array:
        return np.full(size, bits, dtype.bits_type)

    def norm(self, values: Array) -> float:
        return float(np.linalg.norm(values))

    def exp(self, values: Array) -> Array:
        with np.errstate(under="ignore"):
            return np.exp(values)

    def erfc(self, values: Array) -> Array:
        return np.vectorize(math.erfc, otypes=[np.float64])(values)


HOST = HostArrays()


class HostMemory:
    """Arrays of numpy, copied to the device and back."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def place(self, bits: Array) -> Buffer:
        buffer = self._device.allocate(bits.nbytes)
        self._device.write(buffer, bits)
        return buffer

    def send(self, buffer: Buffer, bits: Array) -> None:
        self._device.write(buffer, bits)

    def fetch(self, buffer: Buffer, bits: Array) -> None:
        self._device.read(buffer, bits)
