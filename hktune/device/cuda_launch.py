"""A loaded CUDA kernel, and how it is put on a stream: behind the one before or, in a graph, beside its end.

A kernel that is `programmatic` (objects.cubin) waits by itself until the one before has ended. Where it directly
follows another such kernel in a graph, the edge between them is a programmatic one: its blocks start when there is
room, and set up while those before end. Behind any other kernel that only costs: 0.2 to 0.3 us on an H200.

A kernel with an argument `early` may read B even before it waits. That is right where the kernel before writes nothing
of B: whatever came before that one had ended when it let its follower start.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hktune.core.launch import Launch
from hktune.device.cuda_driver import checked
from hktune.device.tensor_map import MappedMatrix, mapped_matrix
from hktune.objects.cubin import Box, CudaKernel

EARLY = "early"
"""The argument of a kernel that is 1 where it may read B before it waits: each launch passes 0, or a graph's 1."""
Addresses = ctypes.Array[ctypes.c_void_p]
"""Of each parameter of a launch."""
Start = Callable[[int | None, Addresses, Sequence[Any]], None]
"""Puts a kernel on a stream, with the parameters that are at those addresses now, made of those tensors."""


@dataclass(frozen=True, eq=False)
class LoadedKernel:
    """A kernel in the device's memory. Its module is unloaded with the last reference: keep one for as long as a graph
    that captured a launch of it."""

    symbol: str
    image: CudaKernel
    boxes: Mapping[str, Box]
    function: object

    def mapped(self, launch: Launch, name: str) -> MappedMatrix:
        """The matrix that it takes as a tensor map. Raises DeviceError where its cubin has no box for that."""
        return mapped_matrix(self.symbol, self.boxes, launch, name)


Span = tuple[int, int]
"""Addresses of memory, from and to."""


@dataclass(frozen=True)
class _Node:
    """A programmatic kernel in a graph that is being captured, and the memory of its C where that is known."""

    capture: int
    handle: int
    wrote: Span | None


class Launcher:
    """The driver's launches on one device. May be used by several threads."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver
        self._last: dict[int, _Node] = {}
        """Of each stream what was captured last."""

    def starter(self, kernel: LoadedKernel, launch: Launch, operands: Sequence[str] = ()) -> Start:
        """The launch of everything but stream and parameters; `operands` names the tensors that it is called with.
        Raises DeviceError or KernelFault when called. Keeps the kernel loaded."""
        driver, streams = self._driver, dict[int | None, object]()
        shape = (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
        programmatic = kernel.image.programmatic

        def start(stream: int | None, addresses: Addresses, tensors: Sequence[Any] = ()) -> None:
            handle = streams.get(stream) or streams.setdefault(stream, driver.CUstream(stream or 0))
            if programmatic and stream and checked(driver.cuStreamIsCapturing(handle)):
                spans = {name: _span(tensor) for name, tensor in zip(operands, tensors, strict=False)}
                self._capture(kernel, launch, stream, addresses, spans)
            else:
                checked(driver.cuLaunchKernel(kernel.function, *shape, handle, addresses, 0))

        return start

    def _capture(
        self, kernel: LoadedKernel, launch: Launch, stream: int, addresses: Addresses, spans: Mapping[str, Span | None]
    ) -> None:
        """Launch behind what the stream's capture has so far; beside its end where that is a kernel of this kind."""
        last, config = self._last.get(stream), _config(self._driver, launch, stream)
        if last and self._tail(stream) == (last.capture, [last.handle]):
            attribute = self._driver.CUlaunchAttribute()
            attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
            may_be_early = _apart(spans.get("b"), last.wrote)
        else:
            may_be_early = False
        with _passing_early(launch, addresses, may_be_early):
            checked(self._driver.cuLaunchKernelEx(config, kernel.function, addresses, 0))
        capture, nodes = self._tail(stream)
        self._last[stream] = _Node(capture, nodes[0], spans.get("c"))

    def _tail(self, stream: int) -> tuple[int, list[int]]:
        """The number of a stream's capture, and the nodes that its next one will depend on."""
        status, _, capture, _, nodes, *_ = self._driver.cuStreamGetCaptureInfo(self._driver.CUstream(stream))
        checked((status,))
        return int(capture), [int(node) for node in nodes or ()]


def _config(driver: ModuleType, launch: Launch, stream: int) -> Any:
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
    config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
    config.sharedMemBytes, config.hStream = launch.dynamic_lds_bytes, driver.CUstream(stream)
    return config


def _span(tensor: Any) -> Span | None:
    """The memory that a tensor is a part of."""
    if tensor is None:
        return None
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _apart(one: Span | None, other: Span | None) -> bool:
    return one is not None and other is not None and (one[1] <= other[0] or other[1] <= one[0])


@contextmanager
def _passing_early(launch: Launch, addresses: Addresses, may_be: bool) -> Iterator[None]:
    """Has the kernel read B early, if it can and may. The parameter is a word of the thread's own, 0 otherwise."""
    names = [argument.name for argument in launch.arguments]
    if not may_be or EARLY not in names:
        yield
        return
    word = ctypes.c_int32.from_address(addresses[names.index(EARLY)] or 0)
    word.value = 1
    try:
        yield
    finally:
        word.value = 0
