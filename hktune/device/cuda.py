"""An NVIDIA GPU, through the CUDA driver API.

A kernel gets pointers and sizes like any other. Where its parameter is a tensor map (cubin.py), the map is encoded here
from the pointer, the sizes of the launch and the box that the cubin carries: on the host and once for each matrix. The
driver's encoder is the one documented way to make a map, and a kernel that builds its own pays for it at every start.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hktune.core.errors import DeviceError, DeviceFull, InputError, KernelFault
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.core.operand import operands_of
from hktune.device.argument_bytes import pack_argument
from hktune.device.cuda_prepared import PointerSlot, PreparedCudaLaunch
from hktune.device.device import CALL_OPERANDS, Binding, Buffer, Clocks, Event, Graph, HostArray, Kernel
from hktune.device.device_buffer import DeviceBuffer, borrowed
from hktune.device.host_copies import check_target, source_of
from hktune.device.nvml import nvml_clocks
from hktune.device.prepared import place_among
from hktune.objects.cubin import TENSOR_MAP_BYTES, Box, Cubin, CudaKernel, read_cubin

if TYPE_CHECKING:
    import torch

Addresses = ctypes.Array[ctypes.c_void_p]
"""Of each parameter of a launch."""
_TMA_ALIGNMENT_BYTES = 16  # of addresses and row strides, cuTensorMapEncodeTiled
_TENSOR_COPIES = f"tensor copies need the address and the row to be multiples of {_TMA_ALIGNMENT_BYTES} bytes"
# Errors that a kernel causes and that leave the context unusable (CUDA driver API, CUresult).
_FAULTS = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": "crashed",
    "CUDA_ERROR_MISALIGNED_ADDRESS": "crashed",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": "crashed",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": "crashed",
    "CUDA_ERROR_INVALID_PC": "crashed",
    "CUDA_ERROR_HARDWARE_STACK_ERROR": "crashed",
    "CUDA_ERROR_ASSERT": "crashed",
    "CUDA_ERROR_LAUNCH_FAILED": "crashed",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "timeout",
}


@dataclass(frozen=True, eq=False)
class LoadedKernel:
    """A kernel in the device's memory. Its module is unloaded with the last reference: keep one for as long as a graph
    that captured a launch of it."""

    symbol: str
    image: CudaKernel
    boxes: Mapping[str, Box]
    function: object


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
        self._driver = _driver()
        count = count_cuda_devices()
        if not 0 <= ordinal < count:
            raise DeviceError(f"no CUDA device {ordinal}: this process sees {count}")
        self._device = _checked(self._driver.cuDeviceGet(ordinal))
        self._ordinal = ordinal
        self._streams: list[object] = []
        self._lds_bytes = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        self._capability = 10 * self._attribute("COMPUTE_CAPABILITY_MAJOR") + self._attribute(
            "COMPUTE_CAPABILITY_MINOR"
        )

    @functools.cached_property
    def _context(self) -> object:
        """Made when first needed: who only asks for the identity leaves the GPU alone."""
        context: object = _checked(self._driver.cuDevicePrimaryCtxRetain(self._device))
        return context

    @property
    def identity(self) -> Identity:
        """`pci_id` is vendor:device:subsystem, which tells one SKU from another of the same name."""
        name = _checked(self._driver.cuDeviceGetName(256, self._device)).split(b"\0")[0].decode()
        device, subsystem = self._attribute("GPU_PCI_DEVICE_ID"), self._attribute("GPU_PCI_SUBSYSTEM_ID")
        pci_id = f"{device & 0xFFFF:04x}:{device >> 16 & 0xFFFF:04x}:{subsystem >> 16 & 0xFFFF:04x}"
        arch = f"sm{self._capability}" + ("a" if self._capability >= 90 else "")
        return Identity("cuda", arch, name, self._attribute("MULTIPROCESSOR_COUNT"), pci_id)

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        self._enter()
        if size_bytes < 1:
            raise DeviceError(f"cannot allocate {size_bytes} bytes: ask for at least 1")
        address = int(_checked(self._driver.cuMemAlloc(size_bytes)))
        buffer = DeviceBuffer(address, size_bytes)
        weakref.finalize(buffer, _release, self._context, self._driver.cuMemFree, address).atexit = False
        return buffer

    def write(self, buffer: Buffer, data: HostArray) -> None:
        source = source_of(data, buffer)
        self._enter()
        _checked(self._driver.cuMemcpyHtoD(buffer.address, source.ctypes.data, source.nbytes))

    def read(self, buffer: Buffer, out: HostArray) -> None:
        check_target(out, buffer)
        self.synchronize()
        _checked(self._driver.cuMemcpyDtoH(out.ctypes.data, buffer.address, out.nbytes))

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
        module = _checked(self._driver.cuModuleLoadData(data))
        function = _checked(self._driver.cuModuleGetFunction(module, symbol.encode()))
        image = cubin.kernels[symbol]
        largest = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        spare = self._lds_bytes - image.resources.lds_bytes
        _checked(self._driver.cuFuncSetAttribute(function, largest, spare))
        kernel = LoadedKernel(symbol, image, cubin.boxes, function)
        weakref.finalize(kernel, _release, self._context, self._driver.cuModuleUnload, module).atexit = False
        return kernel

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        if not isinstance(kernel, LoadedKernel):
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        self._check_launch(kernel.image, launch)
        values, addresses = self._parameters(kernel, launch, binding)
        self._enter()
        stream_handle = self._driver.CUstream(stream or 0)
        result = self._driver.cuLaunchKernel(
            kernel.function, *launch.grid, *launch.block, launch.dynamic_lds_bytes, stream_handle, addresses, 0
        )
        del values  # until here: the addresses point into it
        _checked(result)

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
            if argument.kind == "pointer":
                encode = self._map_encoder(kernel, launch, argument.name, numbers) if each.is_tensor_map else None
                slots.append(PointerSlot(place_among(operands, argument), each.offset_bytes, encode))
            else:
                packed = pack_argument(argument, numbers.get(argument.name))
                template[each.offset_bytes : each.offset_bytes + len(packed)] = packed
        offsets = [each.offset_bytes for each in parameters]
        return PreparedCudaLaunch(self._starter(kernel, launch), bytes(template), offsets, slots, self._enter)

    def _map_encoder(
        self, kernel: LoadedKernel, launch: Launch, name: str, numbers: Mapping[str, int]
    ) -> Callable[[int], bytes]:
        """What makes the tensor map of matrix `name`, whose sizes are known, from its address."""
        rows, columns = (numbers[side] for side in _mapped_axes(kernel, launch, name))
        box = kernel.boxes[name]
        if columns * box.dtype.bytes % _TMA_ALIGNMENT_BYTES:
            raise DeviceError(f"{name} has rows of {columns} elements: {_TENSOR_COPIES}")
        return lambda address: _encoded(address, rows, columns, box)

    def _starter(self, kernel: LoadedKernel, launch: Launch) -> Callable[[int | None, Addresses], None]:
        driver, shape = self._driver, (*launch.grid, *launch.block, launch.dynamic_lds_bytes)
        streams: dict[int | None, object] = {}

        def start(stream: int | None, addresses: Addresses) -> None:
            handle = streams.get(stream) or streams.setdefault(stream, driver.CUstream(stream or 0))
            _checked(driver.cuLaunchKernel(kernel.function, *shape, handle, addresses, 0))

        return start

    def synchronize(self) -> None:
        self._enter()
        _checked(self._driver.cuCtxSynchronize())

    @property
    def last_level_cache_bytes(self) -> int:
        return self._attribute("L2_CACHE_SIZE")

    def create_stream(self) -> int:
        self._enter()
        stream = _checked(self._driver.cuStreamCreate(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._streams.append(stream)
        return int(stream)

    def record(self, stream: int) -> CudaEvent:
        self._enter()
        event = CudaEvent(_checked(self._driver.cuEventCreate(0)))
        weakref.finalize(event, _release, self._context, self._driver.cuEventDestroy, event.handle).atexit = False
        _checked(self._driver.cuEventRecord(event.handle, self._driver.CUstream(stream)))
        return event

    def elapsed_us(self, start: Event, end: Event) -> float:
        assert isinstance(start, CudaEvent)
        assert isinstance(end, CudaEvent)
        _checked(self._driver.cuEventSynchronize(end.handle))
        return 1e3 * float(_checked(self._driver.cuEventElapsedTime(start.handle, end.handle)))

    def capture(self, enqueue: Callable[[], None], stream: int) -> CudaGraph:
        self._enter()
        native = self._driver.CUstream(stream)
        _checked(
            self._driver.cuStreamBeginCapture(native, self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        )
        try:
            enqueue()
        finally:  # an unfinished capture would fail every later call on the stream
            status, captured = self._driver.cuStreamEndCapture(native)
        _checked((status,))
        graph = CudaGraph(_checked(self._driver.cuGraphInstantiate(captured, 0)))
        _checked(self._driver.cuGraphDestroy(captured))
        weakref.finalize(graph, _release, self._context, self._driver.cuGraphExecDestroy, graph.handle).atexit = False
        return graph

    def replay(self, graph: Graph, stream: int) -> None:
        assert isinstance(graph, CudaGraph)
        _checked(self._driver.cuGraphLaunch(graph.handle, self._driver.CUstream(stream)))

    def clocks(self) -> Clocks:
        bus_id = _checked(self._driver.cuDeviceGetPCIBusId(32, self._device)).split(b"\0")[0].decode()
        return nvml_clocks(bus_id)

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
        names = [argument.name for argument in launch.arguments]
        missing, unused = sorted(set(names) - set(binding)), sorted(set(binding) - set(names))
        if missing or unused:
            raise DeviceError(f"the binding lacks {missing} and has unused {unused}: bind exactly {names}")
        end = max((slot.offset_bytes + slot.size_bytes for slot in kernel.image.parameters), default=0)
        values = bytearray(max(end, 1))
        for slot, argument in zip(kernel.image.parameters, launch.arguments, strict=True):
            packed = pack_argument(argument, binding[argument.name])
            if slot.is_tensor_map:
                packed = self._tensor_map(kernel, launch, argument.name, binding)
            values[slot.offset_bytes : slot.offset_bytes + slot.size_bytes] = packed
        buffer = (ctypes.c_char * len(values)).from_buffer(values)
        base = ctypes.addressof(buffer)
        addresses = (ctypes.c_void_p * len(names))(*(base + slot.offset_bytes for slot in kernel.image.parameters))
        return buffer, addresses

    def _tensor_map(self, kernel: LoadedKernel, launch: Launch, name: str, binding: Binding) -> bytes:
        buffer, axes = binding[name], _mapped_axes(kernel, launch, name)
        rows, columns = (binding.get(side) for side in axes)
        if (
            buffer is None
            or isinstance(buffer, (int, float))
            or not isinstance(rows, int)
            or not isinstance(columns, int)
        ):
            raise DeviceError(f"{kernel.symbol} takes {name} as a tensor map: bind its buffer and {axes}")
        box = kernel.boxes[name]
        if rows < 1 or columns < 1 or rows * columns * box.dtype.bytes > buffer.size_bytes:
            raise DeviceError(
                f"{name} is {rows} x {columns} elements, its buffer {buffer.size_bytes} bytes: allocate it"
            )
        if buffer.address % _TMA_ALIGNMENT_BYTES or columns * box.dtype.bytes % _TMA_ALIGNMENT_BYTES:
            raise DeviceError(f"{name} at {buffer.address:#x} has rows of {columns} elements: {_TENSOR_COPIES}")
        return _encoded(buffer.address, rows, columns, box)

    def _enter(self) -> None:
        """Make the context this thread's current one."""
        _checked(self._driver.cuCtxSetCurrent(self._context))

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(_checked(self._driver.cuDeviceGetAttribute(attribute, self._device)))


