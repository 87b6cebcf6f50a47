"""NVIDIA's cuBLASLt through ctypes: the algorithms that its heuristic names for a problem, and launches of them.

It is the libcublasLt that torch has loaded. Numbers and types are those of cublasLt.h and library_types.h, CUDA 13.1.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hktune.core.errors import DeviceError
from hktune.core.operand import Operand, operands_of
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import CALL_OPERANDS, PreparedLaunch
from hktune.device.vendor_library import out_of_place

NAME: Final = "cublasLt"
ASKED = {32 << 20: 32, 0: 8, 128 << 20: 8}
"""Bytes of workspace that algorithms may need at most, and how many of them are asked for: what torch gives cuBLAS on
Hopper first, then none, then plenty. The heuristic names fewer where it knows no more."""
ALIGNMENT_BYTES = 16
"""What operands are aligned to at least: algorithms that need more are not named."""

_DATA_TYPES = {"f32": 0, "f16": 2, "i8": 3, "i32": 10, "bf16": 14, "e4m3": 28, "e5m2": 29}  # cudaDataType, by format
_SIXTEEN_BITS, _FLOAT8 = ("f16", "bf16"), ("e4m3", "e5m2")
_COMPUTE = {"f32": 68, "i32": 72}  # cublasComputeType_t, by what is summed in; alpha and beta are of that too
_TRANSPOSE = {"b": 3, "a": 4}  # its first matrix is our B
_TRANSPOSED = 1
_EPILOGUE, _FAST_ACCUMULATION = 7, 25
_POINTERS = {"bias": 8, "scale_b": 17, "scale_a": 18}  # of operands that a descriptor has the address of
_SCALE_MODES = {"scale_b": 31, "scale_a": 32}
_OUTER_VECTOR = 3  # cublasLtMatmulMatrixScale_t: a float32 for each row of A and each column of B; 0 is one of each
_EPILOGUES = {  # cublasLtEpilogue_t; its gelu is the one by tanh
    **{(): 1, ("accumulate",): 1, ("residual",): 1, ("bias",): 4, ("bias", "residual"): 4},
    **{("relu",): 2, ("bias", "relu"): 6, ("gelu_tanh",): 32, ("bias", "gelu_tanh"): 36},
}
_MAX_WORKSPACE, _MIN_ALIGNMENTS = 1, (5, 6, 7, 8)  # of A, B, C and D
_ANY_ADDRESS = 256  # of a bias or a scale, while algorithms are asked for: it is not read
_CONFIG = (
    *(("id", 0, ctypes.c_int32), ("tile", 1, ctypes.c_uint32), ("stages", 6, ctypes.c_uint32)),
    *(("split_k", 2, ctypes.c_int32), ("reduction", 3, ctypes.c_uint32), ("swizzling", 4, ctypes.c_uint32)),
    *(("option", 5, ctypes.c_uint32), ("inner_shape", 7, ctypes.c_uint16), ("cluster", 8, ctypes.c_uint16)),
)
"""What a configured algorithm is made of: a word, its cublasLtMatmulAlgoConfigAttributes_t, the type of its value."""


class _Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", _Algorithm),
        ("workspace_bytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True)
class _Plan:
    """What the library knows of one problem. `layouts` are of B, A and C; `found` is by algorithm."""

    operation: ctypes.c_void_p
    layouts: tuple[ctypes.c_void_p, ...]
    found: Mapping[VendorAlgorithm, _Algorithm]

    @property
    def described(self) -> tuple[ctypes.c_void_p, ...]:
        """What the library's questions about algorithms begin with, after its handle."""
        of_b, of_a, of_c = self.layouts
        return (self.operation, of_b, of_a, of_c, of_c)


