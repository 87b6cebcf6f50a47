"""An AMD GPU, through the HIP runtime."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref, c_float, c_uint, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.device.amd_launch import check_launch, checked_code, explicit_bytes
from hktune.device.device import CALL_OPERANDS, Binding, Buffer, Clocks, Event, Graph, HostArray, Kernel
from hktune.device.device_buffer import DeviceBuffer, borrowed
from hktune.device.hip_identity import identify, pci_address
from hktune.device.hip_launch import KernelArguments, PreparedHipLaunch
from hktune.device.hip_library import HipLibrary, hip_library
from hktune.device.hip_sensors import Sensors
from hktune.device.host_copies import check_target, source_of
from hktune.objects.code_object import KernelImage

if TYPE_CHECKING:
    import torch

_L2_BYTES = 19  # hipDeviceAttributeL2CacheSize: of one die (XCD)
_LDS_BYTES = 10002  # hipDeviceAttributeMaxSharedMemoryPerMultiprocessor: what the runtime holds a launch against
_INFINITY_CACHE_BYTES = {"gfx942": 256 << 20, "gfx950": 256 << 20}  # AMD CDNA3 and CDNA4 white papers
_STREAM_NON_BLOCKING = 1
# Relaxed: a hipFree that garbage collection makes in the middle of a capture does not break it.
_CAPTURE_RELAXED = 2


@dataclass(frozen=True, eq=False)
class HipKernel:
    """A kernel in the memory of device number `ordinal`. Its module is unloaded with the last reference: keep one for
    as long as a graph that captured a launch of it."""

    symbol: str
    image: KernelImage
    ordinal: int
    function: int


@dataclass(frozen=True, eq=False)
class _Made:
    """A native object (hipEvent_t, hipGraphExec_t), destroyed with the last reference."""

    handle: int


class HipDevice:
    """GPU number `ordinal` of this process, in torch's numbering. Its tensors and streams work here.

    Every call leaves the calling thread's current device as it was. A fault is sticky: after a KernelFault every call
    fails until the process ends. `target` is the LLVM target with its features, gfx950:sramecc+:xnack-.
    """

    def __init__(self, ordinal: int = 0, rocm_path: Path | None = None) -> None:
        self._hip = hip_library(rocm_path)
        count = self._hip.number("hipGetDeviceCount")
        if not 0 <= ordinal < count:
            raise DeviceError(f"no HIP device {ordinal}: this process sees {count}")
        self._ordinal = ordinal
        self._fault: tuple[str, str] | None = None
        self.target = self._hip.target(ordinal)
        self._identity = identify(self._hip, ordinal)
        self._lds_bytes = self._attribute(_LDS_BYTES)
        self._sensors: Sensors | None = None

    @property
    def identity(self) -> Identity:
        return self._identity

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        if size_bytes < 1:
            raise DeviceError(f"cannot allocate {size_bytes} bytes: ask for at least 1")
        address = self._make("hipMalloc", size_bytes)
        buffer = DeviceBuffer(address, size_bytes)
        self._release_with(buffer, "hipFree", address)
        return buffer

    def write(self, buffer: Buffer, data: HostArray) -> None:
        source = source_of(data, buffer)
        self._call("hipMemcpyHtoD", buffer.address, source.ctypes.data, source.nbytes)

    def read(self, buffer: Buffer, out: HostArray) -> None:
        check_target(out, buffer)
        self.synchronize()
        self._call("hipMemcpyDtoH", out.ctypes.data, buffer.address, out.nbytes)

    def borrow(self, tensor: torch.Tensor) -> DeviceBuffer:
        import torch

        if torch.version.hip is None:
            raise DeviceError(
                f"cannot borrow from torch {torch.__version__}, which is not built for ROCm: install one that is"
            )
        return borrowed(tensor, self._ordinal)

    def load(self, data: bytes, symbol: str) -> HipKernel:
        image = checked_code(data, symbol, self._identity.arch).kernels[symbol]
        module = self._make("hipModuleLoadData", data)
        try:
            function = self._make("hipModuleGetFunction", module, symbol.encode())
        except DeviceError:
            self._hip.discard("hipModuleUnload", module)
            raise
        # Dynamic LDS needs no hipFuncSetAttribute: that takes host functions only, and the runtime holds a module's
        # kernel against what the device has.
        kernel = HipKernel(symbol, image, self._ordinal, function)
        self._release_with(kernel, "hipModuleUnload", module, kept=data)  # the runtime copies no image, it points to it
        return kernel

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        if not isinstance(kernel, HipKernel) or kernel.ordinal != self._ordinal:
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        check_launch(kernel.image, launch, self._lds_bytes)
        arguments = KernelArguments(kernel.image, explicit_bytes(kernel.image, launch.arguments, binding))
        shape = (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
        self._call("hipModuleLaunchKernel", kernel.function, *shape, stream, None, arguments.extra)

    def prepare(
        self,
        kernel: Kernel,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str] = CALL_OPERANDS,
    ) -> PreparedHipLaunch:
        if not isinstance(kernel, HipKernel) or kernel.ordinal != self._ordinal:
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        check_launch(kernel.image, launch, self._lds_bytes)
        shape = (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
        name, fixed, no_parameters = (
            "hipModuleLaunchKernel",
            (c_void_p(kernel.function), *map(c_uint, shape)),
            c_void_p(),
        )
        launch_kernel = self._hip.unconverted(name)

        def start(stream: c_void_p, extra: c_void_p) -> None:
            if self._fault:
                raise KernelFault(*self._fault)
            status = launch_kernel(*fixed, stream, no_parameters, extra)
            if status:
                self._refused(name, status)

        return PreparedHipLaunch(start, kernel.image, launch, numbers, operands)

    def synchronize(self) -> None:
        self._call("hipDeviceSynchronize")

    @property
    def last_level_cache_bytes(self) -> int:
        """The Infinity Cache, which the runtime does not tell of; on other architectures L2."""
        return _INFINITY_CACHE_BYTES.get(self._identity.arch) or self._attribute(_L2_BYTES)

    def create_stream(self) -> int:
        stream = self._make("hipStreamCreateWithFlags", _STREAM_NON_BLOCKING)
        self._release_with(self, "hipStreamDestroy", stream)
        return stream

    def record(self, stream: int) -> _Made:
        event = self._owned("hipEventDestroy", self._make("hipEventCreateWithFlags", 0))
        self._call("hipEventRecord", event.handle, stream)
        return event

    def elapsed_us(self, start: Event, end: Event) -> float:
        first, last = _handle(start), _handle(end)
        self._call("hipEventSynchronize", last)
        milliseconds = c_float()
        self._call("hipEventElapsedTime", byref(milliseconds), first, last)
        return milliseconds.value * 1000

    def capture(self, enqueue: Callable[[], None], stream: int) -> _Made:
        graph = c_void_p()
        self._call("hipStreamBeginCapture", stream, _CAPTURE_RELAXED)
        try:
            enqueue()
        except BaseException:
            self._hip.discard("hipStreamEndCapture", stream, byref(graph))
            self._destroy_graph(graph)
            raise
        self._call("hipStreamEndCapture", stream, byref(graph))
        try:
            return self._owned("hipGraphExecDestroy", self._make("hipGraphInstantiate", graph, None, None, 0))
        finally:
            self._destroy_graph(graph)

    def replay(self, graph: Graph, stream: int) -> None:
        self._call("hipGraphLaunch", _handle(graph), stream)

    def clocks(self) -> Clocks:
        return self._sensed.read()

    def energy_j(self) -> float | None:
        return self._sensed.energy_j()

    @property
    def _sensed(self) -> Sensors:
        self._sensors = self._sensors or Sensors(pci_address(self._hip, self._ordinal))
        return self._sensors

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function of the runtime with this device current. Raises DeviceError, and KernelFault ever after one.

        The thread's current device is torch's too, so it is put back.
        """
        if self._fault:
            raise KernelFault(*self._fault)
        before = self._hip.number("hipGetDevice")
        if before != self._ordinal:
            self._hip.call("hipSetDevice", self._ordinal)
        try:
            status = self._hip.status(name, *arguments)
            if status:
                self._refused(name, status)
        finally:
            if before != self._ordinal:
                self._hip.call("hipSetDevice", before)

    def _refused(self, name: str, status: int) -> NoReturn:
        error = self._hip.error(name, status)
        if isinstance(error, KernelFault):
            self._fault = error.status, error.detail
        raise error

    def _make(self, name: str, *arguments: object) -> int:
        """Call a function that leaves a handle or an address where its first argument points; returns that."""
        made = c_void_p()
        self._call(name, byref(made), *arguments)
        return made.value or 0

    def _owned(self, destroy: str, handle: int) -> _Made:
        made = _Made(handle)
        self._release_with(made, destroy, handle)
        return made

    def _release_with(self, owner: object, name: str, handle: int, kept: object = None) -> None:
        """Call `name` on `handle` when `owner` goes, and let go of `kept` after that. Not at exit, when the runtime may
        be gone already."""
        weakref.finalize(owner, _give_back, self._hip, name, handle, kept).atexit = False

    def _destroy_graph(self, graph: c_void_p) -> None:
        if graph.value:
            self._hip.discard("hipGraphDestroy", graph)

    def _attribute(self, attribute: int) -> int:
        return self._hip.number("hipDeviceGetAttribute", attribute, self._ordinal)


def _give_back(hip: HipLibrary, name: str, handle: int, kept: object) -> None:
    hip.discard(name, handle)
    del kept


def _handle(made: Event | Graph) -> int:
    if not isinstance(made, _Made):
        raise DeviceError(f"{type(made).__name__} was made by another device: make it here")
    return made.handle
