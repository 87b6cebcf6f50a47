"""The state of the waves in flight: registers, masks, program counters, LDS and scratch, side by side in arrays.

All waves of a batch of workgroups live in the same arrays, so one numpy operation executes an instruction for every
wave that is at it. Wave `i` of workgroup `g` of the batch is column `i * workgroups + g`: the waves of one role in
every workgroup are neighbours, so a group of them is a slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hktune.emulator.machine.memory import AddressError, AddressSpace, Array, Block

LANES = 64
AGPR = 256
"""Number of the first accumulation register in `registers`; architectural ones come before it."""
TEMPORARY = 512
"""First of three registers that no program names, for values on their way between lanes or parts of a register."""
VCC, M0, EXEC = 106, 124, 126
VSKIP, GPR_INDEX = 1, 2
"""Bits of `modes`: vector instructions are skipped; vector registers are indexed through M0."""
FLOAT_MODE_SHIFT = 20
"""From this bit of `modes` on: 1 more than the float part of MODE; 0 where it is what the kernel began with."""
_INDEX_OF_M0 = np.uint32(0xF0FF)

_UNSET = 0xFFF5FFF5
"""What registers and LDS hold before anything is written: a NaN as float32, as two bf16 and as two float16."""

Lanes = slice | npt.NDArray[np.int64]
"""Which waves (columns) an operation is for."""


class Placed(Protocol):
    """An instruction as a report names it: in words, and by its address."""

    @property
    def address(self) -> int: ...


class AccessNotes(Protocol):
    """Hears where the memory steps of the group being executed access LDS and global memory."""

    def lds(self, address: Array, active: Array, size: int, writes: bool) -> None: ...

    def lds_pair(self, addresses: tuple[Array, Array], active: Array, size: int, writes: bool) -> None: ...

    def lines(self, address: Array, active: Array, size: int) -> None: ...


class AccessCheck(Protocol):
    """Judges the accesses of the group being executed. Raises KernelFault."""

    def lds(self, group: Lanes, address: Array, size: int, words: Array | None = None) -> None: ...

    def memory(self, where: Array, active: Array | None, size: int, words: Array | None = None) -> None: ...


@dataclass
class Access:
    """The memory access being made, for the report if it goes astray: `chosen` masks its (waves, lanes) positions,
    None meaning all; a scalar access has one lane."""

    instruction: Placed | None
    chosen: Array | None
    lanes: int = LANES


class Waves:
    """State of `workgroups` x `waves_per_workgroup` waves. `active` (waves, 64) mirrors EXEC as booleans, `full` says
    whether every lane of the group being executed is active, `unusual` whether any wave has a mode set."""

    def __init__(
        self, space: AddressSpace, workgroups: int, waves_per_workgroup: int, lds_bytes: int, scratch_bytes: int
    ) -> None:
        count = workgroups * waves_per_workgroup
        self.space = space
        self.workgroups = workgroups
        self.count = count
        self.registers = np.full((TEMPORARY + 3, count, LANES), _UNSET, np.uint32)
        self.scalars = np.zeros((128, count), np.uint32)
        self.scc = np.zeros(count, bool)
        self.active = np.ones((count, LANES), bool)
        self.full = True
        self.pc = np.zeros(count, np.int64)
        self.done = np.zeros(count, bool)
        self.waiting = np.zeros(count, bool)
        self.halted = np.zeros(count, bool)
        self.modes = np.zeros(count, np.int64)
        self.unusual = False
        self.float_register = 0
        self.readings = 0  # of clocks
        self.first_workgroup = 0
        self.access = Access(None, None)
        self.lds_bytes = lds_bytes
        self.lds_base = (np.arange(count, dtype=np.int64) % workgroups)[:, None] * _align16(lds_bytes)
        self.lds = Block(np.full(workgroups * _align16(lds_bytes) // 4, _UNSET, np.uint32).view(np.uint8))
        self.scratch_bytes = scratch_bytes
        self.scratch = Block(np.zeros(count * LANES * _align16(scratch_bytes), np.uint8))
        lanes = np.arange(count * LANES, dtype=np.int64).reshape(count, LANES)
        self.scratch_base = lanes * _align16(scratch_bytes)
        self.recorder: AccessNotes | None = None
        self.hazards: AccessCheck | None = None

    def set_exec(self, waves: Lanes, mask: Array) -> None:
        """EXEC of `waves` from booleans (n, 64)."""
        self.scalars[EXEC : EXEC + 2, waves] = pack(mask)
        self.refresh_exec(waves)

    def refresh_exec(self, waves: Lanes) -> None:
        """Follow a write to EXEC by the group being executed."""
        self.active[waves] = unpack(self.scalars[EXEC : EXEC + 2, waves])
        self.full = bool(self.active[waves].all())

    def mode_of(self, waves: Lanes) -> npt.NDArray[np.int64]:
        """What changes vector instructions of each wave, as one number: 0 for none, with the index where it counts."""
        modes = self.modes[waves]
        index = (self.scalars[M0, waves] & _INDEX_OF_M0).astype(np.int64) << GPR_INDEX.bit_length()
        return np.where(modes & GPR_INDEX, modes | index, modes)

    def write(self, register: int, waves: Lanes, value: Array) -> None:
        """Store 32-bit `value`, broadcastable to (n, 64), into the active lanes of one vector register."""
        if self.full:
            self.registers[register, waves] = value
        elif isinstance(waves, slice):
            np.copyto(self.registers[register, waves], value, where=self.active[waves])
        else:
            kept = self.registers[register, waves]
            self.registers[register, waves] = np.where(self.active[waves], value, kept)

    def deliver(self, register: int, waves: Lanes, words: Array) -> None:
        """Loaded words (n, 64, dwords) into consecutive registers of the active lanes."""
        count = words.shape[-1]
        if self.full:
            self.registers[register : register + count, waves] = words.transpose(2, 0, 1)
            return
        for i in range(count):
            self.write(register + i, waves, words[..., i])

    def check_scratch(self, index: Array, size: int, waves: Lanes) -> None:
        """Raises AddressError when an active lane's private access leaves its own bytes."""
        own = index - self.scratch_base[waves]
        outside = self.active[waves] & ((own < 0) | (own + size > self.scratch_bytes))
        if outside.any():
            position = int(np.flatnonzero(outside)[0])
            raise AddressError(
                position, int(own.reshape(-1)[position]), f"is not in {self.scratch_bytes} private bytes"
            )


def pack(mask: Array) -> npt.NDArray[np.uint32]:
    """Booleans (n, 64) as two rows of 32-bit words (2, n): a lane mask in a pair of scalar registers."""
    return np.packbits(mask, axis=1, bitorder="little").view(np.uint32).T


def unpack(words: Array) -> npt.NDArray[np.bool_]:
    """The reverse of pack."""
    octets = np.ascontiguousarray(words.T).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").view(bool)


def _align16(size: int) -> int:
    return -(-size // 16) * 16
