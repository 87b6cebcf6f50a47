"""A stand-in for NVIDIA's libcublasLt: its functions as cublasLt.h (CUDA 13.0) says, on matrices in host memory.

It keeps what descriptors say by the header's numbers, and multiplies column-major matrices as they say.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import torch

SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
DTYPES = {2: torch.float16, 14: torch.bfloat16}  # CUDA_R_16F, CUDA_R_16BF
COMPUTE_32F, CUDA_R_32F = 68, 0
TRANSA, TRANSB, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8
TRANSPOSED, EPILOGUE_DEFAULT, EPILOGUE_BIAS = 1, 1, 4
MAX_WORKSPACE_BYTES = 1
PREFERRED_BYTES = 32 << 20


@dataclass(frozen=True)
class Layout:
    dtype: torch.dtype
    rows: int
    columns: int
    leading: int

    def at(self, address: int) -> torch.Tensor:
        """The matrix at `address`, rows by columns, as a view."""
        elements = self.leading * (self.columns - 1) + self.rows
        memory = (ctypes.c_int16 * elements).from_address(address)
        flat = torch.frombuffer(memory, dtype=torch.int16).view(self.dtype)
        return flat.as_strided((self.rows, self.columns), (1, self.leading))


@dataclass
class CublasLtStandIn:
    """What `ctypes.CDLL` gives of it. The heuristic names `algorithms` of them; each computes the same."""

    algorithms: int = 3
    used: list[int] = field(default_factory=list)
    objects: dict[int, Any] = field(default_factory=dict)

    def _new(self, target: Any, value: Any) -> int:
        target._obj.value = 0x1000 + 16 * len(self.objects)
        self.objects[target._obj.value] = value
        return SUCCESS

    def cublasLtCreate(self, handle: Any) -> int:
        return self._new(handle, "handle")

    def cublasLtMatmulDescCreate(self, operation: Any, compute: int, scale: int) -> int:
        if (compute, scale) != (COMPUTE_32F, CUDA_R_32F):
            return NOT_SUPPORTED
        return self._new(operation, {TRANSA: 0, TRANSB: 0, EPILOGUE: EPILOGUE_DEFAULT, BIAS_POINTER: 0})

    def cublasLtMatmulDescSetAttribute(self, operation: Any, attribute: int, value: Any, size: Any) -> int:
        expected = {TRANSA: 4, TRANSB: 4, EPILOGUE: 4, BIAS_POINTER: 8}
        if expected.get(attribute) != size.value:
            return INVALID_VALUE
        self.objects[operation.value][attribute] = value._obj.value
        return SUCCESS

    def cublasLtMatrixLayoutCreate(self, layout: Any, dtype: int, rows: Any, columns: Any, leading: Any) -> int:
        if dtype not in DTYPES:
            return NOT_SUPPORTED
        return self._new(layout, Layout(DTYPES[dtype], rows.value, columns.value, leading.value))

    def cublasLtMatmulPreferenceCreate(self, preference: Any) -> int:
        return self._new(preference, {MAX_WORKSPACE_BYTES: 0})

    def cublasLtMatmulPreferenceSetAttribute(self, preference: Any, attribute: int, value: Any, size: Any) -> int:
        if (attribute, size.value) != (MAX_WORKSPACE_BYTES, 8):
            return INVALID_VALUE
        self.objects[preference.value][attribute] = value._obj.value
        return SUCCESS

    def cublasLtMatmulPreferenceDestroy(self, preference: Any) -> int:
        return SUCCESS if self.objects.get(preference.value) is not None else INVALID_VALUE

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: Any, operation: Any, a: Any, b: Any, c: Any, d: Any, preference: Any, asked: int, found: Any,
        count: Any,
    ) -> int:  # fmt: skip
        if self.objects[handle.value] != "handle" or not self._fits(operation, a, b, c, d):
            return INVALID_VALUE
        for rank in range(min(asked, self.algorithms)):
            found[rank].algorithm[0] = 100 + rank
            found[rank].workspace_bytes = self.objects[preference.value][MAX_WORKSPACE_BYTES]
            found[rank].state = SUCCESS
        count._obj.value = min(asked, self.algorithms)
        return SUCCESS

    def cublasLtMatmul(
        self, handle: Any, operation: Any, alpha: Any, a: Any, a_layout: Any, b: Any, b_layout: Any, beta: Any, c: Any,
        c_layout: Any, d: Any, d_layout: Any, algorithm: Any, workspace: Any, workspace_bytes: Any, stream: Any,
    ) -> int:  # fmt: skip
        if not self._fits(operation, a_layout, b_layout, c_layout, d_layout):
            return INVALID_VALUE
        if workspace_bytes.value < PREFERRED_BYTES or not workspace.value:
            return NOT_SUPPORTED
        said = self.objects[operation.value]
        left = self._operand(a_layout, a, said[TRANSA])
        right = self._operand(b_layout, b, said[TRANSB])
        out: Layout = self.objects[d_layout.value]
        result = alpha._obj.value * (left @ right)
        if beta._obj.value:
            result += beta._obj.value * self._operand(c_layout, c, 0)
        if said[EPILOGUE] == EPILOGUE_BIAS:
            result += Layout(out.dtype, out.rows, 1, out.rows).at(said[BIAS_POINTER]).float()
        out.at(d.value).copy_(result)
        self.used.append(algorithm._obj[0] - 100)
        return SUCCESS

    def _operand(self, layout: Any, address: Any, transposed: int) -> torch.Tensor:
        matrix = self.objects[layout.value].at(address.value).float()
        return matrix.T if transposed == TRANSPOSED else matrix

    def _fits(self, operation: Any, a: Any, b: Any, c: Any, d: Any) -> bool:
        """Whether op(A) op(B) has the shape of C and D."""
        said = self.objects[operation.value]
        left, right, before, after = (self.objects[layout.value] for layout in (a, b, c, d))
        m, k = (left.columns, left.rows) if said[TRANSA] else (left.rows, left.columns)
        inner, n = (right.columns, right.rows) if said[TRANSB] else (right.rows, right.columns)
        dense = all(layout.leading >= layout.rows for layout in (left, right, before, after))
        return dense and k == inner and (after.rows, after.columns) == (m, n) == (before.rows, before.columns)
