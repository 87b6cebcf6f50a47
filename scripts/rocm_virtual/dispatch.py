"""Kernels of the virtual GPU, on hktune's emulator. model.c imports this with the first of them."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import traceback
from ctypes import POINTER, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass, field

import numpy as np

from hktune.core.errors import KernelFault
from hktune.emulator.execution import Limits, Machine, run_dispatch
from hktune.emulator.hazards.checker import Watch
from hktune.emulator.instructions.program import Program
from hktune.emulator.machine.memory import AddressSpace, Region
from hktune.emulator.machine.wave_start import Descriptor, Dispatch, Pointers, entry_address

_DEADLINE_S = float(os.environ.get("HKTUNE_ROCM_VIRTUAL_DEADLINE_S", "300"))
_PACKET = struct.Struct("<HHHHHHIIIIIQQQQ")  # hsa_kernel_dispatch_packet_t
_DESCRIPTOR_BYTES, _ENTRY_OFFSET = 64, 16
_DISPATCHER = ctypes.CFUNCTYPE(c_int, c_uint64)


class _Allocation(ctypes.Structure):
    """`struct region` of model.c."""

    _fields_ = (("address", c_uint64), ("size_bytes", c_uint64), ("serial", c_uint64), ("writable", c_uint64))


class Model:
    """What is used of model.c's library: where memory is, and who runs kernels."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        library.model_aperture.restype = c_void_p
        library.model_regions.argtypes, library.model_regions.restype = (POINTER(_Allocation), c_size_t), c_size_t
        library.model_set_dispatcher.argtypes = (_DISPATCHER,)
        self._library = library

    @property
    def base(self) -> int:
        """Where the GPU's address 0 is in this process, once ROCr has begun."""
        base: int = self._library.model_aperture()
        return base

    def allocations(self) -> list[_Allocation]:
        """All that is allocated now."""
        room = 0
        while True:
            found = (_Allocation * room)()
            count = self._library.model_regions(found, room)
            if count <= room:
                return found[:count]
            room = count

    def serve(self, dispatcher: ctypes._CFuncPtr) -> None:
        self._library.model_set_dispatcher(dispatcher)


@dataclass
class Emulator:
    """Runs the dispatches of the queues, one at a time. With `watch`, each is run for its hazards first: `hazards` has
    them, the watch its notes."""

    model: Model
    watch: Watch | None = None
    hazards: list[str] = field(default_factory=list)
    space: AddressSpace = field(default_factory=AddressSpace)
    _regions: dict[int, Region] = field(default_factory=dict)
    _programs: dict[tuple[int, bytes], Program] = field(default_factory=dict)

    def run(self, packet: int) -> int:
        """Run the kernel of the packet at an address; 0, or 1 when it did not end well, which a line on stderr says."""
        try:
            self._refresh()
            if self.watch is not None:
                self._look(packet, self.watch)
            self._dispatch(packet)
        except KernelFault as fault:
            print(f"virtual GPU: {fault.status}: {fault.detail}", file=sys.stderr, flush=True)
            return 1
        except BaseException:  # nothing may leave a callback
            traceback.print_exc()
            return 1
        return 0

    def _look(self, packet: int, watch: Watch) -> None:
        try:
            self._dispatch(packet, watch)
        except KernelFault as fault:
            self.hazards.append(f"{fault.status}: {fault.detail}")

    def _dispatch(self, packet: int, watch: Watch | None = None) -> None:
        fields = _PACKET.unpack(self._bytes(packet, _PACKET.size))
        block, items = fields[2:5], fields[6:9]
        private_bytes, group_bytes, kernel, arguments = fields[9:13]
        if any(count % size for count, size in zip(items, block, strict=True)):
            raise KernelFault("crashed", f"a grid of {items} work-items is not whole workgroups of {block}")
        grid = tuple(count // size for count, size in zip(items, block, strict=True))
        data = self._bytes(kernel, _DESCRIPTOR_BYTES)
        descriptor = Descriptor.read(data)
        descriptor.check(f"the kernel at {kernel:#x}")
        program = self._program(kernel, data, descriptor)

        def locate(address: int) -> str:
            return f" [kernel+{address - program.entry:#x}]"

        machine = Machine(self.space, program, descriptor, Pointers(arguments, packet), locate)
        run_dispatch(machine, Dispatch(grid, block, group_bytes, private_bytes), Limits(_DEADLINE_S), watch=watch)

    def _program(self, kernel: int, data: bytes, descriptor: Descriptor) -> Program:
        """The code of the descriptor `data` at `kernel`, decoded once for as long as its memory stays allocated."""
        key = kernel, data
        if key not in self._programs:
            (offset,) = struct.unpack_from("<q", data, _ENTRY_OFFSET)
            entry = entry_address(descriptor, kernel + offset)
            self._programs[key] = Program(self.space, entry, descriptor.float_mode)
        return self._programs[key]

    def _refresh(self) -> None:
        """Make the address space what is allocated now. Code may have gone with memory."""
        found = {each.serial: each for each in self.model.allocations()}
        gone = [serial for serial in self._regions if serial not in found]
        for serial in gone:
            self.space.unmap(self._regions.pop(serial))
        if gone:
            self._programs = {key: each for key, each in self._programs.items() if self.space.region_of(key[0])}
        for serial, each in found.items():
            if serial not in self._regions:
                memory = (ctypes.c_uint8 * each.size_bytes).from_address(self.model.base + each.address)
                data = np.frombuffer(memory, np.uint8)
                self._regions[serial] = self.space.place(data, each.address, bool(each.writable))

    def _bytes(self, address: int, count: int) -> bytes:
        region = self.space.region_of(address)
        if region is None or address + count > region.end:
            raise KernelFault("crashed", f"address {address:#x} is in no allocation")
        return region.block.data[address - region.base :][:count].tobytes()


emulator = Emulator(Model(os.environ["HSA_MODEL_LIB"]))
_dispatcher = _DISPATCHER(emulator.run)
emulator.model.serve(_dispatcher)
