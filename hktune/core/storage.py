"""How a kernel may want an operand stored, other than row by row: a property of the kernel, not of what is computed.

preshuffled_16x16   tiles of 16 rows by 16 bytes, one after another along the rows: what AITER's shuffle_weight makes
scales_32x8         one byte an element, blocks of 32 rows by 8 columns, one after another along the rows; in a
                    block the order is column % 4, row % 16, column / 4, row / 16. Rows are padded to 32, columns to 8
transposed          column by column
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from hktune.core.dtype import E8M0, Dtype

Matrix: TypeAlias = Any
"""A matrix of numpy or torch, of one number for what a format stores as one."""


@dataclass(frozen=True)
class Storage:
    """`arranged` gives what is in memory, as a matrix whose columns are the row stride, of a matrix whose rows are a
    multiple of `rows`, and its columns one of `row_bytes`. `pads`: other sizes are padded; else they cannot be stored.
    `only`: the one format that is stored so; None is any.
    """

    rows: int
    row_bytes: int
    pads: bool
    arranged: Callable[[Matrix, Dtype], Matrix]
    only: Dtype | None = None

    def padded_shape(self, rows: int, columns: int, dtype: Dtype) -> tuple[int, int]:
        """Rows and columns of what `arranged` takes. Raises ValueError where a matrix would have to be padded."""
        whole = self.row_bytes // dtype.bytes or 1
        wanted = -(-rows // self.rows) * self.rows, -(-columns // whole) * whole
        if wanted != (rows, columns) and not self.pads:
            raise ValueError(f"{rows}x{columns} {dtype} must be whole tiles of {self.rows} rows and {whole} columns")
        return wanted


def _preshuffled(matrix: Matrix, dtype: Dtype) -> Matrix:
    rows, columns = matrix.shape
    wide = 16 // dtype.bytes
    return matrix.reshape(rows // 16, 16, columns // wide, wide).swapaxes(1, 2).reshape(rows, columns)


def _scales(matrix: Matrix, _dtype: Dtype) -> Matrix:
    rows, columns = matrix.shape
    blocks = matrix.reshape(rows // 32, 2, 16, columns // 8, 2, 4)  # row / 16, row % 16, ..., column / 4, column % 4
    return blocks.swapaxes(1, 3).swapaxes(2, 5).swapaxes(3, 5).reshape(rows, columns)


def _transposed(matrix: Matrix, _dtype: Dtype) -> Matrix:
    rows, columns = matrix.shape
    return matrix.T.reshape(-1).reshape(columns, rows)


STORAGES: Mapping[str, Storage] = MappingProxyType(
    {
        "preshuffled_16x16": Storage(16, 16, pads=False, arranged=_preshuffled),
        "scales_32x8": Storage(32, 8, pads=True, arranged=_scales, only=E8M0),
        "transposed": Storage(1, 1, pads=False, arranged=_transposed),
    }
)
