"""AMD's hipBLASLt: all solutions that it has for a problem, by their index and name, and launches of them."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Mapping, Sequence
from ctypes import byref, c_float, c_int32, c_size_t, c_uint32, c_void_p, sizeof
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from hktune.core.dtype import I32
from hktune.core.errors import DeviceError
from hktune.core.operand import Operand, operands_of
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.core.solution_index import handle_of, index_of
from hktune.core.vendor_algorithm import NAME_MAX, VendorAlgorithm
from hktune.device import hipblaslt_library as api
from hktune.device.device import CALL_OPERANDS, PreparedLaunch
from hktune.device.hipblaslt_library import Algorithm, HipblasLtLibrary, check
from hktune.device.vendor_library import out_of_place

NAME: Final = "hipBLASLt"
FIRST_ASKED = 32
"""So many are asked of the heuristic; what it names comes first."""
WORKSPACE_BYTES_MAX = 128 << 20
"""What solutions may need at most. PyTorch gives hipBLASLt 76 MiB on MI300X and newer."""

_ANY_ADDRESS = 256  # of a bias or scale, while solutions are asked for: it is not read
_FLOATS = ("f32", "f16", "bf16")
_SMALL_FLOATS = ("e4m3", "e5m2")
_NAME_SHOWN = 80


@dataclass(frozen=True)
class _Kind:
    """What the list of solutions depends on, in hipBLASLt's column-major terms: C^T = B^T A^T, so that all matrices are
    read as they are stored. B comes first."""

    transposes: tuple[int, int]
    data_types: tuple[int, int, int]
    compute: int
    scale: int

    @classmethod
    def of(cls, operation: Operation) -> _Kind:
        of_a, of_b = (api.TRANSPOSED if stored == "t" else api.AS_STORED for stored in operation.layout)
        b, a, c = (api.DATA_TYPES[name] for name in (operation.b, operation.a, operation.c))
        compute = api.COMPUTE_INT32 if operation.accumulator == I32 else api.COMPUTE_FLOAT32
        return cls((of_b, of_a), (b, a, c), compute, api.DATA_TYPES[operation.accumulator.name])


class _Plan:
    """A problem as one thread describes it: it owns the descriptor and the layouts."""

    def __init__(self, library: HipblasLtLibrary, problem: Problem) -> None:
        operation, operands = problem.operation, operands_of(problem.operation)
        kind = _Kind.of(operation)
        self._library, self.kind = library, kind
        self.operation = library.descriptor(kind.compute, kind.scale)
        self.b, self.a, self.c = (self._layout(operands[name], problem) for name in ("b", "a", "c"))
        number = c_int32 if kind.compute == api.COMPUTE_INT32 else c_float
        self._one, self._beta = number(1), number(operation.accumulates)
        self.attributes = _pointers(operation)
        self._describe(operation)
        made = [("MatmulDesc", self.operation), *(("MatrixLayout", layout) for layout in (self.b, self.a, self.c))]
        weakref.finalize(self, _destroy, library, [(kind, each.value or 0) for kind, each in made]).atexit = False

    @property
    def described(self) -> tuple[Any, ...]:
        """What the library's questions begin with, after its handle."""
        return (self.operation, byref(self._one), self.b, self.a, byref(self._beta), self.c, self.c)

    def passed(self, b: c_void_p, a: c_void_p, c: c_void_p) -> tuple[Any, ...]:
        """What hipblasLtMatmul takes of it and of the matrices."""
        return (self.operation, byref(self._one), b, self.b, a, self.a, byref(self._beta), c, self.c, c, self.c)

    def _layout(self, operand: Operand, problem: Problem) -> c_void_p:
        columns, rows = operand.extents(problem.sizes)
        return self._library.layout(api.DATA_TYPES[operand.dtype.name], rows, columns)

    def _describe(self, operation: Operation) -> None:
        describe = self._library.describe
        for attribute, transpose in zip((api.TRANSPOSE_FIRST, api.TRANSPOSE_SECOND), self.kind.transposes, strict=True):
            describe(self.operation, attribute, c_int32(transpose))
        if operation.has_bias:
            describe(self.operation, api.EPILOGUE, c_uint32(api.ADDS_BIAS))
            describe(self.operation, api.BIAS_TYPE, c_int32(api.DATA_TYPES[operation.c]))
        if operation.scales == "rows":
            for attribute in (api.SCALE_MODE_FIRST, api.SCALE_MODE_SECOND):
                describe(self.operation, attribute, c_uint32(api.SCALE_VECTOR))
        for attribute in self.attributes.values():
            describe(self.operation, attribute, c_void_p(_ANY_ADDRESS))