def count_cuda_devices() -> int:
    """How many NVIDIA GPUs this process sees. Raises DeviceError where the bindings or the driver are absent."""
    return int(_checked(_driver().cuDeviceGetCount()))


@functools.cache
def _driver() -> ModuleType:
    """The driver's bindings, initialised. Raises DeviceError where they or the driver are absent."""
    try:
        driver = importlib.import_module("cuda.bindings.driver")
        status = driver.cuInit(0)
    except ImportError as absent:
        raise DeviceError("no CUDA bindings: pip install 'hktune[cuda]'") from absent
    except RuntimeError as absent:
        raise DeviceError("no CUDA driver on this machine: install NVIDIA's, or use the emulated device") from absent
    _checked(status)
    return driver


def _checked(result: tuple[Any, ...]) -> Any:
    """What a driver call returned besides its status. Raises KernelFault or DeviceError."""
    status, *values = result
    if status:
        detail = f"the CUDA driver says {status.name}"
        if status.name in _FAULTS:
            raise KernelFault(_FAULTS[status.name], detail)
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise DeviceFull(f"{detail}: end what else uses the device, or choose another")
        raise DeviceError(f"{detail}: see `nvidia-smi` for the device's state")
    return values[0] if values else None


def _release(context: object, free: Callable[[object], object], handle: object) -> None:
    """Give memory or a module back. After a fault the driver refuses, and there is nothing left to give back."""
    driver = _driver()
    if not driver.cuCtxSetCurrent(context)[0]:
        free(handle)


