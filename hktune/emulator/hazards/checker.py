"""Finds what no single run shows: accesses that only luck of timing makes right.

Beside the values, which the machine computes as if every load returned at once, runs a record of what is certain:
which registers hold what was asked for (track.py), which operations of other waves are known to be over (order.py,
lds_shadow.py, memory_shadow.py), how many wait states have passed (wait_states.py). Whatever goes by less than
certainty is a KernelFault "hazard", whether or not this run's values came out right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from hktune.core.errors import KernelFault
from hktune.emulator.hazards.footprint import BARRIER, DS, END, FLAT, SCALAR, VMEM, WAIT, WRITE_BACK, Footprint
from hktune.emulator.hazards.lds_shadow import ATOMIC, LOAD_TO_LDS, READ, WRITE, LdsShadow, Race
from hktune.emulator.hazards.memory_shadow import LOAD, STORE, MemoryRace, MemoryShadow
from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR, Order
from hktune.emulator.hazards.track import Track, Unsafe
from hktune.emulator.machine.memory import AddressSpace, Array
from hktune.emulator.machine.wave_start import Descriptor, Dispatch
from hktune.emulator.machine.waves import Lanes, Waves

Locate = Callable[[int], str]
"""Where in the kernel an instruction's address is, in words."""


@dataclass
class Watch:
    """How a launch is looked at. `strict`: what is wrong by the book only is a hazard too, not a note. `notes`: one
    line for each instruction and kind of objection."""

    locate: Locate = lambda _address: ""
    strict: bool = False
    notes: dict[tuple[int, str], str] = field(default_factory=dict)


_REMEMBERED_OPERATIONS = 1 << 15
_FLAT_SCRATCH = range(102, 106)  # flat_scratch and xnack_mask, which the hardware sets up


def written_at_start(descriptor: Descriptor) -> set[int]:
    """Registers that hold something when a wave starts: user and system SGPRs, and the work-item ids in v0."""
    count = descriptor.user_sgprs + sum(descriptor.workgroup_ids) + descriptor.workgroup_info
    return {0} | {SCALAR + register for register in (*range(count), *_FLAT_SCRATCH)}