class CublasLt:
    """VendorLibrary. C^T = B^T A^T in its column-major terms, so that all three matrices are read as they are stored.

    Raises DeviceError where torch has no cuBLASLt. The GPU is asked for with the first question.
    """

    name = NAME

    def __init__(self) -> None:
        import torch

        major = (torch.version.cuda or "0").partition(".")[0]
        try:
            self._library = ctypes.CDLL(f"libcublasLt.so.{major}")
        except OSError as absent:
            raise DeviceError(f"torch has no cuBLASLt ({absent}): its algorithms cannot be asked for") from None
        self.version = str(self._library.cublasLtGetVersion())
        self._plans: dict[Problem, _Plan] = {}
        self._planning = threading.Lock()

    @functools.cached_property
    def handle(self) -> ctypes.c_void_p:
        """Of the GPU that was current when it was first asked for."""
        made = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(made))
        return made

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """See VendorLibrary."""
        return list(self._plan(problem).found) if _computes(problem.operation) else []

    def refusal(self, algorithm: VendorAlgorithm, problem: Problem) -> str | None:
        """See VendorLibrary. The stored bytes are compared with what the heuristic names, and are never passed on."""
        elsewhere = out_of_place(self, algorithm, problem.operation, _computes)
        if elsewhere:
            return elsewhere
        plan = self._plan(problem)
        if algorithm not in plan.found:
            return f"{algorithm} is none of the {len(plan.found)} that {NAME} {self.version} names for {problem}"
        return None

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        """See VendorLibrary."""
        refused = self.refusal(algorithm, problem)
        if refused:
            raise DeviceError(f"{refused}: take another algorithm, or torch's own product")
        plan = self._plan(problem)
        return _CublasLtLaunch(self, plan, plan.found[algorithm], algorithm.workspace_bytes, problem, operands)

    def _plan(self, problem: Problem) -> _Plan:
        with self._planning:
            if problem not in self._plans:
                self._plans[problem] = self._planned(problem)
            return self._plans[problem]

    def _planned(self, problem: Problem) -> _Plan:
        operands = operands_of(problem.operation)
        operation = self.described(problem.operation)
        layouts = tuple(self._layout(operands[name], problem) for name in ("b", "a", "c"))
        named = _Plan(operation, layouts, {})
        found: dict[VendorAlgorithm, _Algorithm] = {}
        for limit_bytes, most in ASKED.items():
            for result in self._named(named, limit_bytes, most):
                needed_bytes = self._checked_bytes(named, result)
                if needed_bytes is not None:
                    found.setdefault(self._stored(result, needed_bytes), _copied(result.algorithm))
        return _Plan(operation, layouts, found)

    def _checked_bytes(self, plan: _Plan, result: Any) -> int | None:
        """The workspace that a named algorithm needs; None where the library's own check refuses it. The check may want
        more than the heuristic said: 4 bytes in place of 0, seen with cuBLASLt 13.1 on an H200."""
        checked = _Heuristic()
        asked = (self.handle, *plan.described, ctypes.byref(result.algorithm), ctypes.byref(checked))
        if self._library.cublasLtMatmulAlgoCheck(*asked):
            return None
        return int(max(result.workspace_bytes, checked.workspace_bytes))

    def _named(self, plan: _Plan, limit_bytes: int, most: int) -> list[Any]:
        """What the heuristic names within a workspace, best first by its own estimate; so many at most."""
        preference = ctypes.c_void_p()
        self._call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        set_preference = "cublasLtMatmulPreferenceSetAttribute"
        self._set(set_preference, preference, _MAX_WORKSPACE, ctypes.c_uint64(limit_bytes))
        for attribute in _MIN_ALIGNMENTS:
            self._set(set_preference, preference, attribute, ctypes.c_uint32(ALIGNMENT_BYTES))
        found, count = (_Heuristic * most)(), ctypes.c_int()
        asked = (self.handle, *plan.described, preference, most, found, ctypes.byref(count))
        status = self._library.cublasLtMatmulAlgoGetHeuristic(*asked)
        self._call("cublasLtMatmulPreferenceDestroy", preference)
        if status == _NOT_SUPPORTED:
            return []
        _check("cublasLtMatmulAlgoGetHeuristic", status)
        return [result for result in found[: count.value] if result.state == 0]

    def _stored(self, result: Any, workspace_bytes: int) -> VendorAlgorithm:
        handle = bytes(result.algorithm).hex()
        return VendorAlgorithm(NAME, self.version, handle, self._words(result.algorithm), workspace_bytes)

    def _words(self, algorithm: Any) -> str:
        """What a configured algorithm is made of, for people: its id, and what is not 0."""
        words = []
        for word, attribute, kind in _CONFIG:
            value, size = kind(), ctypes.c_size_t()
            asked = (ctypes.byref(algorithm), attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))
            status = self._library.cublasLtMatmulAlgoConfigGetAttribute(*asked, ctypes.byref(size))
            if not status and (value.value or attribute == 0):
                words.append(f"{word}={value.value}")
        return " ".join(words)

    def described(self, operation: Operation) -> ctypes.c_void_p:
        """A new cublasLtMatmulDesc_t."""
        made, sums = ctypes.c_void_p(), operation.accumulator.name
        self._call("cublasLtMatmulDescCreate", ctypes.byref(made), _COMPUTE[sums], _DATA_TYPES[sums])
        # What is row-major is its own transpose in column-major terms, as C^T = B^T A^T wants it of [k,n] and [m,k].
        for name, stored in zip("ab", operation.layout, strict=True):
            if stored == "t":
                self._set_operation(made, _TRANSPOSE[name], ctypes.c_int32(_TRANSPOSED))
        self._set_operation(made, _EPILOGUE, ctypes.c_uint32(_EPILOGUES[operation.epilogue]))
        if operation.accumulation:
            self._set_operation(made, _FAST_ACCUMULATION, ctypes.c_int8(1))
        for name in _addressed(operation):
            self._set_operation(made, _POINTERS[name], ctypes.c_void_p(_ANY_ADDRESS))
            if operation.scales == "rows" and name in _SCALE_MODES:
                self._set_operation(made, _SCALE_MODES[name], ctypes.c_int32(_OUTER_VECTOR))
        return made

    def _layout(self, operand: Operand, problem: Problem) -> ctypes.c_void_p:
        """A matrix without gaps, whose rows are columns here."""
        layout, (columns, rows) = ctypes.c_void_p(), operand.shape(problem.sizes)
        sizes = (ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(rows))
        self._call("cublasLtMatrixLayoutCreate", ctypes.byref(layout), _DATA_TYPES[operand.dtype.name], *sizes)
        return layout

    def _set_operation(self, operation: ctypes.c_void_p, attribute: int, value: Any) -> None:
        self._set("cublasLtMatmulDescSetAttribute", operation, attribute, value)

    def _set(self, function: str, target: ctypes.c_void_p, attribute: int, value: Any) -> None:
        self._call(function, target, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))

    def _call(self, function: str, *arguments: object) -> None:
        _check(function, getattr(self._library, function)(*arguments))


