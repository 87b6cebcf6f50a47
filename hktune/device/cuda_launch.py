"""A loaded CUDA kernel, and how it is put on a stream: behind the one before or, if it waits by itself, beside it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from hktune.core.launch import Launch
from hktune.device.cuda_driver import checked
from hktune.device.tensor_map import MappedMatrix, mapped_matrix
from hktune.objects.cubin import Box, CudaKernel

Addresses = ctypes.Array[ctypes.c_void_p]
"""Of each parameter of a launch."""
Start = Callable[[int | None, Addresses], None]
"""Puts a kernel on a stream, with the parameters that are at those addresses now."""


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


def starter(driver: ModuleType, kernel: LoadedKernel, launch: Launch) -> Start:
    """The driver's launch of everything but stream and parameters. Raises DeviceError or KernelFault when called.
    Keeps the kernel loaded."""
    return (_beside if kernel.image.programmatic else _behind)(driver, kernel, launch)


def _behind(driver: ModuleType, kernel: LoadedKernel, launch: Launch) -> Start:
    shape = (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
    streams: dict[int | None, object] = {}

    def start(stream: int | None, addresses: Addresses) -> None:
        handle = streams.get(stream) or streams.setdefault(stream, driver.CUstream(stream or 0))
        checked(driver.cuLaunchKernel(kernel.function, *shape, handle, addresses, 0))

    return start


def _beside(driver: ModuleType, kernel: LoadedKernel, launch: Launch) -> Start:
    """Its blocks may start as soon as there is room for them and every block of the kernel before has said that it may
    (griddepcontrol.launch_dependents), or has ended. So is the edge between the two in a graph."""
    configs: dict[int | None, object] = {}

    def start(stream: int | None, addresses: Addresses) -> None:
        config = configs.get(stream) or configs.setdefault(stream, _config(driver, launch, stream))
        checked(driver.cuLaunchKernelEx(config, kernel.function, addresses, 0))

    return start


def _config(driver: ModuleType, launch: Launch, stream: int | None) -> object:
    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
    config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
    config.sharedMemBytes, config.hStream = launch.dynamic_lds_bytes, driver.CUstream(stream or 0)
    config.attrs, config.numAttrs = [attribute], 1
    return config
