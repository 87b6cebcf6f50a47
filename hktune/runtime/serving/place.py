"""One device of a loaded table: its kernels and their scratch memory, and torch's words for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from hktune.core.errors import DeviceError
from hktune.core.operand import operands_of
from hktune.device.device import CapturedDevice, Device, Kernel, PreparedLaunch
from hktune.device.prepared import BoundLaunch
from hktune.device.vendor_library import VendorLibrary
from hktune.runtime.callers_line import warn_caller
from hktune.runtime.counts import Fallback, FallbackWarning
from hktune.runtime.serving.route import AlgorithmRoute, KernelRoute, Route
from hktune.runtime.serving.workspaces import Workspaces, made_to_last
from hktune.runtime.torch_state import is_capturing

Empty = Callable[[Sequence[int], Sequence[int], torch.dtype], Tensor]
"""An uninitialised tensor on the thread's current device. These are what torch's compiler calls in the programs that it
writes: 0.4 us, where `new_empty` takes 0.8."""
_allocators: ModuleType = torch._C._dynamo.guards
_empty_strided_cpu: Empty = _allocators._empty_strided_cpu
_empty_strided_cuda: Empty = _allocators._empty_strided_cuda

_NUMBERS_MAX = 1024  # kept on a device


class Place:
    """A device, torch's name for it, and the kernels and libraries there. May be used by several threads."""

    def __init__(
        self,
        device: Device,
        where: torch.device,
        objects: Mapping[str, bytes],
        open_library: Callable[[str], VendorLibrary],
    ) -> None:
        """`open_library` opens the vendor's library of a name for the thread's current GPU, or raises DeviceError."""
        self.device = device
        self.where = where
        self._open_library = open_library
        self._libraries: dict[str, VendorLibrary] = {}
        captured_by = device.captured_by if isinstance(device, CapturedDevice) else None
        self.workspaces = Workspaces(where, captured_by=captured_by)
        # Of algorithms, which leave anything in them: a kernel's counters must be as it left them.
        self.algorithm_workspaces = Workspaces(where, counter_bytes=0)
        self.index = -1 if where.index is None else where.index
        self.is_gpu = where.type == "cuda"
        # The handle of this thread's current stream here; None where launches are synchronous.
        self.stream: Callable[[], int | None] = _no_stream
        # The thread's current device, which must be this one for a prepared launch; None where there is but one.
        self.current_index: Callable[[], int] | None = None
        if self.is_gpu:
            self.stream = partial(torch._C._cuda_getCurrentRawStream, self.index)
            if torch.cuda.device_count() > 1:
                self.current_index = torch._C._cuda_getDevice
        self.empty: Empty = _empty_strided_cuda if self.is_gpu else _empty_strided_cpu
        if self.current_index is not None:
            self.empty = self._empty
        self._objects = objects
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._loading = threading.Lock()
        self._numbers: dict[float, Tensor] = {}

    def entered(self) -> AbstractContextManager[object]:
        """Makes this the thread's current device; what loads a kernel or opens a device leaves it so otherwise."""
        return torch.cuda.device(self.where) if self.is_gpu else nullcontext()

    def _empty(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
        if torch._C._cuda_getDevice() == self.index:  # as nearly always; to enter a device is Python
            return _empty_strided_cuda(shape, strides, dtype)
        with self.entered():
            return _empty_strided_cuda(shape, strides, dtype)

    def make_ready(self, route: Route) -> PreparedLaunch | Fallback:
        """Load and prepare what `route` launches; or why that cannot be done now."""
        if route.prepared is None and isinstance(route, AlgorithmRoute):
            return self._algorithm_ready(route)
        if route.prepared is None and isinstance(route, KernelRoute):
            if route.name not in self._kernels and is_capturing():
                return Fallback.CAPTURE
            route.kernel = self._kernel(route.name)
            route.prepared = self.device.prepare(route.kernel, route.launch, route.numbers, route.operands)
        assert route.prepared is not None, "each kind of route is made ready above"
        return route.prepared

    def warm(self, route: Route) -> None:
        """Make `route` ready, so that its first call may be one of a captured graph. A library loads the kernels of an
        algorithm with its first launch: that is done here, on zeros, where there is memory for them."""
        ready = self.make_ready(route)
        if not isinstance(route, AlgorithmRoute) or isinstance(ready, Fallback):
            return
        problem, stream = route.problem, self.stream()
        with suppress(torch.cuda.OutOfMemoryError):
            given: dict[str, Tensor | None] = {
                name: torch.zeros(
                    operand.shape(problem.sizes), dtype=getattr(torch, operand.dtype.torch_name), device=self.where
                )
                for name, operand in operands_of(problem.operation).items()
            }
            given["workspace"] = self.workspace(route, stream)
            ready(*map(given.get, route.operands), stream)

    def _algorithm_ready(self, route: AlgorithmRoute) -> PreparedLaunch | Fallback:
        """The library decides whether it takes the algorithm: asked once, and said once where it does not."""
        if route.refused:
            return Fallback.ALGORITHM
        if is_capturing():
            return Fallback.CAPTURE
        try:
            library = self._library(route.algorithm.library)
            route.prepared = library.prepare(route.algorithm, route.problem, route.operands)
        except DeviceError as refused:
            route.refused = True
            rule = f"torch's default serves {route.problem}, because its algorithm is refused"
            warn_caller(f"{rule} ({refused}): tune that shape again, with --vendor-only in seconds", FallbackWarning)
            return Fallback.ALGORITHM
        return route.prepared

    def _library(self, name: str) -> VendorLibrary:
        """The library `name` here, opened once."""
        with self._loading:
            if name not in self._libraries:
                self._libraries[name] = self._open_library(name)
            return self._libraries[name]

    def workspaces_of(self, route: Route) -> Workspaces:
        """Where the scratch memory of its launches is from: what an algorithm leaves in its own no kernel may find."""
        return self.algorithm_workspaces if isinstance(route, AlgorithmRoute) else self.workspaces

    def workspace(self, route: Route, stream: int | None) -> Tensor | None:
        """The scratch memory of a launch of `route` on `stream`; None where it needs none."""
        return self.workspaces_of(route).of(stream, route.workspace_bytes) if route.workspace_bytes else None

    def number(self, value: float) -> Tensor:
        """`value` as a float32 of one element here, which is kept. In a graph that is being captured it is filled by
        each replay, so that one is not. What is kept is there when this returns: another stream may read it next."""
        found = self._numbers.get(value)
        if found is None:
            if is_capturing():
                return torch.full((), value, dtype=torch.float32, device=self.where)
            make = partial(torch.tensor, value, dtype=torch.float32, device=self.where)  # the host waits for its copy
            if len(self._numbers) >= _NUMBERS_MAX:
                return make()
            found = self._numbers[value] = made_to_last(make)
        return found

    def strided(self, route: KernelRoute, lda: int, ldb: int) -> PreparedLaunch:
        """The launch of a ready `route` for operands whose rows are so many elements apart."""
        assert route.kernel is not None
        numbers = {**route.numbers, "lda": lda, "ldb": ldb}
        return BoundLaunch(self.device, route.kernel, route.launch, numbers, route.operands)

    def stacked(self, route: KernelRoute, strides: Mapping[str, int]) -> PreparedLaunch:
        """The launch of a ready `route` for stacks of matrices with these strides, for many calls."""
        assert route.kernel is not None
        numbers = {**route.numbers, **strides}
        return self.device.prepare(route.kernel, route.launch, numbers, route.operands)

    def _kernel(self, name: tuple[str, str]) -> Kernel:
        """Load a kernel, once for all entries that share it."""
        with self._loading:
            if name not in self._kernels:
                sha256, symbol = name
                self._kernels[name] = self.device.load(self._objects[sha256], symbol)
            return self._kernels[name]


def _no_stream() -> None:
    return None
