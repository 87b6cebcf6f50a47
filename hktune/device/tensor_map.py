"""Tensor maps: what a Hopper kernel gets in place of a matrix's pointer, to copy boxes of it.

A map is encoded from the pointer, the sizes of the launch and the box that the cubin carries (objects/cubin.py): on the
host and once for each matrix. The driver's encoder is the one documented way to make a map, and a kernel that builds
its own pays for it at every start.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hktune.core.errors import DeviceError
from hktune.core.launch import Launch
from hktune.core.operand import Operand, operands_of
from hktune.device.cuda_driver import checked, cuda_driver
from hktune.device.device import Binding
from hktune.objects.cubin import TENSOR_MAP_BYTES, Box

_ALIGNMENT_BYTES = 16  # of addresses and row strides, cuTensorMapEncodeTiled
_TENSOR_COPIES = f"tensor copies need the address and the row to be multiples of {_ALIGNMENT_BYTES} bytes"


@dataclass(frozen=True)
class MappedMatrix:
    """A matrix, or several whose rows follow one another, that the kernel `symbol` takes as a tensor map."""

    symbol: str
    operand: Operand
    box: Box

    @property
    def name(self) -> str:
        return self.operand.name

    def encoder(self, numbers: Mapping[str, int]) -> Callable[[int], bytes]:
        """What makes the map from an address, where the sizes are known. Raises DeviceError."""
        rows, columns = self._sides(numbers)
        if columns * self.box.element_bytes % _ALIGNMENT_BYTES:
            raise DeviceError(f"{self.name} has rows of {columns} elements: {_TENSOR_COPIES}")
        return lambda address: encoded(address, rows, columns, self.box)

    def bound(self, binding: Binding) -> bytes:
        """The map of what a launch binds. Raises DeviceError."""
        buffer, sizes = binding[self.name], {name: value for name, value in binding.items() if type(value) is int}
        try:
            rows, columns = self._sides(sizes)
        except KeyError:
            buffer = None
        if buffer is None or isinstance(buffer, (int, float)):
            axes = self.operand.axes
            raise DeviceError(f"{self.symbol} takes {self.name} as a tensor map: bind its buffer and {axes}")
        row_bytes = columns * self.box.element_bytes
        if rows < 1 or columns < 1 or rows * row_bytes > buffer.size_bytes:
            raise DeviceError(
                f"{self.name} is {rows} x {columns} elements, its buffer {buffer.size_bytes} bytes: allocate it"
            )
        if buffer.address % _ALIGNMENT_BYTES or row_bytes % _ALIGNMENT_BYTES:
            raise DeviceError(f"{self.name} at {buffer.address:#x} has rows of {columns} elements: {_TENSOR_COPIES}")
        return encoded(buffer.address, rows, columns, self.box)

    def _sides(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Its rows, those of all matrices, and its columns."""
        *rows, columns = self.operand.extents(sizes)
        return math.prod(rows), columns


def mapped_matrix(symbol: str, boxes: Mapping[str, Box], launch: Launch, name: str) -> MappedMatrix:
    """The matrix `name` of a launch of the kernel `symbol`, whose cubin has `boxes`. Raises DeviceError where it has
    none for it."""
    operand = operands_of(launch.operation).get(name)
    if name not in boxes or operand is None or not operand.row_stride:
        raise DeviceError(f"{symbol} takes {name} as a tensor map: declare hktune_box_{name} in its source")
    return MappedMatrix(symbol, operand, boxes[name])


@functools.lru_cache(maxsize=4096)
def encoded(address: int, rows: int, columns: int, box: Box) -> bytes:
    """The tensor map of a row-major matrix. What a box covers beyond the matrix reads as zeros and is not written.

    Rows of a box of 128, 64 or 32 bytes are swizzled over their own length (PTX ISA, 5.5.7), so that eight rows of a
    column of 16 bytes are in different banks. Rows that take turns are an axis between the other two.
    """
    driver, element_bytes, turns = cuda_driver(), box.element_bytes, box.turns
    sizes, boxed, row_steps = [columns, rows], [box.columns, box.rows], [1]
    if turns > 1:
        sizes, boxed, row_steps = [columns, turns, rows // turns], [box.columns, 1, box.rows], [1, turns]
    swizzle = {128: "128B", 64: "64B", 32: "32B"}.get(box.columns * element_bytes, "NONE")
    made = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType(box.data_type),
        len(sizes),
        address,
        [driver.cuuint64_t(size) for size in sizes],
        [driver.cuuint64_t(step * columns * element_bytes) for step in row_steps],
        [driver.cuuint32_t(size) for size in boxed],
        [driver.cuuint32_t(1) for _ in sizes],
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return ctypes.string_at(int(checked(made).getPtr()), TENSOR_MAP_BYTES)
