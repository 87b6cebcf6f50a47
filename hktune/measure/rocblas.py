"""rocBLAS without torch: its own choice, or any of its solutions by number, each a baseline.

Signatures and numbers are those of rocblas-types.h and rocblas-functions.h, ROCm 7. The list of solutions is a beta
feature of rocBLAS, in no order that it states.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path

from hktune.core.errors import DeviceError
from hktune.core.operand import operands_of
from hktune.core.problem import Problem
from hktune.measure.arena import OperandSet

LIBRARY = "librocblas.so"
_DATA_TYPES = {"f16": 150, "f32": 151, "bf16": 168}  # rocblas_datatype, by format
_AS_STORED, _TRANSPOSED = 111, 112
_OWN_CHOICE, _BY_INDEX = 0, 1  # rocblas_gemm_algo
_CHECK_INDEX = 8  # of rocblas_gemm_flags: says whether a solution fits, and launches nothing


@dataclass(frozen=True)
class RocblasSolution:
    """Baseline: a solution by its number among those of a problem; None is what rocBLAS itself takes."""

    library: Rocblas
    index: int | None = None

    @property
    def name(self) -> str:
        return self.library.name if self.index is None else f"{self.library.name}, solution {self.index}"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline. Raises DeviceError for a solution that does not fit the problem."""
        product = _Product.of(problem)
        if self.index is not None:
            self.library.multiply(product, operands, stream, self.index, _CHECK_INDEX)

        def enqueue(operands: OperandSet) -> None:
            self.library.multiply(product, operands, stream, self.index)

        enqueue(operands)
        return enqueue


@dataclass(frozen=True)
class _Product:
    """A problem in rocBLAS' column-major terms: C^T = B^T A^T, so that all matrices are read as they are stored."""

    transposes: tuple[int, int]
    sizes: tuple[int, int, int]
    types: tuple[int, int, int]
    leading: tuple[int, int, int]

    @classmethod
    def of(cls, problem: Problem) -> _Product:
        """Raises DeviceError for an epilogue, or a format that rocBLAS lacks."""
        operation, operands = problem.operation, operands_of(problem.operation)
        used = [operands[name] for name in ("b", "a", "c")]
        if operation.epilogue or any(operand.dtype.name not in _DATA_TYPES for operand in used):
            raise DeviceError(f"rocBLAS has no {operation}: ask for the product alone, in f32, f16 or bf16")
        b, a, c = (_DATA_TYPES[operand.dtype.name] for operand in used)
        first, second, third = (operand.shape(problem.sizes)[1] for operand in used)
        return cls(
            transposes=(_transpose(operation.layout[1]), _transpose(operation.layout[0])),
            sizes=(problem.n, problem.m, problem.k),
            types=(b, a, c),
            leading=(first, second, third),
        )


class Rocblas:
    """One handle on the calling thread's current device."""

    def __init__(self, folder: Path) -> None:
        """Of the library in `folder`, which is that of the HIP runtime. Raises DeviceError where there is none."""
        path = next(iter(sorted(folder.glob(f"{LIBRARY}*"))), folder / LIBRARY)
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as absent:
            raise DeviceError(f"no rocBLAS ({absent}): install ROCm's, or compare without it") from None
        self._handle = c_void_p()
        self._call("rocblas_create_handle", byref(self._handle))
        self._one, self._zero = c_float(1.0), c_float(0.0)
        self.name = f"rocBLAS {self._version()}"

    def solutions(self, problem: Problem, operands: OperandSet) -> list[int]:
        """The numbers of all solutions that rocBLAS has for `problem`. Some may not fit it all the same."""
        count, product = c_int32(), _Product.of(problem)
        arguments = (*self._arguments(product, operands), _BY_INDEX, c_uint32(0))
        self._call("rocblas_gemm_ex_get_solutions", *arguments, None, byref(count))
        found = (c_int32 * count.value)()
        self._call("rocblas_gemm_ex_get_solutions", *arguments, found, byref(count))
        return list(found[: count.value])

    def multiply(
        self, product: _Product, operands: OperandSet, stream: int, index: int | None = None, flags: int = 0
    ) -> None:
        """Queue one product, by solution `index` or rocBLAS' own choice."""
        algorithm = _OWN_CHOICE if index is None else _BY_INDEX
        self._call("rocblas_set_stream", self._handle, c_void_p(stream))
        self._call(
            "rocblas_gemm_ex", *self._arguments(product, operands), algorithm, c_int32(index or 0), c_uint32(flags)
        )

    def _arguments(self, product: _Product, operands: OperandSet) -> tuple[object, ...]:
        """What both functions begin with, to the type of the sums."""
        b, a, c = (c_void_p(operands[name].data_ptr()) for name in ("b", "a", "c"))
        (type_b, type_a, type_c), (of_b, of_a, of_c) = product.types, product.leading
        return (
            *(self._handle, *product.transposes, *product.sizes, byref(self._one)),
            *(b, type_b, of_b, a, type_a, of_a, byref(self._zero)),
            *(c, type_c, of_c, c, type_c, of_c, _DATA_TYPES["f32"]),
        )

    def _version(self) -> str:
        size = c_size_t()
        self._call("rocblas_get_version_string_size", byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call("rocblas_get_version_string", text, size)
        return text.value.decode(errors="replace")

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise DeviceError(f"{function} answers {status} (rocblas_status): take another solution, or none")


def _transpose(stored: str) -> int:
    """What is row-major is its own transpose in column-major terms."""
    return _TRANSPOSED if stored == "t" else _AS_STORED
