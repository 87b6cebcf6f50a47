"""The algorithms that cuBLASLt's heuristic names for a problem, each a baseline of its own: torch takes the first.

Through the libcublasLt that torch has loaded. Numbers are those of cublasLt.h and library_types.h, CUDA 13.0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError
from hktune.core.operand import Operand, operands_of
from hktune.core.problem import Problem
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import check_steps

if TYPE_CHECKING:
    import torch

ALGORITHMS = 8
WORKSPACE_BYTES = 32 << 20  # what cuBLAS recommends for Hopper, and torch gives it
_DATA_TYPES = {"f32": 0, "f16": 2, "bf16": 14}  # cudaDataType, by format
_COMPUTE_FLOAT32 = 68
_TRANSPOSE = {"b": 3, "a": 4}  # its first matrix is our B
_TRANSPOSED, _MAX_WORKSPACE = 1, 1
_EPILOGUE, _ADDS_BIAS, _BIAS_POINTER = 7, 4, 8


_Value = ctypes.c_int32 | ctypes.c_uint32 | ctypes.c_uint64 | ctypes.c_void_p
"""What an attribute can be set to."""


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace_bytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True)
class CublasLtAlgorithm:
    """Baseline: the algorithm that the heuristic ranks at `rank` (0: its own pick)."""

    library: CublasLt
    rank: int

    @property
    def name(self) -> str:
        return f"cuBLASLt algorithm {self.rank}"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline. Raises DeviceError when the heuristic knows fewer algorithms."""
        plan = self.library.plan(problem)
        if self.rank >= len(plan.heuristics):
            raise DeviceError(f"cuBLASLt names {len(plan.heuristics)} algorithms for {problem}: ask for one of those")

        def enqueue(operands: OperandSet) -> None:
            self.library.multiply(plan, self.rank, operands, stream)

        enqueue(operands)
        return enqueue


@dataclass(frozen=True)
class _Plan:
    operation: ctypes.c_void_p
    layouts: tuple[ctypes.c_void_p, ...]
    heuristics: tuple[_Heuristic, ...]
    beta: ctypes.c_float  # what C counts before


class CublasLt:
    """One handle. C^T = B^T A^T in its column-major terms, so that all three matrices are read as they are stored."""

    def __init__(self) -> None:
        import torch

        major = (torch.version.cuda or "0").partition(".")[0]
        try:
            self._library = ctypes.CDLL(f"libcublasLt.so.{major}")
        except OSError as absent:
            raise DeviceError(f"torch has no cuBLASLt ({absent}): its algorithms cannot be asked for") from None
        self._handle = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self._handle))
        self._workspace: torch.Tensor = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
        self._one = ctypes.c_float(1.0)
        self._plans: dict[Problem, _Plan] = {}

    def plan(self, problem: Problem) -> _Plan:
        """Descriptors of `problem` and what the heuristic names, best first by its own estimate. Raises DeviceError for
        an epilogue that it does not have."""
        if problem not in self._plans:
            check_steps(problem.operation)
            self._plans[problem] = self._planned(problem)
        return self._plans[problem]

    def multiply(self, plan: _Plan, rank: int, operands: OperandSet, stream: int) -> None:
        """Queue one product by algorithm `rank` of `plan`."""
        b, a, c = (ctypes.c_void_p(operands[name].data_ptr()) for name in ("b", "a", "c"))
        of_b, of_a, of_c = plan.layouts
        if "bias" in operands:
            self._set_operation(plan.operation, _BIAS_POINTER, ctypes.c_void_p(operands["bias"].data_ptr()))
        self._call(
            "cublasLtMatmul",
            *(self._handle, plan.operation, ctypes.byref(self._one), b, of_b, a, of_a),
            *(ctypes.byref(plan.beta), c, of_c, c, of_c, ctypes.byref(plan.heuristics[rank].algorithm)),
            *(ctypes.c_void_p(self._workspace.data_ptr()), ctypes.c_size_t(WORKSPACE_BYTES), ctypes.c_void_p(stream)),
        )

    def _planned(self, problem: Problem) -> _Plan:
        operation, preference = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cublasLtMatmulDescCreate", ctypes.byref(operation), _COMPUTE_FLOAT32, _DATA_TYPES["f32"])
        # What is row-major is its own transpose in column-major terms, as C^T = B^T A^T wants it of [k,n] and [m,k].
        for name, stored in zip("ab", problem.operation.layout, strict=True):
            if stored == "t":
                self._set_operation(operation, _TRANSPOSE[name], ctypes.c_int32(_TRANSPOSED))
        if problem.operation.has_bias:
            self._set_operation(operation, _EPILOGUE, ctypes.c_uint32(_ADDS_BIAS))
        self._call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        limit = ctypes.c_uint64(WORKSPACE_BYTES)
        self._set("cublasLtMatmulPreferenceSetAttribute", preference, _MAX_WORKSPACE, limit)
        operands = operands_of(problem.operation)
        layouts = tuple(self._layout(operands[name], problem) for name in ("b", "a", "c"))
        found, count = (_Heuristic * ALGORITHMS)(), ctypes.c_int()
        of_b, of_a, of_c = layouts
        self._call(
            "cublasLtMatmulAlgoGetHeuristic",
            *(self._handle, operation, of_b, of_a, of_c, of_c, preference),
            *(ALGORITHMS, found, ctypes.byref(count)),
        )
        self._call("cublasLtMatmulPreferenceDestroy", preference)
        usable = tuple(result for result in found[: count.value] if result.state == 0)
        return _Plan(operation, layouts, usable, ctypes.c_float(problem.operation.accumulates))

    def _layout(self, operand: Operand, problem: Problem) -> ctypes.c_void_p:
        """A matrix without gaps, whose rows are columns here."""
        layout, (columns, rows) = ctypes.c_void_p(), operand.shape(problem.sizes)
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(rows))
        self._call("cublasLtMatrixLayoutCreate", ctypes.byref(layout), _DATA_TYPES[operand.dtype.name], *sizes)
        return layout

    def _set_operation(self, operation: ctypes.c_void_p, attribute: int, value: _Value) -> None:
        self._set("cublasLtMatmulDescSetAttribute", operation, attribute, value)

    def _set(self, function: str, target: ctypes.c_void_p, attribute: int, value: _Value) -> None:
        self._call(function, target, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise DeviceError(f"{function} answers {status} (cublasStatus_t): compare without its algorithms")