_NOT_SUPPORTED = 15


def _check(function: str, status: int) -> None:
    if status:
        raise DeviceError(f"{function} answers {status} (cublasStatus_t): go on without cuBLASLt's algorithms")


def _copied(algorithm: Any) -> _Algorithm:
    return _Algorithm.from_buffer_copy(algorithm)


def _computes(operation: Operation) -> bool:
    """Factors of formats that it has together, C in one that it makes of these, and steps that it does."""
    a, b, c, steps = operation.a, operation.b, operation.c, operation.epilogue
    if operation.kind != "gemm" or steps not in _EPILOGUES:
        return False
    if a in _FLOAT8 and b in _FLOAT8:
        formats = "e4m3" in (a, b) and operation.layout == "nt" and operation.scales in ("tensor", "rows")
        known = [(), ("accumulate",)] if c == "f32" else [(), ("bias",)]  # a bias of float32 it has not
        return formats and c in ("f32", *_SIXTEEN_BITS) and steps in known
    if operation.scales:
        return False
    if a == "i8":
        return b == a and c == "i32" and operation.layout == "nt" and not steps
    return a in ("f32", *_SIXTEEN_BITS) and b == a and c in (a, "f32")


def _addressed(operation: Operation) -> tuple[str, ...]:
    """The operands that a descriptor has the address of."""
    return tuple(name for name in operands_of(operation) if name in _POINTERS)


