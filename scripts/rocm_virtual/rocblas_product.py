"""A product for rocBLAS on the virtual GPU, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
from hktune.verify.reference import compare, random_operands


@dataclass
class Placed:
    """A tensor, as far as a baseline asks."""

    buffer: DeviceBuffer

    def data_ptr(self) -> int:
        return self.buffer.address


class Product:
    """A bf16 problem whose float32 sums are exact, in memory: C must be the one rounding of them."""

    def __init__(self, device: HipDevice, layout: str, sizes: tuple[int, int, int]) -> None:
        self._device, self.problem = device, Problem(*sizes, operation_of(f"bf16.{layout}"))
        self._operands = random_operands(self.problem, 1, exact_sums=True)
        self._c = np.zeros(self.problem.m * self.problem.n, np.uint16)
        arrays = {**self._operands.stored, "c": self._c}
        self.tensors = {name: Placed(device.allocate(array.nbytes)) for name, array in arrays.items()}
        for name, array in arrays.items():
            device.write(self.tensors[name].buffer, array)

    def outcome(self) -> str | None:
        """What is wrong with C, if anything; then it is poisoned again."""
        self._device.read(self.tensors["c"].buffer, self._c)
        found = self._c.reshape(self.problem.m, self.problem.n).copy()
        self._c[:] = self.problem.operation.c_dtype.poison_bits
        self._device.write(self.tensors["c"].buffer, self._c)
        mismatch = compare(found, self._operands)
        return None if mismatch is None else str(mismatch)
