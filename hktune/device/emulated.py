"""The emulated device: code objects executed instruction by instruction on this machine's CPU."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.core.board import DEFAULT_BOARD, Board, emulated_name
from hktune.core.errors import DeviceError, InputError
from hktune.core.identity import Identity
from hktune.core.launch import Launch
from hktune.device.amd_launch import check_launch, check_sides, checked_code, explicit_bytes
from hktune.device.device import CALL_OPERANDS, Binding, Buffer, HostArray, Kernel
from hktune.device.host_copies import check_target, source_of, span_elements
from hktune.device.prepared import BoundLaunch
from hktune.emulator.clock.trace import Trace
from hktune.emulator.clock.trace_recorder import Recorder
from hktune.emulator.execution import Limits, Machine, run_dispatch
from hktune.emulator.hazards.content import Content
from hktune.emulator.hazards.finding import Finding, Insertion, Watch
from hktune.emulator.instructions.program import Code, Program
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import AddressSpace, Region
from hktune.emulator.machine.wave_start import (
    Descriptor,
    Dispatch,
    Pointers,
    argument_bytes,
    dispatch_packet,
    entry_address,
)
from hktune.emulator.schedules.schedule import USUAL, Schedule
from hktune.objects.code_object import AmdCodeObject, KernelImage, read_code_object
from hktune.objects.demangled import kernel_name
from hktune.objects.source_lines import source_places

if TYPE_CHECKING:
    import torch

_MAX_BUFFER_BYTES = 1 << 36
_FEATURES = ("sramecc+", "xnack-")
"""The settings of a gfx950 as ROCm finds it: SRAM-ECC cannot be switched off, page migration is not on."""


class EmulatedBuffer:
    """Device memory that is a numpy array; leaves the address space with its last reference. `owner` keeps borrowed
    memory."""

    def __init__(self, space: AddressSpace, data: npt.NDArray[np.uint8], owner: object = None) -> None:
        self._region = space.map(data)
        self.space = space
        self.data = data
        self._owner = owner
        weakref.finalize(self, space.unmap, self._region)

    @property
    def address(self) -> int:
        return self._region.base

    @property
    def size_bytes(self) -> int:
        return self.data.size


@dataclass(frozen=True)
class EmulatedKernel:
    """A kernel whose code is in the device's memory."""

    symbol: str
    image: KernelImage
    descriptor: Descriptor
    program: Program
    code: _LoadedCode
    data: bytes

    def locate(self, address: int) -> str:
        """Where an instruction is: its offset in the kernel, and the source line if the object has debug lines."""
        return self.located([address])[address]

    def located(self, addresses: Iterable[int]) -> dict[int, str]:
        """The same of several, whose lines are read at once."""
        base, wanted = self.code.region.base, list(addresses)
        places = source_places(self.data, [address - base for address in wanted])
        found = {}
        for address in wanted:
            place = places.get(address - base)
            line = f", {place.own}" if place else ""
            found[address] = f" [{kernel_name(self.symbol)}+{address - self.program.entry:#x}{line}]"
        return found


class _LoadedCode:
    """The segments of a code object in the address space, read-only but for variables; leave it with the last kernel
    that uses them. `region` is the first part of it."""

    def __init__(self, space: AddressSpace, code: AmdCodeObject) -> None:
        self.space = space
        regions = space.map_image(_image(code), code.variables)
        self.region = regions[0]
        for region in regions:
            weakref.finalize(self, space.unmap, region)


def _image(code: AmdCodeObject) -> npt.NDArray[np.uint8]:
    """The segments as they are in memory."""
    size = max((address + len(data) for address, data in code.segments), default=0)
    memory = np.zeros(size, np.uint8)
    for address, data in code.segments:
        memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
    return memory


_CODES_KEPT = 8


@lru_cache(_CODES_KEPT)
def _known_code(data: bytes, base: int, mode: FloatMode) -> Code:
    """The code object's instructions at `base`: every device that loads it there shares them."""
    return Code(base, _image(read_code_object(data)), mode)