class _Arguments(threading.local):
    """What one thread's calls of cublasLtMatmul are made with. A bias and scales are part of the descriptor: so each
    thread has its own of those."""

    def __init__(self, launch: _CublasLtLaunch) -> None:
        self.a, self.b, self.c, self.added = (ctypes.c_void_p() for _ in range(4))
        self.workspace, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.addressed = [(attribute, place, ctypes.c_void_p()) for attribute, place in launch.addressed]
        self.operation = launch.own_operation()
        self.passed = launch.passed(self)


class _CublasLtLaunch:
    """A `PreparedLaunch`: descriptors are made, and a call fills in addresses and calls the library once."""

    def __init__(
        self,
        library: CublasLt,
        plan: _Plan,
        algorithm: _Algorithm,
        workspace_bytes: int,
        problem: Problem,
        operands: Sequence[str],
    ) -> None:
        self._library, self._plan, self._operation = library, plan, problem.operation
        self._algorithm, self._workspace_bytes = algorithm, workspace_bytes
        adds = problem.operation.accumulates or problem.operation.has_residual
        kind = ctypes.c_int32 if problem.operation.accumulator.is_integer else ctypes.c_float
        self._one, self._beta = kind(1), kind(adds)
        self._matmul = library._library.cublasLtMatmul
        self._set_pointer = library._library.cublasLtMatmulDescSetAttribute
        self._a, self._b, self._c, self._workspace = map(operands.index, ("a", "b", "c", "workspace"))
        self._added = operands.index("residual") if problem.operation.has_residual else self._c
        self.addressed = [(_POINTERS[name], operands.index(name)) for name in _addressed(problem.operation)]
        self._pointer_bytes = ctypes.c_size_t(ctypes.sizeof(ctypes.c_void_p))
        self._arguments = _Arguments(self)

    def own_operation(self) -> ctypes.c_void_p:
        """The descriptor for the calls of one thread."""
        if not self.addressed:
            return self._plan.operation
        own = self._library.described(self._operation)
        destroy = self._library._library.cublasLtMatmulDescDestroy
        weakref.finalize(own, destroy, ctypes.c_void_p(own.value)).atexit = False
        return own

    def passed(self, own: _Arguments) -> tuple[object, ...]:
        """All arguments of a call, whose addresses are those of `own`."""
        of_b, of_a, of_c = self._plan.layouts
        return (
            *(self._library.handle, own.operation, ctypes.byref(self._one), own.b, of_b, own.a, of_a),
            *(ctypes.byref(self._beta), own.added, of_c, own.c, of_c, ctypes.byref(self._algorithm)),
            *(own.workspace, ctypes.c_size_t(self._workspace_bytes), own.stream),
        )

    def __call__(self, *tensors_and_stream: Any) -> None:
        own = self._arguments
        own.a.value = tensors_and_stream[self._a].data_ptr()
        own.b.value = tensors_and_stream[self._b].data_ptr()
        own.c.value = tensors_and_stream[self._c].data_ptr()
        own.added.value = tensors_and_stream[self._added].data_ptr()
        own.stream.value = tensors_and_stream[-1]
        if self._workspace_bytes:
            own.workspace.value = tensors_and_stream[self._workspace].data_ptr()
        for attribute, place, address in own.addressed:
            address.value = tensors_and_stream[place].data_ptr()
            status = self._set_pointer(own.operation, attribute, ctypes.byref(address), self._pointer_bytes)
            _check("cublasLtMatmulDescSetAttribute", status)
        status = self._matmul(*own.passed)
        if status:
            _check("cublasLtMatmul", status)
