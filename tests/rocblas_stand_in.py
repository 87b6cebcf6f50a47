"""A stand-in for AMD's librocblas: its functions as rocblas-functions.h and rocblas-beta.h (ROCm 7.2.4) say, on
matrices in host memory. Its handle has memory of its own until it is given other."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

SUCCESS, INVALID_HANDLE, INVALID_POINTER, INVALID_SIZE, MEMORY_ERROR, INVALID_VALUE = 0, 1, 3, 4, 5, 11
DTYPES = {150: torch.float16, 151: torch.float32, 160: torch.int8, 162: torch.int32, 168: torch.bfloat16}
F32, I32, BY_INDEX = 151, 162, 1
KINDS = {(150, 150, F32), (168, 168, F32), (150, F32, F32), (168, F32, F32), (F32, F32, F32), (160, I32, I32)}
"""Of factors, output and sums."""
NONE, TRANSPOSE = 111, 112
HANDLE = 0x1000
RUBBISH = 0x5A


def matrix(address: int, dtype: int, rows: int, columns: int, leading: int) -> torch.Tensor:
    """A column-major matrix in memory, as a view."""
    kind = DTYPES[dtype]
    memory = (ctypes.c_int8 * (kind.itemsize * (leading * (columns - 1) + rows))).from_address(address)
    return torch.frombuffer(memory, dtype=torch.int8).view(kind).as_strided((rows, columns), (1, leading))


@dataclass
class RocblasStandIn:
    """What `ctypes.CDLL` gives of it. It lists `solutions`, of which those in `workspaces` need one. `used` has the
    index of each launch, 0 for its own choice. As the library may do, it launches what is only asked about."""

    solutions: tuple[int, ...] = (3, -7)
    workspaces: Mapping[int, int] = field(default_factory=lambda: {3: 4096})
    factors: Mapping[int, float] = field(default_factory=dict)
    version: bytes = b"5.2.0.abc"
    used: list[int] = field(default_factory=list)
    stream: int | None = None
    workspace: tuple[int, int] | None = None
    destroyed: int = 0

    def rocblas_create_handle(self, handle: Any) -> int:
        handle._obj.value = HANDLE
        return SUCCESS

    def rocblas_destroy_handle(self, handle: Any) -> int:
        self.destroyed += 1
        return SUCCESS if handle.value == HANDLE else INVALID_HANDLE

    def rocblas_get_version_string_size(self, size: Any) -> int:
        size._obj.value = len(self.version) + 1
        return SUCCESS

    def rocblas_get_version_string(self, text: Any, size: Any) -> int:
        text.value = self.version[: size.value - 1]
        return SUCCESS

    def rocblas_set_stream(self, handle: Any, stream: Any) -> int:
        self.stream = stream.value
        return SUCCESS if handle.value == HANDLE else INVALID_HANDLE

    def rocblas_set_workspace(self, handle: Any, address: Any, size: Any) -> int:
        self.workspace = (address.value, size.value)
        return SUCCESS if handle.value == HANDLE else INVALID_HANDLE

    def rocblas_gemm_ex_get_solutions(self, *arguments: Any) -> int:
        *_, type_d, _, compute, algorithm, flags, found, count = arguments
        if (arguments[8], type_d, compute) not in KINDS or (algorithm, flags.value) != (BY_INDEX, 0):
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
        chosen = index.value if algorithm == BY_INDEX else 0
        if flags.value or (chosen and chosen not in self.solutions):
            return INVALID_VALUE
        if (c.value, ldc) != (d.value, ldd) or ldc < m or type_c != type_d:
            return INVALID_SIZE
        if type_a != type_b or (type_a, type_d, compute) not in KINDS:
            return INVALID_VALUE
        if not self._scribbled(self.workspaces.get(chosen, 0)):
            return MEMORY_ERROR
        left = matrix(a.value, type_a, *((m, k) if op_a == NONE else (k, m)), lda).double()
        right = matrix(b.value, type_b, *((k, n) if op_b == NONE else (n, k)), ldb).double()
        product = (left if op_a == NONE else left.T) @ (right if op_b == NONE else right.T)
        out = matrix(d.value, type_d, m, n, ldd)
        result = alpha._obj.value * product * self.factors.get(chosen, 1.0)
        if beta._obj.value:
            result += beta._obj.value * out.double()
        out.copy_(result)
        self.used.append(chosen)
        return SUCCESS

    def _scribbled(self, needed: int) -> bool:
        """Whether the workspace is large enough; then it is written."""
        if not needed:
            return True
        address, size = self.workspace or (0, 0)
        if size < needed:
            return False
        ctypes.memset(address, RUBBISH, needed)
        return True