def _parsed(data: bytes) -> Cubin:
    try:
        return read_cubin(data)
    except InputError as error:
        raise DeviceError(str(error)) from error


def _mapped_axes(kernel: LoadedKernel, launch: Launch, name: str) -> tuple[str, ...]:
    """The names of rows and columns of a matrix that `kernel` takes as a tensor map. Raises DeviceError."""
    operand = operands_of(launch.operation).get(name)
    if name not in kernel.boxes or operand is None or not operand.row_stride:
        raise DeviceError(f"{kernel.symbol} takes {name} as a tensor map: declare hktune_box_{name} in its source")
    return operand.axes


@functools.lru_cache(maxsize=4096)
def _encoded(address: int, rows: int, columns: int, box: Box) -> bytes:
    """The tensor map of a row-major matrix. What a box covers beyond the matrix reads as zeros and is not written.

    Rows of a box of 128, 64 or 32 bytes are swizzled over their own length (PTX ISA, 5.5.7), so that eight rows of a
    column of 16 bytes are in different banks.
    """
    driver, element_bytes = _driver(), box.dtype.bytes
    swizzle = {128: "128B", 64: "64B", 32: "32B"}.get(box.columns * element_bytes, "NONE")
    encoded = driver.cuTensorMapEncodeTiled(
        driver.CUtensorMapDataType(box.data_type),
        2,
        address,
        [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
        [driver.cuuint64_t(columns * element_bytes)],
        [driver.cuuint32_t(box.columns), driver.cuuint32_t(box.rows)],
        [driver.cuuint32_t(1), driver.cuuint32_t(1)],
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return ctypes.string_at(int(_checked(encoded).getPtr()), TENSOR_MAP_BYTES)
