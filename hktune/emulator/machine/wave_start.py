"""What a wave finds when it starts: kernel arguments, scalar and vector registers, as the kernel's descriptor asks.

Sources: LLVM's AMDGPUUsage, sections "Kernel Descriptor", "Initial Kernel Execution State" and "Code Object V5
Metadata" (hidden arguments), and the HSA system architecture's kernel dispatch packet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from hktune.core.errors import KernelFault
from hktune.emulator.machine.float_mode import FloatMode
from hktune.emulator.machine.memory import AddressError, Array
from hktune.emulator.machine.waves import LANES, Waves
from hktune.objects.code_object import KernelImage

_PACKET_BYTES = 64
_USER_SGPRS_MAX = 16  # AMDGPUUsage, "Initial Kernel Execution State"
_PRELOAD_PROLOGUE_BYTES = 256


@dataclass(frozen=True)
class Descriptor:
    """The fields of a 64-byte kernel descriptor that decide the initial state."""

    user_sgprs: int
    workgroup_ids: tuple[bool, bool, bool]
    workgroup_info: bool
    work_item_ids: int
    properties: int
    preload_dwords: int
    preload_offset_dwords: int
    float_mode: FloatMode
    splits_workgroups: bool

    @classmethod
    def read(cls, data: bytes) -> Descriptor:
        rsrc3, rsrc1, rsrc2 = struct.unpack_from("<III", data, 44)
        properties, preload = struct.unpack_from("<HH", data, 56)
        return cls(
            user_sgprs=rsrc2 >> 1 & 31,
            workgroup_ids=(bool(rsrc2 >> 7 & 1), bool(rsrc2 >> 8 & 1), bool(rsrc2 >> 9 & 1)),
            workgroup_info=bool(rsrc2 >> 10 & 1),
            work_item_ids=rsrc2 >> 11 & 3,
            properties=properties,
            preload_dwords=preload & 0x7F,
            preload_offset_dwords=preload >> 7,
            float_mode=FloatMode.read(rsrc1),
            splits_workgroups=bool(rsrc3 >> 16 & 1),
        )

    def check(self, symbol: str) -> None:
        """Raises KernelFault when the kernel wants a mode of the hardware that is not emulated."""
        if self.splits_workgroups:
            raise KernelFault("crashed", f"{symbol} splits its workgroups over CUs (tg_split), which is not emulated")


@dataclass(frozen=True)
class Dispatch:
    """One launch: grid in workgroups, block in work-items, LDS of a workgroup, private bytes of a work-item."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    lds_bytes: int
    scratch_bytes: int

    @property
    def waves_per_workgroup(self) -> int:
        return -(-self.block[0] * self.block[1] * self.block[2] // LANES)

    @property
    def workgroups(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def work_items(self) -> tuple[int, int, int]:
        """The grid in work-items."""
        (x, y, z), (width, height, depth) = self.grid, self.block
        return x * width, y * height, z * depth

    def workgroup(self, index: int) -> tuple[int, int, int]:
        """Coordinates of the workgroup with linear number `index`: x runs fastest."""
        return index % self.grid[0], index // self.grid[0] % self.grid[1], index // (self.grid[0] * self.grid[1])


@dataclass(frozen=True)
class Pointers:
    """Where a launch's kernel arguments and dispatch packet are."""

    arguments: int
    packet: int


def argument_bytes(image: KernelImage, explicit: bytes, dispatch: Dispatch, dynamic_lds_bytes: int) -> bytes:
    """The kernarg segment: `explicit` as given, hidden arguments filled in for this launch."""
    data = bytearray(max(image.kernarg_bytes, len(explicit)))
    data[: len(explicit)] = explicit
    values = {"hidden_dynamic_lds_size": dynamic_lds_bytes, "hidden_grid_dims": _dimensions(dispatch)}
    for axis, count, size in zip("xyz", dispatch.grid, dispatch.block, strict=True):
        values[f"hidden_block_count_{axis}"] = count
        values[f"hidden_group_size_{axis}"] = size
    for slot in image.arguments:
        if slot.hidden:
            end = slot.offset_bytes + slot.size_bytes
            data[slot.offset_bytes : end] = values.get(slot.value_kind, 0).to_bytes(slot.size_bytes, "little")
    return bytes(data)


def _dimensions(dispatch: Dispatch) -> int:
    sizes = dispatch.work_items
    return 3 if sizes[2] > 1 else 2 if sizes[1] > 1 else 1


def dispatch_packet(dispatch: Dispatch, arguments: int) -> bytes:
    """The packet a queue would hold for this launch; kernels read their sizes from it."""
    head = struct.pack("<HHHHHH", 2, 3, *dispatch.block, 0)
    body = struct.pack("<IIIII", *dispatch.work_items, dispatch.scratch_bytes, dispatch.lds_bytes)
    return (head + body + struct.pack("<QQ", 0, arguments)).ljust(_PACKET_BYTES, b"\0")


def entry_address(descriptor: Descriptor, address: int) -> int:
    """Kernels that preload arguments begin with a prologue for firmware that does not; this one does."""
    return address + (_PRELOAD_PROLOGUE_BYTES if descriptor.preload_dwords else 0)


def start(m: Waves, descriptor: Descriptor, dispatch: Dispatch, pointers: Pointers, first: int) -> None:
    """Set the registers of a batch that begins at linear workgroup `first`."""
    m.first_workgroup, m.float_register = first, descriptor.float_mode.register
    at = _user_registers(m, descriptor, pointers)
    columns = np.arange(m.count)
    coordinates = np.array([dispatch.workgroup(first + i) for i in range(m.workgroups)], np.uint32)
    for axis, enabled in enumerate(descriptor.workgroup_ids):
        if enabled:
            m.scalars[at] = coordinates[columns % m.workgroups, axis]
            at += 1
    if descriptor.workgroup_info:
        m.scalars[at] = dispatch.waves_per_workgroup
    item = (columns // m.workgroups)[:, None] * LANES + np.arange(LANES)
    m.registers[0] = _packed_item(item, dispatch.block, descriptor.work_item_ids)
    m.set_exec(slice(0, m.count), item < dispatch.block[0] * dispatch.block[1] * dispatch.block[2])


def _packed_item(item: Array, block: tuple[int, int, int], extra_axes: int) -> Array:
    """Work-item coordinates in one register: x in bits 9:0, y from bit 10, z from bit 20, as far as asked for."""
    packed = item % block[0]
    if extra_axes >= 1:
        packed = packed | item // block[0] % block[1] << 10
    if extra_axes >= 2:
        packed = packed | item // (block[0] * block[1]) << 20
    return packed.astype(np.uint32)


def _user_registers(m: Waves, descriptor: Descriptor, pointers: Pointers) -> int:
    """Fill the user SGPRs in their fixed order; returns the first register after them."""
    values = (
        (0, 4, 0),
        (1, 2, pointers.packet),
        (2, 2, 0),
        (3, 2, pointers.arguments),
        (4, 2, 0),
        (5, 2, 0),
        (6, 1, 0),
    )
    at = 0
    for bit, count, value in values:
        if descriptor.properties >> bit & 1:
            for i in range(count):
                m.scalars[at + i] = np.uint32(value >> (32 * i) & 0xFFFFFFFF)
            at += count
    if descriptor.preload_dwords:
        _preload(m, descriptor, pointers, at)
    return descriptor.user_sgprs


def _preload(m: Waves, descriptor: Descriptor, pointers: Pointers, at: int) -> None:
    """Kernel arguments into the user SGPRs from `at` on. Raises KernelFault for more than there are of either."""
    count = descriptor.preload_dwords
    if at + count > _USER_SGPRS_MAX:
        raise KernelFault("crashed", f"preloads {count} dwords after {at} user SGPRs: there are {_USER_SGPRS_MAX}")
    address = np.array([pointers.arguments + 4 * descriptor.preload_offset_dwords])
    try:
        m.scalars[at : at + count] = m.space.gather(address, 4 * count).T
    except AddressError:
        raise KernelFault("crashed", f"preloads {count} dwords that lie outside of its arguments") from None
