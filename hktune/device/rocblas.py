"""AMD's rocBLAS: its own choice and all solutions that it has for a problem, by their index, and launches of them.

Numbers and types are those of rocblas-types.h, rocblas-functions.h and rocblas-beta.h (ROCm 7.2.4, rocBLAS 5.2). The
list of solutions is a beta feature, in no order that it states, and without names.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from ctypes import byref, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any, Final

from hktune.core.dtype import I32
from hktune.core.errors import DeviceError
from hktune.core.operand import operands_of
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.solution_index import handle_of, index_of
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import CALL_OPERANDS, PreparedLaunch
from hktune.device.vendor_library import out_of_place

NAME: Final = "rocBLAS"
OWN_CHOICE = "its own choice"
"""The name of the index 0: rocBLAS chooses, and equal versions choose alike. Other solutions have no names."""
WORKSPACE_BYTES = 32 << 20
"""What every launch may use. rocBLAS can be asked what a solution needs, and whether it fits (its flag
check_solution_index). But for one row or column it launches some as it is asked (5.2.0, index -9)."""

_DATA_TYPES = {"f16": 150, "f32": 151, "i8": 160, "i32": 162, "bf16": 168}  # rocblas_datatype, by format
_AS_STORED, _TRANSPOSED = 111, 112  # rocblas_operation
_BY_INDEX = 1  # rocblas_gemm_algo: index 0 is rocBLAS' own choice
_NO_FLAGS = 0  # rocblas_gemm_flags
_FLOATS = ("f32", "f16", "bf16")
_NOWHERE = 256  # an address, while solutions are asked for: it is not read


@dataclass(frozen=True)
class _Matrices:
    """Where the matrices are: the addresses of one launch after the other."""

    a: c_void_p
    b: c_void_p
    c: c_void_p

    @classmethod
    def nowhere(cls) -> _Matrices:
        return cls(c_void_p(_NOWHERE), c_void_p(_NOWHERE), c_void_p(_NOWHERE))


class Rocblas:
    """VendorLibrary. C^T = B^T A^T in its column-major terms, so that all three matrices are read as they are stored.

    One handle, which has no memory of its own: a launch gives it the workspace. Raises DeviceError where there is no
    GPU.
    """

    name = NAME

    def __init__(self, library: ctypes.CDLL) -> None:
        self.functions: Any = library
        self.handle = c_void_p()
        self.calls = threading.Lock()
        """Held from what a launch sets of the handle to its end."""
        self._call("rocblas_create_handle", byref(self.handle))
        release = self.functions.rocblas_destroy_handle
        weakref.finalize(self, release, c_void_p(self.handle.value)).atexit = False
        self.version = self._version()
        # What a handle has of its own it frees when it is first given other memory, and that waits for the GPU.
        self._call("rocblas_set_workspace", self.handle, c_void_p(_NOWHERE), c_size_t(_NOWHERE))
        self._named: dict[Problem, tuple[VendorAlgorithm, ...]] = {}

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """See VendorLibrary: its own choice, and then all by their index, in no other order."""
        if not _computes(problem.operation):
            return []
        with self.calls:
            if problem not in self._named:
                self._named[problem] = tuple(map(self._stored, (0, *sorted(self._solutions(problem)))))
            return list(self._named[problem])

    def refusal(self, algorithm: VendorAlgorithm, problem: Problem) -> str | None:
        """See VendorLibrary."""
        elsewhere = out_of_place(self, algorithm, problem.operation, _computes)
        if elsewhere:
            return elsewhere
        named = self.algorithms(problem)
        if algorithm in named:
            return None
        index = index_of(algorithm.handle)
        current = next((each for each in named if index_of(each.handle) == index), None)
        if current is None:
            return f"{algorithm} is none of the {len(named)} solutions that it has for {problem}"
        saved = f"{algorithm.workspace_bytes} bytes, {algorithm.name!r:.80}"
        now = f"{current.workspace_bytes} bytes, {current.name!r}"
        return f"{NAME} {self.version}: solution {index} has another workspace or name: saved={saved} current={now}"

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        """See VendorLibrary."""
        refused, index = self.refusal(algorithm, problem), index_of(algorithm.handle)
        if refused or index is None:
            raise DeviceError(f"{refused}: take another algorithm, or torch's own product")
        return _RocblasLaunch(self, index, algorithm.workspace_bytes, problem, operands)

    def product(self, problem: Problem, at: _Matrices) -> tuple[object, ...]:
        """What functions about a product begin with, to the type of its sums."""
        operation, operands = problem.operation, operands_of(problem.operation)
        of_a, of_b = (_TRANSPOSED if stored == "t" else _AS_STORED for stored in operation.layout)
        number = c_int32 if operation.accumulator == I32 else c_float
        one, beta = byref(number(1)), byref(number(operation.accumulates))
        b, a, c = (_DATA_TYPES[operands[name].dtype.name] for name in ("b", "a", "c"))
        ld_b, ld_a, ld_c = (operands[name].extents(problem.sizes)[1] for name in ("b", "a", "c"))
        sizes = (problem.n, problem.m, problem.k)
        return (
            *(self.handle, of_b, of_a, *sizes, one, at.b, b, ld_b, at.a, a, ld_a),
            *(beta, at.c, c, ld_c, at.c, c, ld_c, _DATA_TYPES[operation.accumulator.name]),
        )

    def _solutions(self, problem: Problem) -> list[int]:
        """The indices that it lists for `problem`. That launches nothing."""
        count, product = c_int32(), self.product(problem, _Matrices.nowhere())
        arguments = (*product, _BY_INDEX, c_uint32(_NO_FLAGS))
        self._call("rocblas_gemm_ex_get_solutions", *arguments, None, byref(count))
        found = (c_int32 * count.value)()
        self._call("rocblas_gemm_ex_get_solutions", *arguments, found, byref(count))
        return list(found[: count.value])

    def _stored(self, index: int) -> VendorAlgorithm:
        called = "" if index else OWN_CHOICE
        return VendorAlgorithm(NAME, self.version, handle_of(index), called, WORKSPACE_BYTES)

    def _version(self) -> str:
        size = c_size_t()
        self._call("rocblas_get_version_string_size", byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call("rocblas_get_version_string", text, size)
        return text.value.decode(errors="replace")

    def _call(self, function: str, *arguments: object) -> None:
        check(function, getattr(self.functions, function)(*arguments))


def check(function: str, status: int) -> None:
    """Raises DeviceError where a function does not answer success."""
    if status:
        raise DeviceError(f"{function} answers {status} (rocblas_status): take another solution, or torch's product")


def _computes(operation: Operation) -> bool:
    """Factors of a float format and C in that or in float32, or 8-bit integers; and C may be added to."""
    if operation.kind != "gemm" or operation.epilogue not in ((), ("accumulate",)) or operation.scales:
        return False
    a, b, c = operation.a, operation.b, operation.c
    return (a, b, c) == ("i8", "i8", "i32") or (a in _FLOATS and b == a and c in (a, "f32"))


class _RocblasLaunch:
    """A `PreparedLaunch`: a call fills in addresses, tells the handle its stream and workspace, and launches once."""

    def __init__(
        self, library: Rocblas, index: int, workspace_bytes: int, problem: Problem, operands: Sequence[str]
    ) -> None:
        self._library, self._handle = library, library.handle  # the library, so that its handle stays
        self._at = _Matrices.nowhere()
        self._passed = (*library.product(problem, self._at), _BY_INDEX, c_int32(index), c_uint32(_NO_FLAGS))
        self._a, self._b, self._c = map(operands.index, ("a", "b", "c"))
        self._workspace, self._workspace_bytes = operands.index("workspace"), c_size_t(workspace_bytes)
        functions = library.functions
        self._multiply, self._set_stream = functions.rocblas_gemm_ex, functions.rocblas_set_stream
        self._set_workspace = functions.rocblas_set_workspace

    def __call__(self, *tensors_and_stream: Any) -> None:
        with self._library.calls:
            self._at.a.value = tensors_and_stream[self._a].data_ptr()
            self._at.b.value = tensors_and_stream[self._b].data_ptr()
            self._at.c.value = tensors_and_stream[self._c].data_ptr()
            check("rocblas_set_stream", self._set_stream(self._handle, c_void_p(tensors_and_stream[-1])))
            workspace = c_void_p(tensors_and_stream[self._workspace].data_ptr())
            check("rocblas_set_workspace", self._set_workspace(self._handle, workspace, self._workspace_bytes))
            status = self._multiply(*self._passed)
        check("rocblas_gemm_ex", status)
