"""A stand-in for AMD's librocblas: its functions as rocblas-functions.h (ROCm 7) says, on matrices in host memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import torch

SUCCESS, INVALID_HANDLE, INVALID_SIZE, INVALID_VALUE = 0, 1, 4, 11
DTYPES = {150: torch.float16, 168: torch.bfloat16}  # rocblas_datatype_f16_r, bf16_r
F32, STANDARD, BY_INDEX, CHECK_INDEX = 151, 0, 1, 8
NONE, TRANSPOSE = 111, 112
VERSION = b"5.2.0.abc"
HANDLE = 0x1000


def matrix(address: int, dtype: int, rows: int, columns: int, leading: int) -> torch.Tensor:
    """A column-major matrix in memory, as a view."""
    memory = (ctypes.c_int16 * (leading * (columns - 1) + rows)).from_address(address)
    flat = torch.frombuffer(memory, dtype=torch.int16).view(DTYPES[dtype])
    return flat.as_strided((rows, columns), (1, leading))


@dataclass
class RocblasStandIn:
    """What `ctypes.CDLL` gives of it. It lists `solutions`, of which those in `misfits` do not fit any problem."""

    solutions: tuple[int, ...] = (-7, 3, 12)
    misfits: tuple[int, ...] = (12,)
    used: list[tuple[int, int | None]] = field(default_factory=list)
    stream: int | None = None

    def rocblas_create_handle(self, handle: Any) -> int:
        handle._obj.value = HANDLE
        return SUCCESS

    def rocblas_get_version_string_size(self, size: Any) -> int:
        size._obj.value = len(VERSION) + 1
        return SUCCESS

    def rocblas_get_version_string(self, text: Any, size: Any) -> int:
        text.value = VERSION[: size.value - 1]
        return SUCCESS

    def rocblas_set_stream(self, handle: Any, stream: Any) -> int:
        self.stream = stream.value
        return SUCCESS if handle.value == HANDLE else INVALID_HANDLE

    def rocblas_gemm_ex_get_solutions(self, *arguments: Any) -> int:
        *_, compute, algorithm, flags, found, count = arguments
        if (compute, algorithm, flags.value) != (F32, BY_INDEX, 0):
            return INVALID_VALUE
        if found is not None:
            found[: count._obj.value] = self.solutions
        count._obj.value = len(self.solutions)
        return SUCCESS

    def rocblas_gemm_ex(
        self, handle: Any, op_a: int, op_b: int, m: int, n: int, k: int, alpha: Any, a: Any, type_a: int, lda: int,
        b: Any, type_b: int, ldb: int, beta: Any, c: Any, type_c: int, ldc: int, d: Any, type_d: int, ldd: int,
        compute: int, algorithm: int, index: Any, flags: Any,
    ) -> int:  # fmt: skip
        if algorithm == BY_INDEX and (index.value not in self.solutions or index.value in self.misfits):
            return INVALID_VALUE
        if compute != F32 or (c.value, ldc) != (d.value, ldd) or ldc < m:
            return INVALID_SIZE
        if flags.value & CHECK_INDEX:
            return SUCCESS
        left = matrix(a.value, type_a, *((m, k) if op_a == NONE else (k, m)), lda).float()
        right = matrix(b.value, type_b, *((k, n) if op_b == NONE else (n, k)), ldb).float()
        product = (left if op_a == NONE else left.T) @ (right if op_b == NONE else right.T)
        assert beta._obj.value == 0
        matrix(d.value, type_d, m, n, ldd).copy_(alpha._obj.value * product)
        self.used.append((algorithm, index.value if algorithm == BY_INDEX else None))
        return SUCCESS
