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
class Extents:
    """Where the elements of one matrix are, or of `matrices` of them. The rows of two dimensions are those of all
    matrices, one after another. Strides are elements."""

    rows: int
    columns: int
    row_stride: int
    matrices: int = 1
    matrix_stride: int = 0
    in_turn: bool = False
    """Whether each matrix has a row before any has its next one."""

    @property
    def elements(self) -> int:
        """From the first to the one behind the last."""
        last_row = (self.matrices - 1) * self.matrix_stride + (self.rows - 1) * self.row_stride
        return last_row + self.columns


@dataclass(frozen=True)
class MappedMatrix:
    """A matrix, or a stack of them, that the kernel `symbol` takes as a tensor map."""

    symbol: str
    operand: Operand
    box: Box

    @property
    def name(self) -> str:
        return self.operand.name

    def encoder(self, numbers: Mapping[str, int]) -> Callable[[int], bytes]:
        """What makes the map from an address, where sizes and strides are known. Raises DeviceError."""
        extents = self._extents(numbers)
        self._check(extents)
        return lambda address: encoded(address, extents, self.box)

    def bound(self, binding: Binding) -> bytes:
        """The map of what a launch binds. Raises DeviceError."""
        buffer, sizes = binding[self.name], {name: value for name, value in binding.items() if type(value) is int}
        try:
            extents = self._extents(sizes)
        except KeyError:
            buffer = None
        if buffer is None or isinstance(buffer, (int, float)):
            axes = self.operand.axes
            raise DeviceError(f"{self.symbol} takes {self.name} as a tensor map: bind its buffer and {axes}")
        needed_bytes = extents.elements * self.box.element_bytes
        if extents.rows < 1 or extents.columns < 1 or needed_bytes > buffer.size_bytes:
            sides = f"{extents.rows} x {extents.columns} elements"
            raise DeviceError(f"{self.name} is {sides}, its buffer {buffer.size_bytes} bytes: allocate it")
        if buffer.address % _ALIGNMENT_BYTES:
            raise DeviceError(f"{self.name} is at {buffer.address:#x}: {_TENSOR_COPIES}")
        self._check(extents)
        return encoded(buffer.address, extents, self.box)

    def _extents(self, numbers: Mapping[str, int]) -> Extents:
        """Of contiguous matrices, where `numbers` has no strides."""
        operand = self.operand
        *outer, rows, columns = operand.extents(numbers)
        row_stride = numbers.get(operand.row_stride, columns)
        if self.box.dimensions == 2:
            return Extents(math.prod(outer) * rows, columns, row_stride)
        if operand.turns > 1:
            all_rows = math.prod(outer) * rows // operand.turns
            return Extents(all_rows, columns, operand.turns * row_stride, operand.turns, row_stride, True)
        matrix_stride = numbers.get(operand.matrix_stride, rows * row_stride)
        # What all products have in common is one matrix: the kernel asks for no other.
        return Extents(rows, columns, row_stride, math.prod(outer) if matrix_stride else 1, matrix_stride)

    def _check(self, extents: Extents) -> None:
        strides = [extents.row_stride, extents.matrix_stride]
        if any(stride * self.box.element_bytes % _ALIGNMENT_BYTES for stride in strides):
            rule = f"{self.name} has rows of {extents.columns} elements, {extents.row_stride} apart"
            raise DeviceError(f"{rule}: {_TENSOR_COPIES}")


def mapped_matrix(symbol: str, boxes: Mapping[str, Box], launch: Launch, name: str) -> MappedMatrix:
    """The matrix `name` of a launch of the kernel `symbol`, whose cubin has `boxes`. Raises DeviceError where it has
    none for it."""
    operand = operands_of(launch.operation).get(name)
    if name not in boxes or operand is None or not operand.row_stride:
        raise DeviceError(f"{symbol} takes {name} as a tensor map: declare hktune_box_{name} in its source")
    if boxes[name].dimensions > 2 and not operand.is_stack:
        raise DeviceError(f"{symbol} takes {name} as a stack of matrices: {launch.operation} has but one")
    return MappedMatrix(symbol, operand, boxes[name])


@functools.lru_cache(maxsize=4096)
def encoded(address: int, extents: Extents, box: Box) -> bytes:
    """The tensor map of row-major matrices. What a box covers beyond a matrix, or in two dimensions beyond the last,
    reads as zeros and is not written.

    Rows of a box of 128, 64 or 32 bytes are swizzled over their own length (PTX ISA, 5.5.7), so that eight rows of a
    column of 16 bytes are in different banks.
    """
    driver, element_bytes, dimensions = cuda_driver(), box.element_bytes, box.dimensions
    swizzle = {128: "128B", 64: "64B", 32: "32B"}.get(box.columns * element_bytes, "NONE")
    sizes = [extents.columns, extents.rows, extents.matrices][:dimensions]
    # One matrix has no next one, but a map has a stride there, which is not 0.
    matrix_stride = extents.matrix_stride or extents.rows * extents.row_stride
    strides, sides = [extents.row_stride, matrix_stride][: dimensions - 1], [box.columns, box.rows, 1][:dimensions]
    if extents.in_turn:  # dimensions come in the order of their strides
        sizes[1:], strides, sides[1:] = sizes[:0:-1], strides[::-1], sides[:0:-1]
    made = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType(box.data_type),
        dimensions,
        address,
        [driver.cuuint64_t(size) for size in sizes],
        [driver.cuuint64_t(stride * element_bytes) for stride in strides],
        [driver.cuuint32_t(side) for side in sides],
        [driver.cuuint32_t(1)] * dimensions,
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return ctypes.string_at(int(checked(made).getPtr()), TENSOR_MAP_BYTES)