class EmulatedDevice:
    """A gfx950 in software. Launches run on the calling thread, one at a time, and nothing of them depends on `board`,
    which only says whose clocks its times are modelled with.

    `deadline_s` and `max_steps` (instructions executed by groups of waves) bound a launch, which is a KernelFault
    "timeout" past either. With `record_trace`, `trace` holds the last launch's workgroup 0. With `find_hazards`, what
    only timing makes right is a KernelFault "hazard"; `hazard_notes` are lines of the last launch on what the ISA guide
    forbids and AMD's own kernels do, which `strict_hazards` makes hazards too. With `gather_hazards` a launch goes on
    after a hazard, and `findings` is all that the last one found. `schedule` is the order of the waves. Launches that
    take long may be divided among `workers` processes, which changes nothing but the time.
    """

    def __init__(
        self,
        arch: str = "gfx950",
        deadline_s: float | None = None,
        *,
        max_steps: int | None = None,
        record_trace: bool = False,
        find_hazards: bool = False,
        strict_hazards: bool = False,
        gather_hazards: bool = False,
        schedule: Schedule = USUAL,
        workers: int = 1,
        board: Board = DEFAULT_BOARD,
    ) -> None:
        if arch != "gfx950":
            raise InputError(f"no emulator for architecture {arch!r}: known is gfx950")
        self._board = board
        self._arch: Arch = board.arch
        self._space = AddressSpace()
        self._lock = threading.Lock()
        self._deadline_s = deadline_s
        self._max_steps = max_steps
        self._record_trace = record_trace
        self._find_hazards = find_hazards
        self._strict_hazards = strict_hazards
        self._gather_hazards = gather_hazards
        self._schedule = schedule
        self._workers = workers
        self._meaningless: tuple[EmulatedBuffer, ...] = ()
        self._notes: tuple[EmulatedKernel, tuple[Finding, ...]] | None = None
        self.findings: tuple[Finding, ...] = ()
        self.trace: Trace | None = None

    @property
    def identity(self) -> Identity:
        name, board = emulated_name(self._board), self._board.name
        return Identity("emulated", self._arch.name, name, self._arch.compute_units, board=board)

    @property
    def hazard_notes(self) -> tuple[str, ...]:
        """A line for each note of the last launch. They are worded when they are asked for: debug lines take a process
        to read."""
        if self._notes is None:
            return ()
        kernel, notes = self._notes
        places = kernel.located(each.here.instruction.address for each in notes)
        return tuple(each.line(places.__getitem__) for each in notes)

    def allocate(self, size_bytes: int) -> EmulatedBuffer:
        if not 0 < size_bytes <= _MAX_BUFFER_BYTES:
            raise DeviceError(f"cannot allocate {size_bytes} bytes: ask for 1 to {_MAX_BUFFER_BYTES}")
        try:
            data = np.zeros(size_bytes, np.uint8)
        except MemoryError as error:
            raise DeviceError(f"cannot allocate {size_bytes} bytes: this machine has less to spare") from error
        return EmulatedBuffer(self._space, data)

    def write(self, buffer: Buffer, data: HostArray) -> None:
        target = self._own(buffer)
        source = source_of(data, buffer).reshape(-1).view(np.uint8)
        target[: source.size] = source

    def read(self, buffer: Buffer, out: HostArray) -> None:
        source = self._own(buffer)
        check_target(out, buffer)
        out.reshape(-1).view(np.uint8)[:] = source[: out.nbytes]

    def expect_no_content(self, buffers: Iterable[Buffer]) -> None:
        """What these hold means nothing before a launch stores to it: a load of it is a finding."""
        self._meaningless = tuple(buffer for buffer in buffers if isinstance(buffer, EmulatedBuffer))

    def borrow(self, tensor: torch.Tensor) -> EmulatedBuffer:
        if tensor.device.type != "cpu" or not tensor.numel():
            raise DeviceError(
                f"cannot borrow a tensor of shape {tuple(tensor.shape)} on {tensor.device}: it must be on the CPU and "
                "not empty"
            )
        # By address: tensor.numpy() would mark the storage as one that can never be resized.
        size_bytes = span_elements(tensor) * tensor.element_size()
        memory = (ctypes.c_uint8 * size_bytes).from_address(tensor.data_ptr())
        return EmulatedBuffer(self._space, np.frombuffer(memoryview(memory), np.uint8), tensor)

    def load(self, data: bytes, symbol: str, insertions: Iterable[Insertion] = ()) -> EmulatedKernel:
        """As any device's. `insertions` are executed too; their addresses are those of the object."""
        code = checked_code(data, symbol, self._arch.name, _FEATURES)
        image = code.kernels[symbol]
        descriptor = Descriptor.read(image.descriptor)
        descriptor.check(symbol)
        loaded = _LoadedCode(self._space, code)
        entry = entry_address(descriptor, loaded.region.base + image.entry_address)
        inserted = {loaded.region.base + each.address: each.words for each in insertions}
        known = _known_code(data, loaded.region.base, descriptor.float_mode)
        program = Program(self._space, entry, descriptor.float_mode, inserted, known)
        return EmulatedKernel(symbol, image, descriptor, program, loaded, data)

    def launch(self, kernel: Kernel, launch: Launch, binding: Binding, stream: int | None = None) -> None:
        del stream
        if not isinstance(kernel, EmulatedKernel) or kernel.code.space is not self._space:
            raise DeviceError(f"{kernel.symbol} was loaded by another device: load it here")
        check_launch(kernel.image, launch, self._arch.lds_bytes)
        explicit = explicit_bytes(kernel.image, launch.arguments, binding)
        for value in binding.values():
            if value is not None and not isinstance(value, (int, float)):
                self._own(value)
        with self._lock:
            self._run(kernel, launch, explicit)

    def launch_packed(self, kernel: EmulatedKernel, launch: Launch, explicit: bytes) -> None:
        """Launch with an argument struct of the caller's own making, in place of `launch.arguments`. The addresses in
        it are those of buffers that the caller keeps alive."""
        check_sides(kernel.image, launch, self._arch.lds_bytes)
        with self._lock:
            self._run(kernel, launch, explicit)

    def prepare(
        self,
        kernel: Kernel,
        launch: Launch,
        numbers: Mapping[str, int],
        operands: Sequence[str] = CALL_OPERANDS,
    ) -> BoundLaunch:
        return BoundLaunch(self, kernel, launch, numbers, operands)

    def synchronize(self) -> None:
        """Launches are synchronous: there is nothing to wait for."""

    def _run(self, kernel: EmulatedKernel, launch: Launch, explicit: bytes) -> None:
        image = kernel.image
        lds_bytes = image.resources.lds_bytes + launch.dynamic_lds_bytes
        dispatch = Dispatch(launch.grid, launch.block, lds_bytes, image.resources.scratch_bytes)
        arguments = self._place(argument_bytes(image, explicit, dispatch, launch.dynamic_lds_bytes))
        packet = self._place(dispatch_packet(dispatch, arguments.base))
        recorder = Recorder(dispatch.waves_per_workgroup) if self._record_trace else None
        watch = self._watch(kernel) if self._find_hazards else None
        self.trace, self._notes, self.findings = None, None, ()
        try:
            run_dispatch(
                Machine(
                    self._space,
                    kernel.program,
                    kernel.descriptor,
                    Pointers(arguments.base, packet.base),
                    kernel.locate,
                ),
                dispatch,
                Limits(self._deadline_s, self._max_steps),
                recorder,
                watch,
                self._schedule,
                self._workers,
            )
        finally:
            self.findings = tuple(watch.found.values()) if watch else ()
            self._notes = kernel, tuple(each for each in self.findings if each.note)
            self._space.on_stray = None
            self._space.unmap(arguments)
            self._space.unmap(packet)
        if recorder is not None:
            self.trace = recorder.trace()

    def _watch(self, kernel: EmulatedKernel) -> Watch:
        regions = {buffer.address: buffer.size_bytes for buffer in self._meaningless}
        content = Content(regions) if regions else None
        return Watch(kernel.locate, self._strict_hazards, self._gather_hazards, content)

    def _place(self, data: bytes) -> Region:
        return self._space.map(np.frombuffer(data.ljust(-(-max(len(data), 1) // 16) * 16, b"\0"), np.uint8), False)

    def _own(self, buffer: Buffer) -> npt.NDArray[np.uint8]:
        if not isinstance(buffer, EmulatedBuffer) or buffer.space is not self._space:
            raise DeviceError("the buffer belongs to another device: allocate it here")
        return buffer.data
