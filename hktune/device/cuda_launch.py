"""A loaded CUDA kernel, and how it is put on a stream: behind the one before or, in a graph, beside its end.

A kernel that is `programmatic` (objects.cubin) waits by itself until the one before has ended. Where it directly
follows another such kernel in a graph, the edge between them is a programmatic one: its blocks start when there is
room, and set up while those before end. Behind any other kernel that only costs: 0.2 to 0.3 us on an H200.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hktune.core.launch import Launch
from hktune.device.cuda_driver import checked
from hktune.device.tensor_map import MappedMatrix, mapped_matrix
from hktune.objects.cubin import Box, CudaKernel

Addresses = ctypes.Array[ctypes.c_void_p]
"""Of each parameter of a launch."""
Start = Callable[[int | None, Addresses], None]
"""Puts a kernel on a stream, with the parameters that are at those addresses now."""


_Tail = tuple[int, list[int]]
"""The number of a stream's capture, and the nodes that its next one will depend on."""


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


class Launcher:
    """The driver's launches on one device. May be used by several threads."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver
        self._last: dict[int, _Tail] = {}
        """Of each stream where its capture was behind the last programmatic kernel."""

    def starter(self, kernel: LoadedKernel, launch: Launch) -> Start:
        """The launch of everything but stream and parameters. Raises DeviceError or KernelFault when called. Keeps the
        kernel loaded."""
        driver, streams = self._driver, dict[int | None, object]()
        shape = (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
        programmatic = kernel.image.programmatic

        def start(stream: int | None, addresses: Addresses) -> None:
            handle = streams.get(stream) or streams.setdefault(stream, driver.CUstream(stream or 0))
            if programmatic and stream and checked(driver.cuStreamIsCapturing(handle)):
                self._capture(kernel, launch, stream, addresses)
            else:
                checked(driver.cuLaunchKernel(kernel.function, *shape, handle, addresses, 0))

        return start

    def _capture(self, kernel: LoadedKernel, launch: Launch, stream: int, addresses: Addresses) -> None:
        """Launch behind what the stream's capture has so far; beside its end where that is a kernel of this kind."""
        config = _config(self._driver, launch, stream)
        if self._tail(stream) == self._last.get(stream):
            attribute = self._driver.CUlaunchAttribute()
            attribute.id = self._driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs, config.numAttrs = [attribute], 1
        checked(self._driver.cuLaunchKernelEx(config, kernel.function, addresses, 0))
        self._last[stream] = self._tail(stream)

    def _tail(self, stream: int) -> _Tail:
        status, _, capture, _, nodes, *_ = self._driver.cuStreamGetCaptureInfo(self._driver.CUstream(stream))
        checked((status,))
        return int(capture), [int(node) for node in nodes or ()]


def _config(driver: ModuleType, launch: Launch, stream: int) -> Any:
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
    config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
    config.sharedMemBytes, config.hStream = launch.dynamic_lds_bytes, driver.CUstream(stream)
    return config