class HipblasLt:
    """VendorLibrary. A handle may not be used on two streams at once, so each thread has its own, as torch does it.

    An index in a row or a table is looked up among those that the library lists, and is never passed on. Raises
    DeviceError where there is no GPU.
    """

    name = NAME

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = HipblasLtLibrary(library)
        self._handles = threading.local()
        self.version = self.library.version(self.handle)
        self._listing = threading.RLock()
        self._listed: dict[_Kind, dict[int, Algorithm]] = {}
        self._named: dict[Problem, tuple[VendorAlgorithm, ...]] = {}

    @property
    def handle(self) -> c_void_p:
        """The calling thread's."""
        own: _Handle | None = getattr(self._handles, "own", None)
        if own is None:
            own = self._handles.own = _Handle(self.library)
        return own.handle

    def algorithms(self, problem: Problem) -> Sequence[VendorAlgorithm]:
        """See VendorLibrary: what the heuristic names, and then all others by their index."""
        if not _computes(problem.operation):
            return []
        with self._listing:
            if problem not in self._named:
                self._named[problem] = tuple(self._all(_Plan(self.library, problem)))
            return list(self._named[problem])

    def refusal(self, algorithm: VendorAlgorithm, problem: Problem) -> str | None:
        """See VendorLibrary."""
        return self._checked(algorithm, problem)[1]

    def prepare(
        self, algorithm: VendorAlgorithm, problem: Problem, operands: Sequence[str] = CALL_OPERANDS
    ) -> PreparedLaunch:
        """See VendorLibrary."""
        own, refused = self._checked(algorithm, problem)
        if own is None:
            raise DeviceError(f"{refused}: take another algorithm, or torch's own product")
        return _HipblasLtLaunch(self, own, algorithm.workspace_bytes, problem, operands)

    def _all(self, plan: _Plan) -> list[VendorAlgorithm]:
        listed = self._solutions(plan.kind)
        first = self.library.heuristic(self.handle, plan.described, FIRST_ASKED, WORKSPACE_BYTES_MAX)
        ranked = [index for index in map(self.library.index, first) if index in listed]
        found = (self._stored(index, plan)[1] for index in dict.fromkeys((*ranked, *sorted(listed))))
        return [each for each in found if each is not None]

    def _checked(self, algorithm: VendorAlgorithm, problem: Problem) -> tuple[Algorithm | None, str | None]:
        """The library's own record of `algorithm`, or why there is none that computes `problem`."""
        elsewhere = out_of_place(self, algorithm, problem.operation, _computes)
        if elsewhere:
            return None, elsewhere
        plan, index, here = _Plan(self.library, problem), index_of(algorithm.handle), f"{NAME} {self.version}"
        listed = self._solutions(plan.kind)
        if index is None or index not in listed:
            return None, f"{algorithm} is none of the {len(listed)} solutions that {here} lists for {problem.operation}"
        own, current = self._stored(index, plan)
        if current is None:
            return None, f"{here}: solution {index} does not compute {problem}"
        if current.name != algorithm.name:
            return None, f"{here} calls solution {index} by another name: {_names(algorithm, current)}"
        if current != algorithm:
            sizes = f"saved={algorithm.workspace_bytes} current={current.workspace_bytes}"
            return None, f"{here}: solution {index} needs another workspace (bytes): {sizes}"
        return own, None

    def _solutions(self, kind: _Kind) -> Mapping[int, Algorithm]:
        with self._listing:
            if kind not in self._listed:
                asked = (kind.transposes, kind.data_types, kind.compute)
                self._listed[kind] = self.library.all_algorithms(self.handle, *asked)
            return self._listed[kind]

    def _stored(self, index: int, plan: _Plan) -> tuple[Algorithm, VendorAlgorithm | None]:
        """A copy of the solution `index` for the problem of `plan`, and what is kept of it: None where it does not
        compute it, or not within the largest workspace."""
        own = Algorithm.from_buffer_copy(self._solutions(plan.kind)[index])
        needed = self.library.workspace_bytes(self.handle, plan.described, own)
        if needed is None or needed > WORKSPACE_BYTES_MAX:
            return own, None
        called = self.library.name(self.handle, own)[:NAME_MAX]
        printable = "".join(letter if " " <= letter <= "~" else "?" for letter in called)
        return own, VendorAlgorithm(NAME, self.version, handle_of(index), printable, needed)


class _Handle:
    """A handle on the current device, destroyed when its thread ends."""

    def __init__(self, library: HipblasLtLibrary) -> None:
        self.handle = library.create()
        release = library.functions.hipblasLtDestroy
        weakref.finalize(self, release, c_void_p(self.handle.value)).atexit = False


