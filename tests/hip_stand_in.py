"""A stand-in for AMD's HIP runtime: a true shared library (hip_stand_in.c) whose GPUs are emulated.

The device under test loads it by its path, calls C functions of the real signatures, and hands over real pointers; here
they are read back from memory as the runtime would read them. Launches run on the emulator, with the kernarg bytes that
came through `extra`. What the runtime checks of a call is checked as ROCm's clr does (hip_module.cpp, ROCm 7).
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import host_library
import numpy as np
import torch

from hktune.core.errors import DeviceError, KernelFault
from hktune.core.launch import Launch
from hktune.device.emulated import EmulatedBuffer, EmulatedDevice, EmulatedKernel

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONFIGURATION = 0, 1, 2, 9
NO_DEVICE, INVALID_DEVICE, INVALID_IMAGE, INVALID_HANDLE, NOT_FOUND = 100, 101, 200, 400, 500
LAUNCH_FAILURE, CAPTURE_INVALIDATED = 719, 901
LDS_BYTES = 163840
MEMORY_BYTES = 1 << 30
LAUNCH_US = 25.0
ARCH_NAME_OFFSET = 1160  # tinygrad's hipDeviceProp_tR0600; test_hip_library.py compares
_ATTRIBUTES = {5: 2_200_000, 19: 4 << 20, 63: 256, 10002: LDS_BYTES}
# No two stand-ins of a process share an address or a handle: what one test leaves is given back during the next.
_SPACES, _HANDLES = itertools.count(1), itertools.count(0x5000_0000, 16)
_SPACE_BYTES = 1 << 36
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64))


def build(folder: Path) -> Path:
    """A ROCm tree at `folder` with the stand-in for a library; returns the library."""
    library = folder / "lib" / "libamdhip64.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("hip_stand_in.c")
    return host_library.built(source, library, "-O1", "-Wall", "-Werror", "-fno-builtin")


@dataclass
class Work:
    """A launch as the runtime copies it: the arguments' bytes are its own, `size_bytes` of them handed over."""

    kernel: EmulatedKernel
    launch: Launch
    arguments: bytes
    size_bytes: int


@dataclass
class Stream:
    device: int
    flags: int
    captured: list[Work] | None = None


