"""One device of a loaded table: its kernels, and the launches made ready on it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hktune.core.launch import Launch
from hktune.device.device import Device, Kernel, PreparedLaunch
from hktune.device.prepared import BoundLaunch
from hktune.dispatch.choice import Choice, Choices
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.served_shapes import ServedProducts, ServedShapes
from hktune.runtime.torch_state import is_capturing
from hktune.runtime.workspaces import Workspaces

Key = tuple[int, int, int, bool]
"""M, N, K, and whether there is no bias."""
Shapes = tuple[torch.Size, torch.Size, bool | None]
"""Of x [..., K] and weight [N, K], and whether there is no bias; of a [..., K] and b [K, N], and None."""

Empty = Callable[[Sequence[int], Sequence[int], torch.dtype], Tensor]
"""An uninitialised tensor on the thread's current device. These are what torch's compiler calls in the programs that it
writes: 0.4 us, where `new_empty` takes 0.8."""
_allocators: Any = torch._C._dynamo.guards
_empty_strided_cpu: Empty = _allocators._empty_strided_cpu
_empty_strided_cuda: Empty = _allocators._empty_strided_cuda

# Launches kept ready; beyond, all are dropped, so that a program with ever new M does not grow. About 1 KB each.
_ROUTES_MAX = 65536


class Route:
    """What serves one key: a kernel, `prepared` once it is loaded, or the vendor library for the reason `why`."""

    __slots__ = ("kernel", "launch", "name", "near", "numbers", "prepared", "why", "workspace_bytes")

    def __init__(self, key: Key, choice: Choice | None) -> None:
        m, n, k, _ = key
        self.numbers = {"m": m, "n": n, "k": k, "lda": k, "ldb": k, "ldc": n}
        self.why: Fallback | None = None
        self.launch: Launch | None = None
        self.name = ("", "")
        if choice is None:
            self.why = Fallback.NO_ENTRY if m and n and k else Fallback.EMPTY
        elif choice.entry.kernel is None:
            self.why = Fallback.VENDOR_CHOSEN
        else:
            self.launch = choice.launch
            self.name = (choice.entry.kernel.object_sha256, choice.entry.kernel.symbol)
        self.near = choice is not None and choice.near
        self.workspace_bytes = self.launch.workspace_bytes if self.launch else 0
        self.prepared: PreparedLaunch | None = None
        self.kernel: Kernel | None = None

    @property
    def takes_strides(self) -> bool:
        return self.launch is not None and self.launch.takes("lda") and self.launch.takes("ldb")


class Place:
    """A device, torch's name for it, and what was made ready there. May be used by several threads."""

    def __init__(
        self, device: Device, where: torch.device, choices: Choices, objects: Mapping[str, bytes], counts: Counts
    ) -> None:
        self.device = device
        self.where = where
        self.served: dict[Shapes, ServedShapes | Fallback] = {}
        self.workspaces = Workspaces(where)
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
        self._routes: dict[Key, Route] = {}
        self._choices = choices
        self._objects = objects
        self._counts = counts
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._loading = threading.Lock()

    def entered(self) -> AbstractContextManager[object]:
        """Makes this the thread's current device; what loads a kernel or opens a device leaves it so otherwise."""
        return torch.cuda.device(self.where) if self.is_gpu else nullcontext()

    def _empty(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
        if torch._C._cuda_getDevice() == self.index:  # as nearly always; to enter a device is Python
            return _empty_strided_cuda(shape, strides, dtype)
        with self.entered():
            return _empty_strided_cuda(shape, strides, dtype)

    def serve(self, shapes: Shapes) -> ServedShapes | Fallback:
        """What serves calls of `shapes`, or why that is the vendor library; kept in `served`."""
        left, right, bare = shapes
        is_product = bare is None
        if len(right) != 2:
            return Fallback.SHAPE
        k, n = right if is_product else reversed(right)
        if not left or left[-1] != k:
            return Fallback.SHAPE
        rows = left[:-1]
        route = self.route((math.prod(rows), n, k, bare is not False))
        if len(self.served) >= _ROUTES_MAX:
            self.served.clear()
        kind = ServedProducts if is_product else ServedShapes
        served = self.served[shapes] = route.why or kind(self, route, (*rows, n), self._counts)
        return served

    def route(self, key: Key) -> Route:
        """The route of `key`, found once."""
        route = self._routes.get(key)
        if route is None:
            m, n, k, bare = key
            real = bool(m and n and k)
            choice = self._choices.find(m, n, k, "bf16.nt" if bare else "bf16.nt+bias") if real else None
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            route = self._routes[key] = Route(key, choice)
        return route

    def make_ready(self, route: Route) -> Fallback | None:
        """Load and prepare the kernel of `route`; or why that cannot be done now."""
        if route.prepared is None and route.launch is not None:
            if route.name not in self._kernels and is_capturing():
                return Fallback.CAPTURE
            route.kernel = self._kernel(route.name)
            route.prepared = self.device.prepare(route.kernel, route.launch, route.numbers)
        return route.why

    def strided(self, route: Route, lda: int, ldb: int) -> PreparedLaunch:
        """The launch of a ready `route` for operands whose rows lie so many elements apart."""
        assert route.kernel is not None
        assert route.launch is not None
        return BoundLaunch(self.device, route.kernel, route.launch, {**route.numbers, "lda": lda, "ldb": ldb})

    def _kernel(self, name: tuple[str, str]) -> Kernel:
        """Load a kernel, once for all entries that share it."""
        with self._loading:
            if name not in self._kernels:
                sha256, symbol = name
                self._kernels[name] = self.device.load(self._objects[sha256], symbol)
            return self._kernels[name]


def _no_stream() -> None:
    return None