def _destroy(library: HipblasLtLibrary, made: Sequence[tuple[str, int]]) -> None:
    for kind, address in made:
        getattr(library.functions, f"hipblasLt{kind}Destroy")(c_void_p(address))


def _names(saved: VendorAlgorithm, current: VendorAlgorithm) -> str:
    """Both names, from where they begin to differ."""
    pairs = enumerate(zip_longest(saved.name, current.name))
    begin = next(place for place, (letter, other) in pairs if letter != other)
    pieces = [name[begin : begin + _NAME_SHOWN] for name in (saved.name, current.name)]
    return f"from character {begin}, saved={pieces[0]} current={pieces[1]}"


def _computes(operation: Operation) -> bool:
    """Factors of a float format and C in that or in float32, 8-bit floats with or without scales, or 8-bit integers;
    and at most one step of those that it does."""
    if operation.kind != "gemm" or operation.epilogue not in ((), ("bias",), ("accumulate",)):
        return False
    a, b, c = operation.a, operation.b, operation.c
    if a in _SMALL_FLOATS and b in _SMALL_FLOATS:
        return c in _FLOATS and operation.scales in ("", "tensor", "rows")
    if (a, b, c) == ("i8", "i8", "i32"):
        return not operation.scales and not operation.epilogue
    return a in _FLOATS and b == a and c in (a, "f32") and not operation.scales


def _pointers(operation: Operation) -> dict[str, int]:
    """Operands that are attributes of a descriptor, with the attribute's number: its first matrix is our B."""
    bias = {"bias": api.BIAS_POINTER} if operation.has_bias else {}
    scales = {"scale_b": api.SCALE_POINTER_FIRST, "scale_a": api.SCALE_POINTER_SECOND} if operation.scales else {}
    return bias | scales


class _Arguments(threading.local):
    """What one thread's calls of hipblasLtMatmul are made with. The library keeps a product in its descriptor while it
    launches it, and biases are part of that: so each thread has its own."""

    def __init__(self, launch: _HipblasLtLaunch) -> None:
        self.a, self.b, self.c, self.workspace, self.stream, self.pointer = (c_void_p() for _ in range(6))
        self.plan = _Plan(launch.library.library, launch.problem)
        algorithm, size = byref(launch.algorithm), c_size_t(launch.workspace_bytes)
        matrices = self.plan.passed(self.b, self.a, self.c)
        self.passed = (launch.library.handle, *matrices, algorithm, self.workspace, size, self.stream)
        pointer = byref(self.pointer), c_size_t(sizeof(c_void_p))
        attributes = self.plan.attributes.values()
        self.set_pointer = {attribute: (self.plan.operation, attribute, *pointer) for attribute in attributes}


class _HipblasLtLaunch:
    """A `PreparedLaunch`: descriptors are made, and a call fills in addresses and calls the library once."""

    def __init__(
        self, library: HipblasLt, algorithm: Algorithm, workspace_bytes: int, problem: Problem, operands: Sequence[str]
    ) -> None:
        self.library, self.algorithm, self.problem = library, algorithm, problem
        self.workspace_bytes = workspace_bytes
        attributes = _pointers(problem.operation)
        missing = [name for name in ("a", "b", "c", *attributes) if name not in operands]
        if missing:
            raise DeviceError(f"{problem}: {missing[0]} is no operand of a prepared launch: name it, of {operands}")
        self._a, self._b, self._c = map(operands.index, ("a", "b", "c"))
        self._workspace = operands.index("workspace") if workspace_bytes else None
        self._pointers = [(operands.index(name), attribute) for name, attribute in attributes.items()]
        functions = library.library.functions
        self._matmul, self._set_attribute = functions.hipblasLtMatmul, functions.hipblasLtMatmulDescSetAttribute
        self._arguments = _Arguments(self)

    def __call__(self, *tensors_and_stream: Any) -> None:
        own = self._arguments
        own.a.value = tensors_and_stream[self._a].data_ptr()
        own.b.value = tensors_and_stream[self._b].data_ptr()
        own.c.value = tensors_and_stream[self._c].data_ptr()
        own.stream.value = tensors_and_stream[-1]
        if self._workspace is not None:
            own.workspace.value = tensors_and_stream[self._workspace].data_ptr()
        for place, attribute in self._pointers:
            own.pointer.value = tensors_and_stream[place].data_ptr()
            check("hipblasLtMatmulDescSetAttribute", self._set_attribute(*own.set_pointer[attribute]))
        check("hipblasLtMatmul", self._matmul(*own.passed))
