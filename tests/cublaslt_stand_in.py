"""A stand-in for NVIDIA's libcublasLt: its functions as cublasLt.h (CUDA 13.1) says, on matrices in host memory.

It keeps what descriptors say by the header's numbers, and multiplies column-major matrices as they say. Its algorithms
are known by 64 bytes. Bytes that are none of its own end the process, as they may in the library: it calls `fatal`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

from hktune.device import cublaslt
from hktune.device.cublaslt import CublasLt

SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
FLOAT8 = {28: torch.float8_e4m3fn, 29: torch.float8_e5m2}  # CUDA_R_8F_E4M3, CUDA_R_8F_E5M2
DTYPES = {
    **{0: torch.float32, 2: torch.float16, 14: torch.bfloat16},  # CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
    **{3: torch.int8, 10: torch.int32},  # CUDA_R_8I, CUDA_R_32I
    **FLOAT8,
}
COMPUTE_32F, CUDA_R_32F, COMPUTE_32I, CUDA_R_32I = 68, 0, 72, 10
TRANSA, TRANSB, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8
A_SCALE_POINTER, B_SCALE_POINTER, FAST_ACCUM, A_SCALE_MODE, B_SCALE_MODE = 17, 18, 25, 31, 32
DESCRIBED_BYTES = {
    **{TRANSA: 4, TRANSB: 4, EPILOGUE: 4, BIAS_POINTER: 8, A_SCALE_POINTER: 8, B_SCALE_POINTER: 8, FAST_ACCUM: 1},
    **{A_SCALE_MODE: 4, B_SCALE_MODE: 4},
}
SCALAR, OUTER_VECTOR = 0, 3
TRANSPOSED = 1
EPILOGUE_DEFAULT, EPILOGUE_RELU, EPILOGUE_BIAS, EPILOGUE_GELU = 1, 2, 4, 32
MAX_WORKSPACE_BYTES, MIN_ALIGNMENTS = 1, (5, 6, 7, 8)
CONFIG_ID, CONFIG_BYTES = 0, {0: 4, 1: 4, 2: 4, 3: 4, 4: 4, 5: 4, 6: 4, 7: 2, 8: 2}
FIRST_ID = 100


@dataclass(frozen=True)
class Algorithm:
    """One of the stand-in's. `factor` is what it multiplies the right product by; `checks` is what AlgoCheck answers;
    `alignment` is what operands must be aligned to; `said_bytes` is what the heuristic says of the workspace."""

    workspace_bytes: int = 0
    said_bytes: int | None = None
    factor: float = 1.0
    checks: int = SUCCESS
    alignment: int = 16


@dataclass(frozen=True)
class Layout:
    dtype: torch.dtype
    rows: int
    columns: int
    leading: int

    def at(self, address: int) -> torch.Tensor:
        """The matrix at `address`, rows by columns, as a view."""
        elements = self.leading * (self.columns - 1) + self.rows
        bits = {**{1: (ctypes.c_int8, torch.int8), 2: (ctypes.c_int16, torch.int16), 4: (ctypes.c_int32, torch.int32)}}[
            self.dtype.itemsize
        ]
        memory = (bits[0] * elements).from_address(address)
        flat = torch.frombuffer(memory, dtype=bits[1]).view(self.dtype)
        return flat.as_strided((self.rows, self.columns), (1, self.leading))


def fatal(what: str) -> NoReturn:
    """What unknown bytes may do inside of the library."""
    raise SystemExit(f"the library was given {what}")


PLAIN = (Algorithm(32 << 20), Algorithm(), Algorithm(4096))


@dataclass
class CublasLtStandIn:
    """What `ctypes.CDLL` gives of it, at `version`. The heuristic names those of `algorithms` that fit its preference,
    in their order. `used` and `checked` are the places of those that were launched and checked, `objects` what was made
    and not destroyed."""

    algorithms: tuple[Algorithm, ...] = PLAIN
    version: int = 130100
    used: list[int] = field(default_factory=list)
    objects: dict[int, Any] = field(default_factory=dict)
    made: int = 0
    checked: list[int] = field(default_factory=list)

    def _new(self, target: Any, value: Any) -> int:
        self.made += 1
        target._obj.value = 0x1000 + 16 * self.made
        self.objects[target._obj.value] = value
        return SUCCESS

    def _destroyed(self, target: Any) -> int:
        return SUCCESS if self.objects.pop(target.value, None) is not None else INVALID_VALUE

    def _bytes(self, place: int) -> list[int]:
        """The 64 bytes of an algorithm, as eight integers: also of its version, like the library's own."""
        return [FIRST_ID + place, self.version, *([0x5A5A] * 6)]

    def _place(self, algorithm: Any) -> int:
        """The place of the algorithm that these bytes are of."""
        data = list(algorithm._obj.data)
        for place in range(len(self.algorithms)):
            if data == self._bytes(place):
                return place
        fatal(f"bytes that it never made: {data}")

    def cublasLtGetVersion(self) -> int:
        return self.version

    def cublasLtCreate(self, handle: Any) -> int:
        return self._new(handle, "handle")

    def cublasLtMatmulDescCreate(self, operation: Any, compute: int, scale: int) -> int:
        if (compute, scale) not in ((COMPUTE_32F, CUDA_R_32F), (COMPUTE_32I, CUDA_R_32I)):
            return NOT_SUPPORTED
        return self._new(operation, {**dict.fromkeys(DESCRIBED_BYTES, 0), EPILOGUE: EPILOGUE_DEFAULT, "sums": scale})

    def cublasLtMatmulDescDestroy(self, operation: Any) -> int:
        return self._destroyed(operation)

    def cublasLtMatmulDescSetAttribute(self, operation: Any, attribute: int, value: Any, size: Any) -> int:
        if DESCRIBED_BYTES.get(attribute) != size.value:
            return INVALID_VALUE
        self.objects[operation.value][attribute] = value._obj.value
        return SUCCESS

    def cublasLtMatrixLayoutCreate(self, layout: Any, dtype: int, rows: Any, columns: Any, leading: Any) -> int:
        if dtype not in DTYPES:
            return NOT_SUPPORTED
        return self._new(layout, Layout(DTYPES[dtype], rows.value, columns.value, leading.value))

    def cublasLtMatmulPreferenceCreate(self, preference: Any) -> int:
        return self._new(preference, {MAX_WORKSPACE_BYTES: 0, **dict.fromkeys(MIN_ALIGNMENTS, 256)})

    def cublasLtMatmulPreferenceSetAttribute(self, preference: Any, attribute: int, value: Any, size: Any) -> int:
        expected = {MAX_WORKSPACE_BYTES: 8, **dict.fromkeys(MIN_ALIGNMENTS, 4)}
        if expected.get(attribute) != size.value:
            return INVALID_VALUE
        self.objects[preference.value][attribute] = value._obj.value
        return SUCCESS

    def cublasLtMatmulPreferenceDestroy(self, preference: Any) -> int:
        return self._destroyed(preference)

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: Any, operation: Any, a: Any, b: Any, c: Any, d: Any, preference: Any, asked: int, found: Any,
        count: Any,
    ) -> int:  # fmt: skip
        if self.objects[handle.value] != "handle" or not self._fits(operation, a, b, c, d):
            return INVALID_VALUE
        preferred = self.objects[preference.value]
        aligned = min(preferred[each] for each in MIN_ALIGNMENTS)
        fitting = [
            place
            for place, each in enumerate(self.algorithms)
            if each.workspace_bytes <= preferred[MAX_WORKSPACE_BYTES] and each.alignment <= aligned
        ][:asked]
        for rank, place in enumerate(fitting):
            found[rank].algorithm.data[:] = self._bytes(place)
            own = self.algorithms[place]
            found[rank].workspace_bytes = own.workspace_bytes if own.said_bytes is None else own.said_bytes
            found[rank].state = SUCCESS
        count._obj.value = len(fitting)
        return SUCCESS if fitting else NOT_SUPPORTED

    def cublasLtMatmulAlgoConfigGetAttribute(
        self, algorithm: Any, attribute: int, value: Any, size: Any, written: Any
    ) -> int:
        if CONFIG_BYTES.get(attribute) != size.value:
            return INVALID_VALUE
        written._obj.value = size.value
        value._obj.value = FIRST_ID + self._place(algorithm) if attribute == CONFIG_ID else 0
        return SUCCESS

    def cublasLtMatmulAlgoCheck(
        self, handle: Any, operation: Any, a: Any, b: Any, c: Any, d: Any, algorithm: Any, result: Any
    ) -> int:
        if self.objects[handle.value] != "handle" or not self._fits(operation, a, b, c, d):
            return INVALID_VALUE
        place = self._place(algorithm)
        self.checked.append(place)
        result._obj.workspace_bytes = self.algorithms[place].workspace_bytes
        return self.algorithms[place].checks

    def cublasLtMatmul(
        self, handle: Any, operation: Any, alpha: Any, a: Any, a_layout: Any, b: Any, b_layout: Any, beta: Any, c: Any,
        c_layout: Any, d: Any, d_layout: Any, algorithm: Any, workspace: Any, workspace_bytes: Any, stream: Any,
    ) -> int:  # fmt: skip
        if not self._fits(operation, a_layout, b_layout, c_layout, d_layout):
            return INVALID_VALUE
        place = self._place(algorithm)
        own = self.algorithms[place]
        if workspace_bytes.value < own.workspace_bytes:
            return INVALID_VALUE
        if own.workspace_bytes:
            ctypes.memset(workspace.value, 0xA5, own.workspace_bytes)
        said = self.objects[operation.value]
        left = self._operand(a_layout, a, said[TRANSA])
        right = self._operand(b_layout, b, said[TRANSB])
        out: Layout = self.objects[d_layout.value]
        left = self._scaled(left, said[A_SCALE_POINTER], said[A_SCALE_MODE])
        right = self._scaled(right.T, said[B_SCALE_POINTER], said[B_SCALE_MODE]).T
        result = alpha._obj.value * (left @ right)
        if beta._obj.value:
            result += beta._obj.value * self._operand(c_layout, c, 0)
        if said[EPILOGUE] & EPILOGUE_BIAS:
            result += Layout(out.dtype, out.rows, 1, out.rows).at(said[BIAS_POINTER]).float()
        if said[EPILOGUE] & EPILOGUE_RELU:
            result = result.relu()
        if said[EPILOGUE] & EPILOGUE_GELU:
            result = torch.nn.functional.gelu(result, approximate="tanh")
        out.at(d.value).copy_(result * own.factor)
        self.used.append(place)
        return SUCCESS

    def _scaled(self, lines: torch.Tensor, address: int, mode: int) -> torch.Tensor:
        """Rows of an operand's own side, and factors of all of it or of each."""
        if not address:
            return lines
        count = len(lines) if mode == OUTER_VECTOR else 1
        return lines * Layout(torch.float32, count, 1, count).at(address)

    def _operand(self, layout: Any, address: Any, transposed: int) -> torch.Tensor:
        matrix = self.objects[layout.value].at(address.value).float()
        return matrix.T if transposed == TRANSPOSED else matrix

    def _fits(self, operation: Any, a: Any, b: Any, c: Any, d: Any) -> bool:
        """Whether op(A) op(B) has the shape of C and D."""
        said = self.objects[operation.value]
        left, right, before, after = (self.objects[layout.value] for layout in (a, b, c, d))
        m, k = (left.columns, left.rows) if said[TRANSA] else (left.rows, left.columns)
        inner, n = (right.columns, right.rows) if said[TRANSB] else (right.rows, right.columns)
        dtypes = {left.dtype, right.dtype}
        of_8_bits = not dtypes.isdisjoint({torch.int8, *FLOAT8.values()})
        if of_8_bits and (said[TRANSA], said[TRANSB]) != (TRANSPOSED, 0):
            return False
        if (torch.int8 in dtypes) != (said["sums"] == CUDA_R_32I) or (said[FAST_ACCUM] and not of_8_bits):
            return False
        dense = all(layout.leading >= layout.rows for layout in (left, right, before, after))
        return dense and k == inner and (after.rows, after.columns) == (m, n) == (before.rows, before.columns)


@functools.cache
def stand_in_library() -> CublasLt:
    """The library as hktune opens it, for as long as the process lives."""
    with opened(CublasLtStandIn(), pytest.MonkeyPatch()):
        return CublasLt()


@contextmanager
def opened(library: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[CublasLtStandIn]:
    """Within it, `library` is what hktune opens as libcublasLt."""
    names = {name: getattr(ctypes, name) for name in dir(ctypes)}
    found: Callable[[str], object] = {"libcublasLt.so.13": library}.__getitem__
    with monkeypatch.context() as patched:
        patched.setattr(torch.version, "cuda", "13.0")
        patched.setattr(cublaslt, "ctypes", SimpleNamespace(**{**names, "CDLL": found}))
        yield library
