"""AMD's libhipblaslt through ctypes: the functions that are used, and what they take and answer.

Numbers and types are those of hipblaslt.h, hipblas-common.h and library_types.h (ROCm 7.2.4, hipBLASLt 1.2.2). What
lists all solutions, and names them, is C++ (hipblaslt-ext.hpp). It is called by the names that the Itanium C++ ABI
gives it. These names hold the types of what it takes, so a library that has a name takes just that. `B5cxx11` in one
says which std::string it answers: libstdc++'s of GCC 5 and newer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_int64, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Any

from hktune.core.errors import DeviceError

DATA_TYPES = {"f32": 0, "f16": 2, "i8": 3, "i32": 10, "bf16": 14, "e4m3": 28, "e5m2": 29}
"""hipDataType, by format."""
COMPUTE_FLOAT32, COMPUTE_INT32 = 2, 9  # hipblasComputeType_t
AS_STORED, TRANSPOSED = 111, 112  # hipblasOperation_t
TRANSPOSE_FIRST, TRANSPOSE_SECOND, EPILOGUE, BIAS_POINTER, BIAS_TYPE = range(5)  # hipblasLtMatmulDescAttributes_t
SCALE_POINTER_FIRST, SCALE_POINTER_SECOND, SCALE_MODE_FIRST, SCALE_MODE_SECOND = 5, 6, 31, 32
SCALE_VECTOR = 3  # hipblasLtMatmulMatrixScale_t: one for each row of a matrix, in float32
ADDS_BIAS = 4  # hipblasLtEpilogue_t

_MAX_WORKSPACE = 1  # hipblasLtMatmulPreferenceAttributes_t
_ONE_PRODUCT = 1  # hipblaslt_ext::GemmType
_REVISION_BYTES = 256  # a git revision has 40 at most
_ALL = (
    "_ZN13hipblaslt_ext11getAllAlgosEPvNS_8GemmTypeE18hipblasOperation_tS2_11hipDataTypeS3_S3_S3_20hipblasComputeType_t"
    "RSt6vectorI33_hipblasLtMatmulHeuristicResult_tSaIS6_EE"
)
_SUPPORTED = (
    "_ZN13hipblaslt_ext21matmulIsAlgoSupportedEPvP27hipblasLtMatmulDescOpaque_tPKvP29hipblasLtMatrixLayoutOpaque_t"
    "S6_S4_S6_S6_R22_hipblasLtMatmulAlgo_tRm"
)
_NAME = "_ZN13hipblaslt_ext23getSolutionNameFromAlgoB5cxx11EPvR22_hipblasLtMatmulAlgo_t"
_INDEX = "_ZN13hipblaslt_ext16getIndexFromAlgoER22_hipblasLtMatmulAlgo_t"
_DELETE = "_ZdlPv"  # operator delete(void*), which libstdc++ has
_CPLUSPLUS = (_ALL, _SUPPORTED, _NAME, _INDEX, _DELETE)


class Algorithm(ctypes.Structure):
    """hipblasLtMatmulAlgo_t."""

    _fields_ = (("data", c_uint8 * 16), ("max_workspace_bytes", c_size_t))


class Heuristic(ctypes.Structure):
    """hipblasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", Algorithm),
        ("workspace_bytes", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class _Vector(ctypes.Structure):
    """std::vector: of nothing it is three null pointers."""

    _fields_ = (("begin", c_void_p), ("end", c_void_p), ("room_end", c_void_p))


class _String(ctypes.Structure):
    """libstdc++'s std::string. A short one is in `own`, where `text` points then."""

    _fields_ = (("text", c_void_p), ("length", c_size_t), ("own", c_uint8 * 16))


class HipblasLtLibrary:
    """The functions of one libhipblaslt. All raise DeviceError where it answers that it failed.

    A handle is for one thread. `described` is what the questions about a product begin with, after the handle: its
    descriptor, a pointer to what the product is multiplied by, the layouts of both factors, a pointer to what C is
    multiplied by, and the layouts of C before and after.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises DeviceError where it lacks a function."""
        missing = [name for name in _CPLUSPLUS if not hasattr(library, name)]
        if missing:
            raise DeviceError(f"hipBLASLt lacks {missing[0]}: its solutions cannot be listed, install ROCm 7's")
        self.functions: Any = library
        self._all, self._supported = library[_ALL], library[_SUPPORTED]
        self._name, self._index, self._delete = library[_NAME], library[_INDEX], library[_DELETE]
        self._name.restype = self._delete.restype = None

    def create(self) -> c_void_p:
        """A handle on the current device of the calling thread."""
        handle = c_void_p()
        self.call("hipblasLtCreate", byref(handle))
        return handle

    def version(self, handle: c_void_p) -> str:
        """1.2.2, and the git revision where the library knows it: 1.2.2-5b3f1cd."""
        number, revision = c_int(), ctypes.create_string_buffer(_REVISION_BYTES)
        self.call("hipblasLtGetVersion", handle, byref(number))
        self.call("hipblasLtGetGitRevision", handle, revision)
        parts = number.value // 100_000, number.value // 100 % 1000, number.value % 100
        text = revision.value.decode("ascii", errors="replace")
        return ".".join(map(str, parts)) + (f"-{text}" if text else "")

    def descriptor(self, compute: int, scale: int) -> c_void_p:
        """A new hipblasLtMatmulDesc_t; `compute` is a hipblasComputeType_t, `scale` a hipDataType."""
        made = c_void_p()
        self.call("hipblasLtMatmulDescCreate", byref(made), compute, scale)
        return made

    def describe(self, descriptor: c_void_p, attribute: int, value: Any) -> None:
        """Set an attribute of a descriptor."""
        self._set("hipblasLtMatmulDescSetAttribute", descriptor, attribute, value)

    def layout(self, data_type: int, rows: int, columns: int) -> c_void_p:
        """A new hipblasLtMatrixLayout_t: column-major, without gaps."""
        made = c_void_p()
        sizes = c_uint64(rows), c_uint64(columns), c_int64(rows)
        self.call("hipblasLtMatrixLayoutCreate", byref(made), data_type, *sizes)
        return made

    def all_algorithms(
        self, handle: c_void_p, transposes: tuple[int, int], data_types: Sequence[int], compute: int
    ) -> dict[int, Algorithm]:
        """All solutions for products of one kind, by their index. `data_types` are those of both factors and of C."""
        first, second, c = data_types
        found = _Vector()
        status = self._all(handle, _ONE_PRODUCT, *transposes, first, second, c, c, compute, byref(found))
        try:
            check("hipblaslt_ext::getAllAlgos", status)
            count = ((found.end or 0) - (found.begin or 0)) // ctypes.sizeof(Heuristic)
            results = (Heuristic * count).from_address(found.begin) if found.begin else ()
            own = [Algorithm.from_buffer_copy(result.algorithm) for result in results]
        finally:
            self._delete(c_void_p(found.begin))
        return {self.index(algorithm): algorithm for algorithm in own}

    def heuristic(
        self, handle: c_void_p, described: Sequence[c_void_p], asked: int, workspace_bytes: int
    ) -> list[Algorithm]:
        """What the library's heuristic names for a product, best first by its own estimate."""
        operation, _, first, second, _, before, after = described
        preference, found, count = c_void_p(), (Heuristic * asked)(), c_int()
        self.call("hipblasLtMatmulPreferenceCreate", byref(preference))
        try:
            limit = c_uint64(workspace_bytes)
            self._set("hipblasLtMatmulPreferenceSetAttribute", preference, _MAX_WORKSPACE, limit)
            question = (handle, operation, first, second, before, after, preference, asked, found, byref(count))
            # It answers INVALID_VALUE or NOT_SUPPORTED where it names none.
            if self.functions.hipblasLtMatmulAlgoGetHeuristic(*question):
                return []
        finally:
            self.call("hipblasLtMatmulPreferenceDestroy", preference)
        return [Algorithm.from_buffer_copy(each.algorithm) for each in found[: count.value] if each.state == 0]

    def workspace_bytes(self, handle: c_void_p, described: Sequence[c_void_p], algorithm: Algorithm) -> int | None:
        """What `algorithm` needs for a product; None where it does not compute it. May change `algorithm`."""
        size = c_size_t()
        return None if self._supported(handle, *described, byref(algorithm), byref(size)) else size.value

    def index(self, algorithm: Algorithm) -> int:
        """The number of a solution, in this version of the library."""
        return int(self._index(byref(algorithm)))

    def name(self, handle: c_void_p, algorithm: Algorithm) -> str:
        """What the library calls a solution."""
        answer = _String()
        self._name(byref(answer), handle, byref(algorithm))  # what returns an object takes where it goes first
        text = ctypes.string_at(answer.text, answer.length).decode("ascii", errors="replace")
        if answer.text != ctypes.addressof(answer) + _String.own.offset:
            self._delete(c_void_p(answer.text))
        return text

    def call(self, function: str, *arguments: object) -> None:
        check(function, getattr(self.functions, function)(*arguments))

    def _set(self, function: str, target: c_void_p, attribute: int, value: Any) -> None:
        self.call(function, target, attribute, byref(value), c_size_t(ctypes.sizeof(value)))


def check(function: str, status: int) -> None:
    """Raises DeviceError where a function does not answer success."""
    if status:
        raise DeviceError(f"{function} answers {status} (hipblasStatus_t): go on without hipBLASLt's solutions")
