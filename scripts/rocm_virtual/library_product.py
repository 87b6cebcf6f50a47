"""A product for one of AMD's libraries on the virtual GPU, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import CALL_OPERANDS, PreparedLaunch
from hktune.device.device_buffer import DeviceBuffer
from hktune.device.hip import HipDevice
from hktune.device.vendor_library import VendorLibrary
from hktune.verify.reference import compare, random_operands


@dataclass
class Placed:
    """A tensor, as far as a prepared launch asks."""

    buffer: DeviceBuffer

    def data_ptr(self) -> int:
        return self.buffer.address


class Product:
    """A problem whose float32 sums are exact, in memory: C must be the one rounding of them."""

    def __init__(self, device: HipDevice, operation: str, sizes: tuple[int, int, int]) -> None:
        self._device, self.problem = device, Problem(*sizes, operation_of(operation))
        self._operands = random_operands(self.problem, 1, exact_sums=True)
        c_dtype = self.problem.operation.c_dtype
        poison = np.full((self.problem.m, self.problem.n), c_dtype.poison_bits, c_dtype.bits_type)
        self._before = self._operands.stored.get("c", poison)
        arrays = {**self._operands.stored, "c": self._before}
        self.tensors = {name: self._placed(array.nbytes) for name, array in arrays.items()}
        for name, array in arrays.items():
            device.write(self.tensors[name].buffer, array)

    def prepared(self, library: VendorLibrary, algorithm: VendorAlgorithm) -> PreparedLaunch:
        """A launch of `algorithm` on the product, which is called with the stream alone."""
        launch = library.prepare(algorithm, self.problem)
        workspace = self._placed(algorithm.workspace_bytes) if algorithm.workspace_bytes else None
        given = [{**self.tensors, "workspace": workspace}.get(name) for name in CALL_OPERANDS]
        return lambda stream: launch(*given, stream)

    def outcome(self) -> str | None:
        """What is wrong with C, if anything; then it is what it was before."""
        found = np.empty_like(self._before)
        self._device.read(self.tensors["c"].buffer, found)
        self._device.write(self.tensors["c"].buffer, self._before)
        mismatch = compare(found, self._operands)
        return None if mismatch is None else str(mismatch)

    def _placed(self, size_bytes: int) -> Placed:
        return Placed(self._device.allocate(size_bytes))