@dataclass
class StandIn:
    """The state behind the library. `calls` are the names called so far; `refuse` makes a function answer an error."""

    rocm_path: Path
    targets: Sequence[str] = ("gfx950:sramecc+:xnack-", "gfx950:sramecc+:xnack-")
    name: str = "AMD Instinct MI350X"
    calls: list[str] = field(default_factory=list)
    words: dict[str, tuple[int, ...]] = field(default_factory=dict)
    last_error: int = SUCCESS
    broken: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gpu = EmulatedDevice(deadline_s=60.0)
        self.gpu._space._next += next(_SPACES) * _SPACE_BYTES
        self.memory: dict[int, EmulatedBuffer] = {}
        self.modules: dict[int, bytes] = {}
        self.functions: dict[int, tuple[int, EmulatedKernel]] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.launched: list[Work] = []
        self.events: dict[int, float | None] = {}
        self.now_us = 1000.0
        self._thread = threading.local()
        self._refusals: dict[str, list[int]] = defaultdict(list)
        self._fault = SUCCESS
        self._borrowed: dict[int, EmulatedBuffer] = {}
        self._handler = _HANDLER(self._handle)
        library = ctypes.CDLL(str(self.rocm_path / "lib" / "libamdhip64.so"))
        self._register = library.stand_in_register
        self._register.argtypes = (_HANDLER,)
        self._register(self._handler)

    def close(self) -> None:
        """From now on the library has no device."""
        self._register(ctypes.cast(None, _HANDLER))

    def refuse(self, name: str, status: int) -> None:
        """Let the next call of `name` answer `status`."""
        self._refusals[name].append(status)

    def fault(self, status: int) -> None:
        """Let a kernel have faulted: every call that waits answers `status` from now on."""
        self._fault = status

    def tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as ROCm's torch would show it: on cuda:0, at an address of the device."""
        placed = tensor.as_subclass(OnGpu)
        placed.stand_in = self
        return placed

    def address_of(self, tensor: torch.Tensor) -> int:
        buffer = self.gpu.borrow(tensor.as_subclass(torch.Tensor))
        self._borrowed[buffer.address] = buffer
        return buffer.address

    @property
    def current(self) -> int:
        """The calling thread's current device."""
        return getattr(self._thread, "device", 0)

    @current.setter
    def current(self, device: int) -> None:
        self._thread.device = device

    def _handle(self, name: bytes, words: Any) -> int:
        try:
            function: Callable[..., int] = getattr(self, name.decode())
            arguments = tuple(words[: len(signature(function).parameters)])
            self.calls.append(name.decode())
            self.words[name.decode()] = arguments
            refusals = self._refusals[name.decode()]
            status = refusals.pop(0) if refusals else function(*arguments)
        except BaseException as error:  # nothing may leave a callback; the fixture reports it
            self.broken.append(error)
            status = 999
        if status and name != b"hipGetLastError":
            self.last_error = status
        return status

    # The functions of the library, with their arguments as words.

    def hipGetDeviceCount(self, out: int) -> int:
        return _put(ctypes.c_int, out, len(self.targets)) if self.targets else NO_DEVICE

    def hipGetDevice(self, out: int) -> int:
        return _put(ctypes.c_int, out, self.current)

    def hipSetDevice(self, device: int) -> int:
        if not 0 <= device < len(self.targets):
            return INVALID_DEVICE
        self.current = device
        return SUCCESS

    def hipDeviceGetName(self, out: int, size: int, device: int) -> int:
        return _put_text(out, self.name, size)

    def hipDeviceGetPCIBusId(self, out: int, size: int, device: int) -> int:
        return _put_text(out, f"0000:{0xE5 + device:02X}:00.0", size)

    def hipDeviceGetAttribute(self, out: int, attribute: int, device: int) -> int:
        return _put(ctypes.c_int, out, _ATTRIBUTES[attribute])

    def hipGetDevicePropertiesR0600(self, out: int, device: int) -> int:
        ctypes.memset(out, 0xA5, 1472)
        return _put_text(out + ARCH_NAME_OFFSET, self.targets[device], 256)

    def hipRuntimeGetVersion(self, out: int) -> int:
        return _put(ctypes.c_int, out, 70051831)

    def hipDeviceSynchronize(self) -> int:
        return self._fault

    def hipGetLastError(self) -> int:
        error, self.last_error = self.last_error, SUCCESS
        return error

    def hipMalloc(self, out: int, size: int) -> int:
        if size + sum(buffer.size_bytes for buffer in self.memory.values()) > MEMORY_BYTES:
            return OUT_OF_MEMORY
        buffer = self.gpu.allocate(size)
        self.memory[buffer.address] = buffer
        return _put(ctypes.c_uint64, out, buffer.address)

    def hipFree(self, address: int) -> int:
        return SUCCESS if self.memory.pop(address, None) else INVALID_VALUE

    def hipMemcpyHtoD(self, to: int, source: int, size: int) -> int:
        if size > self.memory[to].size_bytes:
            return INVALID_VALUE
        self.memory[to].data[:size] = np.frombuffer(ctypes.string_at(source, size), np.uint8)
        return SUCCESS

    def hipMemcpyDtoH(self, to: int, source: int, size: int) -> int:
        if size > self.memory[source].size_bytes:
            return INVALID_VALUE
        ctypes.memmove(to, self.memory[source].data.tobytes(), size)
        return self._fault

    def hipModuleLoadData(self, out: int, image: int) -> int:
        if ctypes.string_at(image, 4) != b"\x7fELF":
            return INVALID_IMAGE
        self.modules[handle := next(_HANDLES)] = _elf(image)
        return _put(ctypes.c_uint64, out, handle)

    def hipModuleUnload(self, module: int) -> int:
        return SUCCESS if self.modules.pop(module, None) else INVALID_HANDLE

    def hipModuleGetFunction(self, out: int, module: int, name: int) -> int:
        try:
            kernel = self.gpu.load(self.modules[module], ctypes.string_at(name).decode())
        except DeviceError:
            return NOT_FOUND
        self.functions[handle := next(_HANDLES)] = (self.current, kernel)
        return _put(ctypes.c_uint64, out, handle)

    def hipModuleLaunchKernel(
        self,
        function: int,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        block_x: int,
        block_y: int,
        block_z: int,
        lds_bytes: int,
        stream: int,
        parameters: int,
        extra: int,
    ) -> int:
        grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
        device, kernel = self.functions[function]
        refusal = self._launch_refusal(device, kernel, grid, block, lds_bytes, stream)
        if refusal or parameters:
            return refusal or INVALID_VALUE
        pointer, arguments, size_marker, size_at, end = (ctypes.c_uint64 * 5).from_address(extra)
        if (pointer, size_marker, end) != (1, 2, 3):
            return INVALID_VALUE
        size = ctypes.c_size_t.from_address(size_at).value
        if (size > 0) != any(not slot.hidden for slot in kernel.image.arguments):
            return INVALID_VALUE
        data = ctypes.string_at(arguments, size).ljust(kernel.image.kernarg_bytes, b"\0")
        work = Work(kernel, Launch(grid, block, lds_bytes, ()), data, size)
        if stream and self.streams[stream].captured is not None:
            self.streams[stream].captured.append(work)
        else:
            self._run(work)
        return SUCCESS

    def hipStreamCreateWithFlags(self, out: int, flags: int) -> int:
        self.streams[handle := next(_HANDLES)] = Stream(self.current, flags)
        return _put(ctypes.c_uint64, out, handle)

    def hipStreamDestroy(self, stream: int) -> int:
        return SUCCESS if self.streams.pop(stream, None) else INVALID_HANDLE

    def hipStreamBeginCapture(self, stream: int, mode: int) -> int:
        if stream not in self.streams or self.streams[stream].captured is not None:
            return INVALID_VALUE
        self.streams[stream].captured = []
        return SUCCESS

    def hipStreamEndCapture(self, stream: int, out: int) -> int:
        captured, self.streams[stream].captured = self.streams[stream].captured, None
        if captured is None:
            return INVALID_VALUE
        self.graphs[handle := next(_HANDLES)] = captured
        return _put(ctypes.c_uint64, out, handle)

    def hipGraphInstantiate(self, out: int, graph: int, node: int, log: int, size: int) -> int:
        self.executables[handle := next(_HANDLES)] = list(self.graphs[graph])
        return _put(ctypes.c_uint64, out, handle)

    def hipGraphLaunch(self, executable: int, stream: int) -> int:
        for work in self.executables[executable]:
            self._run(work)
        return SUCCESS if stream in self.streams else INVALID_HANDLE

    def hipGraphDestroy(self, graph: int) -> int:
        return SUCCESS if self.graphs.pop(graph, None) is not None else INVALID_VALUE

    def hipGraphExecDestroy(self, executable: int) -> int:
        return SUCCESS if self.executables.pop(executable, None) is not None else INVALID_VALUE

    def hipEventCreateWithFlags(self, out: int, flags: int) -> int:
        self.events[handle := next(_HANDLES)] = None
        return _put(ctypes.c_uint64, out, handle)

    def hipEventRecord(self, event: int, stream: int) -> int:
        if stream and self.streams[stream].device != self.current:
            return INVALID_HANDLE
        self.events[event] = self.now_us
        return SUCCESS

    def hipEventSynchronize(self, event: int) -> int:
        return self._fault if event in self.events else INVALID_HANDLE

    def hipEventElapsedTime(self, out: int, start: int, stop: int) -> int:
        first, last = self.events[start], self.events[stop]
        if first is None or last is None:
            return INVALID_HANDLE
        return _put(ctypes.c_float, out, (last - first) / 1000)

    def hipEventDestroy(self, event: int) -> int:
        return INVALID_HANDLE if self.events.pop(event, self) is self else SUCCESS

    def _launch_refusal(
        self,
        device: int,
        kernel: EmulatedKernel,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        lds_bytes: int,
        stream: int,
    ) -> int:
        if self._fault:
            return self._fault
        if device != self.current or (stream and self.streams[stream].device != device):
            return INVALID_HANDLE
        if 0 in grid or lds_bytes > LDS_BYTES:
            return INVALID_VALUE
        if 0 in block:
            return INVALID_CONFIGURATION
        too_large = block[0] * block[1] * block[2] > kernel.image.resources.max_workgroup_size
        return LAUNCH_FAILURE if too_large else SUCCESS

    def _run(self, work: Work) -> None:
        self.now_us += LAUNCH_US
        self.launched.append(work)
        try:
            self.gpu._run(work.kernel, work.launch, work.arguments)
        except KernelFault:
            self._fault = LAUNCH_FAILURE


class OnGpu(torch.Tensor):
    """A tensor of this machine's memory that says it is on cuda:0."""

    stand_in: StandIn

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    def data_ptr(self) -> int:
        return self.stand_in.address_of(self)


def _put(kind: Any, address: int, value: float) -> int:
    kind.from_address(address).value = value
    return SUCCESS


def _put_text(address: int, text: str, size: int) -> int:
    data = text.encode() + b"\0"
    if len(data) > size:
        return INVALID_VALUE
    ctypes.memmove(address, data, len(data))
    return SUCCESS


def _elf(address: int) -> bytes:
    """The ELF image at `address`, as long as its section headers say it is."""
    head = ctypes.string_at(address, 64)
    sections = int.from_bytes(head[40:48], "little")
    entry, count = (int.from_bytes(head[at : at + 2], "little") for at in (58, 60))
    return ctypes.string_at(address, sections + entry * count)