class Hazards:
    """The record of one batch of workgroups. `enter` says which waves execute next, `issue` what; the memory steps
    then say where."""

    def __init__(
        self, m: Waves, dispatch: Dispatch, first: int, descriptor: Descriptor, memory: MemoryShadow, watch: Watch
    ) -> None:
        waves = dispatch.waves_per_workgroup
        self._m, self._dispatch, self._first, self._watch = m, dispatch, first, watch
        self.order = Order(m.workgroups, waves)
        self._lds = LdsShadow(m.workgroups, waves, m.lds_bytes, self.order)
        self._memory = memory
        self._batch = (self.order, m.workgroups, first)
        self._tracks = [Track(written_at_start(descriptor), watch.strict)] * m.count
        self._groups: dict[bytes, list[tuple[Track, Array]]] = {}
        self._here: list[tuple[Track, Array]] = []
        self._columns: Array = np.zeros(0, np.int64)
        self._current: Footprint | None = None
        self._log: deque[tuple[int, Footprint, Array, Array]] = deque(maxlen=_REMEMBERED_OPERATIONS)

    def enter(self, columns: Array) -> None:
        """The group that executes from now on."""
        self._columns = columns
        key = columns.tobytes()
        here = self._groups.get(key)
        if here is None or (len(here) > 1 and all(track.settled for track, _ in here)):
            here = self._groups[key] = self._gathered(columns)
        self._here = here

    def _gathered(self, columns: Array) -> list[tuple[Track, Array]]:
        """The group's tracks, each with its waves: those that part from their track get one of their own, and settled
        tracks that are alike become one."""
        members: dict[int, list[int]] = {}
        for column in columns.tolist():
            members.setdefault(id(self._tracks[column]), []).append(column)
        parts: list[tuple[Track, list[int]]] = []
        for own in members.values():
            track = self._tracks[own[0]]
            if sum(each is track for each in self._tracks) > len(own):
                track = track.copy()
            like = next((part for part in parts if track.settled and part[0].settled and _alike(part[0], track)), None)
            if like is not None:
                like[1].extend(own)
            else:
                parts.append((track, own))
        self._groups.clear()
        for track, own in parts:
            for column in own:
                self._tracks[column] = track
        return [(track, np.array(own)) for track, own in parts]

    def issue(self, footprint: Footprint, group: Lanes) -> None:
        """The group executes an instruction. Raises KernelFault."""
        self._current = footprint
        for track, columns in self._here:
            self._advance(track, footprint, int(columns[0]))
        kind = footprint.kind
        if kind == WAIT:
            self._complete(footprint)
        elif kind == BARRIER:
            self.order.arrive(group)
        elif kind == END:
            self.order.end(group)
        elif kind in (DS, VMEM, FLAT):
            if kind != VMEM:
                self._send(ON_LDS, footprint, group)
            if kind != DS:
                self._send(ON_VECTOR, footprint, group)
        elif footprint.device_cache is not None:
            self._exchange(footprint)

    def _exchange(self, footprint: Footprint) -> None:
        """The group's L2 is written back, or its caches dropped, for the whole device."""
        issued, completed = (
            each[ON_VECTOR, self._columns].tolist() for each in (self.order.issued, self.order.completed)
        )
        for wave, sent, done in zip(
            self._memory.waves(self._batch, self._columns).tolist(), issued, completed, strict=True
        ):
            if footprint.device_cache == WRITE_BACK:
                self._memory.exchange.write_back(wave, sent)
            else:
                self._memory.exchange.invalidate(wave, done)

    def _advance(self, track: Track, footprint: Footprint, column: int) -> None:
        try:
            track.issue(footprint)
        except Unsafe as unsafe:
            self._fail(column, str(unsafe))
        if track.notes:
            instruction = footprint.instruction
            for what in track.notes:
                note = f"{instruction}{self._watch.locate(instruction.address)}, {self._name(column)}: {what}"
                self._watch.notes.setdefault((instruction.address, what.partition(" ")[0]), note)
            track.notes.clear()

    def _send(self, queue: int, footprint: Footprint, group: Lanes) -> None:
        self.order.issued[queue, group] += 1
        self._log.append((queue, footprint, self._columns, self.order.issued[queue, group].copy()))

    def _complete(self, footprint: Footprint) -> None:
        for track, columns in self._here:
            waits = ((ON_VECTOR, footprint.vmcnt, track.vector), (ON_LDS, footprint.lgkmcnt, track.lds))
            for queue, count, left in waits:
                if count is not None and not any(each.footprint.kind == FLAT for each in left):
                    self.order.complete(queue, columns, len(left))

    def lds(self, group: Lanes, address: Array, size: int) -> None:
        """The instruction accesses LDS at byte addresses (n, 64) of the group's waves. Raises KernelFault."""
        m, footprint = self._m, self._current
        assert footprint is not None
        active = None if m.full else m.active[group]
        self._check_place(address, active, size)
        how = _lds_access(footprint)
        race = self._lds.access(self._columns, address + m.lds_base[group], active, size, how)
        if race is not None:
            self._report(race, how)

    def _check_place(self, address: Array, active: Array | None, size: int) -> None:
        outside = address + size > self._m.lds_bytes
        unit = 16 if size > 8 else size
        crooked = (address & (unit - 1)) != 0
        for wrong, rule in (
            (outside, f"which runs past the workgroup's {self._m.lds_bytes} bytes"),
            (crooked, f"which is not aligned to the {unit} bytes that the access needs"),
        ):
            wrong = wrong if active is None else wrong & active
            if wrong.any():
                at = int(np.flatnonzero(wrong)[0])
                row, lane = divmod(at, address.shape[1])
                what = f"lane {lane} accesses LDS address {int(address.reshape(-1)[at])}, {rule}"
                self._fail(int(self._columns[row]), what)

    def memory(self, where: Array, active: Array | None, size: int) -> None:
        """The instruction accesses global memory at (n, 64) addresses. Raises KernelFault."""
        footprint = self._current
        assert footprint is not None
        if footprint.atomic:
            self._memory.atomic(self._batch, self._columns, where, active)
            return
        how = STORE if "store" in footprint.instruction.mnemonic else LOAD
        race = self._memory.access(self._batch, self._columns, where, active, size, how)
        if race is not None:
            self._report_memory(race, "stores to" if how == STORE else "loads from")

    def _report(self, race: Race, how: int) -> NoReturn:
        column = int(self._columns[race.row])
        act = {READ: "reads", WRITE: "writes", ATOMIC: "updates", LOAD_TO_LDS: "loads to"}[how]
        place = f"{act} LDS address {race.address}"
        if race.wave is None:
            self._fail(column, f"{place}, which nothing has written")
        m = self._m
        other = race.wave * m.workgroups + column % m.workgroups
        by = self._operation(race.queue, other, race.sequence)
        counter = "vmcnt" if race.queue == ON_VECTOR else "lgkmcnt"
        if other == column:
            remedy = f"this wave must wait for it with s_waitcnt {counter}"
        elif self.order.completed[race.queue, other] >= race.sequence:
            remedy = "no s_barrier lies between its completion and this"
        else:
            remedy = f"wave {race.wave} must wait for it with s_waitcnt {counter}, then both pass an s_barrier"
        self._fail(column, f"{place}, which {by} of wave {race.wave} {race.before}, maybe only later: {remedy}")

    def _report_memory(self, race: MemoryRace, act: str) -> NoReturn:
        waves = self._dispatch.waves_per_workgroup
        column = int(self._columns[race.row])
        what = f"{act} {race.address:#x}, which"
        if race.wave is None:
            self._fail(column, f"{what} several waves {race.before} with nothing to order them")
        group, wave = divmod(race.wave, waves)
        who = f"wave {wave} of workgroup {self._dispatch.workgroup(group)}"
        same = group == self._first + column % self._m.workgroups
        remedy = "it must wait, then both pass an s_barrier" if same else "workgroups run in any order"
        self._fail(column, f"{what} {who} {race.before}: {remedy}")

    def _operation(self, queue: int, column: int, sequence: int) -> str:
        for kind, footprint, columns, sequences in reversed(self._log):
            if kind == queue and (sequences[columns == column] == sequence).any():
                return f"{footprint.instruction}"
        return "an earlier instruction"

    def _fail(self, column: int, what: str) -> NoReturn:
        assert self._current is not None
        instruction = self._current.instruction
        place = self._watch.locate(instruction.address)
        raise KernelFault("hazard", f"{instruction}{place}, {self._name(column)}: {what}")

    def _name(self, column: int) -> str:
        workgroup = self._dispatch.workgroup(self._first + column % self._m.workgroups)
        return f"wave {column // self._m.workgroups} of workgroup {workgroup}"


def _alike(one: Track, other: Track) -> bool:
    return one.written == other.written


def _lds_access(footprint: Footprint) -> int:
    if footprint.to_lds:
        return LOAD_TO_LDS
    if footprint.atomic:
        return ATOMIC
    return WRITE if footprint.instruction.mnemonic.startswith("ds_write") else READ


def shadow_of(space: AddressSpace, dispatch: Dispatch) -> MemoryShadow:
    """The record of global memory that all batches of a dispatch share."""
    return MemoryShadow(space, dispatch.waves_per_workgroup)
