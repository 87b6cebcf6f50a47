"""An NVIDIA GPU, through the CUDA driver API. A kernel gets pointers and sizes like any other, or tensor maps."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError, InputError
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.device.argument_bytes import pack_argument
from hktune.device.cuda_capture import cuda_capture
from hktune.device.cuda_driver import checked, count_cuda_devices, cuda_driver, release
from hktune.device.cuda_launch import Addresses, Launcher, LoadedKernel
from hktune.device.cuda_prepared import PointerSlot, PreparedCudaLaunch
from hktune.device.device import CALL_OPERANDS, Binding, Buffer, Capture, Clocks, Event, Graph, HostArray, Kernel
from hktune.device.device_buffer import DeviceBuffer, borrowed
from hktune.device.host_copies import check_target, source_of
from hktune.device.nvml import nvml_clocks, nvml_energy_j
from hktune.device.prepared import place_among
from hktune.objects.cubin import Cubin, CudaKernel, read_cubin

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class CudaEvent:
    """A CUevent."""

    handle: object


@dataclass(frozen=True, eq=False)
class CudaGraph:
    """A CUgraphExec."""

    handle: object


class CudaDevice:
    """GPU number `ordinal` of this process. Shares torch's (primary) context, so its tensors and streams work here.

    A fault is sticky: after a KernelFault every call to the GPU fails until the process ends.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._driver = cuda_driver()
        self._launcher = Launcher(self._driver)
        count = count_cuda_devices()
        if not 0 <= ordinal < count:
            raise DeviceError(f"no CUDA device {ordinal}: this process sees {count}")
        self._device = checked(self._driver.cuDeviceGet(ordinal))
        self._ordinal = ordinal
        self._streams: list[object] = []
        self._lds_bytes = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        self._capability = 10 * self._attribute("COMPUTE_CAPABILITY_MAJOR") + self._attribute(
            "COMPUTE_CAPABILITY_MINOR"
        )

    @functools.cached_property
    def _context(self) -> object:
        """Made when first needed: who only asks for the identity leaves the GPU alone."""
        context: object = checked(self._driver.cuDevicePrimaryCtxRetain(self._device))
        return context

    @property
    def identity(self) -> Identity:
        """`pci_id` is vendor:device:subsystem, which tells one SKU from another of the same name."""
        name = checked(self._driver.cuDeviceGetName(256, self._device)).split(b"\0")[0].decode()
        device, subsystem = self._attribute("GPU_PCI_DEVICE_ID"), self._attribute("GPU_PCI_SUBSYSTEM_ID")
        pci_id = f"{device & 0xFFFF:04x}:{device >> 16 & 0xFFFF:04x}:{subsystem >> 16 & 0xFFFF:04x}"
        arch = f"sm{self._capability}" + ("a" if self._capability >= 90 else "")
        return Identity("cuda", arch, name, self._attribute("MULTIPROCESSOR_COUNT"), pci_id)

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        self._enter()
        if size_bytes < 1:
            raise DeviceError(f"cannot allocate {size_bytes} bytes: ask for at least 1")
        address = int(checked(self._driver.cuMemAlloc(size_bytes)))
        buffer = DeviceBuffer(address, size_bytes)
        weakref.finalize(buffer, release, self._context, self._driver.cuMemFree, address).atexit = False
        return buffer

    def write(self, buffer: Buffer, data: HostArray) -> None:
        source = source_of(data, buffer)
        self._enter()
        checked(self._driver.cuMemcpyHtoD(buffer.address, source.ctypes.data, source.nbytes))

    def read(self, buffer: Buffer, out: HostArray) -> None:
        check_target(out, buffer)
        self.synchronize()
        checked(self._driver.cuMemcpyDtoH(out.ctypes.data, buffer.address, out.nbytes))

    def borrow(self, tensor: torch.Tensor) -> DeviceBuffer:
        return borrowed(tensor, self._ordinal)

    def load(self, data: bytes, symbol: str) -> LoadedKernel:
        cubin = _parsed(data)
        if cubin.capability != self._capability:
            raise DeviceError(
                f"the cubin is for sm_{cubin.capability}, this device is sm_{self._capability}: rebuild it"
            )
        if symbol not in cubin.kernels:
            raise DeviceError(f"no kernel {symbol!r} in the cubin: it has {', '.join(sorted(cubin.kernels)) or 'none'}")
        self._enter()
        module = checked(self._driver.cuModuleLoadData(data))
        function = checked(self._driver.cuModuleGetFunction(module, symbol.encode()))
        image = cubin.kernels[symbol]
        largest = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        spare = self._lds_bytes - image.resources.lds_bytes
        checked(self._driver.cuFuncSetAttribute(function, largest, spare))
        kernel = LoadedKernel(symbol, image, cubin.boxes, function)
        weakref.finalize(kernel, release, self._context, self._driver.cuModuleUnload, module).atexit = False
        return kernel

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        if not isinstance(kernel, LoadedKernel):
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        self._check_launch(kernel.image, launch)
        values, addresses = self._parameters(kernel, launch, binding)
        self._enter()
        self._launcher.starter(kernel, launch)(stream, addresses)
        del values  # until here: the addresses point into it

    def prepare(
        self,
        kernel: Kernel,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str] = CALL_OPERANDS,
    ) -> PreparedCudaLaunch:
        if not isinstance(kernel, LoadedKernel):
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        self._check_launch(kernel.image, launch)
        parameters = kernel.image.parameters
        template, slots = bytearray(max((each.offset_bytes + each.size_bytes for each in parameters), default=1)), []
        for each, argument in zip(parameters, launch.arguments, strict=True):
            if argument.kind == "pointer" and argument.is_bound:
                encode = kernel.mapped(launch, argument.name).encoder(numbers) if each.is_tensor_map else None
                slots.append(PointerSlot(place_among(operands, argument), each.offset_bytes, encode))
            else:
                packed = pack_argument(argument, numbers.get(argument.name))
                template[each.offset_bytes : each.offset_bytes + len(packed)] = packed
        offsets = [each.offset_bytes for each in parameters]
        start = self._launcher.starter(kernel, launch)
        return PreparedCudaLaunch(start, bytes(template), offsets, slots, self._enter)

    def synchronize(self) -> None:
        self._enter()
        checked(self._driver.cuCtxSynchronize())

    @property
    def last_level_cache_bytes(self) -> int:
        return self._attribute("L2_CACHE_SIZE")

    def create_stream(self) -> int:
        self._enter()
        stream = checked(self._driver.cuStreamCreate(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._streams.append(stream)
        return int(stream)

    def record(self, stream: int) -> CudaEvent:
        self._enter()
        event = CudaEvent(checked(self._driver.cuEventCreate(0)))
        weakref.finalize(event, release, self._context, self._driver.cuEventDestroy, event.handle).atexit = False
        checked(self._driver.cuEventRecord(event.handle, self._driver.CUstream(stream)))
        return event

    def elapsed_us(self, start: Event, end: Event) -> float:
        assert isinstance(start, CudaEvent)
        assert isinstance(end, CudaEvent)
        checked(self._driver.cuEventSynchronize(end.handle))
        return 1e3 * float(checked(self._driver.cuEventElapsedTime(start.handle, end.handle)))

    def capture(self, enqueue: Callable[[], None], stream: int) -> CudaGraph:
        self._enter()
        native = self._driver.CUstream(stream)
        checked(
            self._driver.cuStreamBeginCapture(native, self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        )
        try:
            enqueue()
        finally:  # an unfinished capture would fail every later call on the stream
            status, captured = self._driver.cuStreamEndCapture(native)
        checked((status,))
        graph = CudaGraph(checked(self._driver.cuGraphInstantiate(captured, 0)))
        checked(self._driver.cuGraphDestroy(captured))
        weakref.finalize(graph, release, self._context, self._driver.cuGraphExecDestroy, graph.handle).atexit = False
        return graph

    def captured_by(self, stream: int) -> Capture | None:
        return cuda_capture(self._driver, stream)

    def replay(self, graph: Graph, stream: int) -> None:
        assert isinstance(graph, CudaGraph)
        checked(self._driver.cuGraphLaunch(graph.handle, self._driver.CUstream(stream)))

    def clocks(self) -> Clocks:
        return nvml_clocks(self._bus_id)

    def energy_j(self) -> float | None:
        return nvml_energy_j(self._bus_id)

    @functools.cached_property
    def _bus_id(self) -> str:
        text: bytes = checked(self._driver.cuDeviceGetPCIBusId(32, self._device))
        return text.split(b"\0")[0].decode()

    def _check_launch(self, image: CudaKernel, launch: Launch) -> None:
        """Refuse with the reason what the driver would refuse without one. Raises DeviceError."""
        size, limit = launch.block[0] * launch.block[1] * launch.block[2], image.resources.max_workgroup_size
        if min(launch.block) < 1 or size > limit:
            raise DeviceError(f"block {launch.block} has {size} threads: {image.symbol} allows 1 to {limit}")
        if min(launch.grid) < 1 or any(blocks % per for blocks, per in zip(launch.grid, image.cluster, strict=True)):
            raise DeviceError(f"grid {launch.grid} is not whole clusters of {image.cluster} blocks: round it up")
        lds_bytes = image.resources.lds_bytes + launch.dynamic_lds_bytes
        if launch.dynamic_lds_bytes < 0 or lds_bytes > self._lds_bytes:
            raise DeviceError(
                f"{image.symbol} asks for {lds_bytes} bytes of shared memory: {self._lds_bytes} is the most"
            )
        mismatch = image.mismatch(launch.arguments)
        if mismatch:
            raise DeviceError(f"{mismatch}: launch it with the arguments it was compiled for")

    def _parameters(
        self, kernel: LoadedKernel, launch: Launch, binding: Binding
    ) -> tuple[ctypes.Array[ctypes.c_char], Addresses]:
        """The parameter buffer, and an array of the address of each parameter in it."""
        names = [argument.name for argument in launch.bound_arguments]
        missing, unused = sorted(set(names) - set(binding)), sorted(set(binding) - set(names))
        if missing or unused:
            raise DeviceError(f"the binding lacks {missing} and has unused {unused}: bind exactly {names}")
        end = max((slot.offset_bytes + slot.size_bytes for slot in kernel.image.parameters), default=0)
        values = bytearray(max(end, 1))
        for slot, argument in zip(kernel.image.parameters, launch.arguments, strict=True):
            packed = pack_argument(argument, binding[argument.name] if argument.is_bound else None)
            if slot.is_tensor_map:
                packed = kernel.mapped(launch, argument.name).bound(binding)
            values[slot.offset_bytes : slot.offset_bytes + slot.size_bytes] = packed
        buffer = (ctypes.c_char * len(values)).from_buffer(values)
        base = ctypes.addressof(buffer)
        offsets = [slot.offset_bytes for slot in kernel.image.parameters]
        addresses = (ctypes.c_void_p * len(offsets))(*(base + offset for offset in offsets))
        return buffer, addresses

    def _enter(self) -> None:
        """Make the context this thread's current one."""
        checked(self._driver.cuCtxSetCurrent(self._context))

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(checked(self._driver.cuDeviceGetAttribute(attribute, self._device)))


def _parsed(data: bytes) -> Cubin:
    try:
        return read_cubin(data)
    except InputError as error:
        raise DeviceError(str(error)) from error
