"""Finds what no single run shows: accesses that only luck of timing makes right.

Beside the values, which the machine computes as if every load returned at once, runs a record of what is certain:
which registers hold what was asked for (track.py), which operations of other waves are known to be over (order.py,
lds_shadow.py, memory_shadow.py), how many wait states have passed (wait_states.py). Whatever goes by less than
certainty is a Finding (finding.py), whether or not this run's values came out right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.emulator.hazards.finding import Watch
from hktune.emulator.hazards.footprint import BARRIER, DS, END, FLAT, SCALAR, VMEM, WRITE_BACK, Footprint
from hktune.emulator.hazards.journal import Operation, Places
from hktune.emulator.hazards.lds_shadow import ATOMIC, LOAD_TO_LDS, READ, WRITE, LdsShadow
from hktune.emulator.hazards.memory_shadow import LOAD, STORE, MemoryShadow
from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR, Order
from hktune.emulator.hazards.reporter import Reporter
from hktune.emulator.hazards.states import Event, State, states_of
from hktune.emulator.hazards.written_values import WrittenValues
from hktune.emulator.instructions.program import Block
from hktune.emulator.machine.memory import AddressError, AddressSpace, Array, Words
from hktune.emulator.machine.wave_start import Descriptor, Dispatch
from hktune.emulator.machine.waves import Lanes, Waves

_FLAT_SCRATCH = range(102, 106)  # flat_scratch and xnack_mask, which the hardware sets up


def written_at_start(descriptor: Descriptor) -> frozenset[int]:
    """Registers that hold something when a wave starts: user and system SGPRs, and the work-item ids in v0."""
    count = descriptor.user_sgprs + sum(descriptor.workgroup_ids) + descriptor.workgroup_info
    return frozenset({0} | {SCALAR + register for register in (*range(count), *_FLAT_SCRATCH)})


@dataclass(eq=False)
class _Company:
    """Waves that have executed the same instructions."""

    state: State


class Hazards:
    """The record of one batch of workgroups, whose waves begin with block `entry`. `enter` says which waves execute
    next, `begin` which block, `issue` which instruction; the memory steps then say where."""

    def __init__(
        self,
        m: Waves,
        dispatch: Dispatch,
        first: int,
        descriptor: Descriptor,
        memory: MemoryShadow,
        watch: Watch,
        entry: Block,
    ) -> None:
        waves = dispatch.waves_per_workgroup
        self._m, self._watch, self._journal, self._gathers = m, watch, watch.journal, watch.gather
        self.order = Order(m.workgroups, waves)
        self._lds = LdsShadow(m.workgroups, waves, m.lds_bytes, self.order)
        self._memory = memory
        self._batch = (self.order, m.workgroups, first)
        self._reporter = Reporter(m, dispatch, first, self.order, watch)
        self._states = states_of(entry, written_at_start(descriptor))
        self._companies = [_Company(self._states.first)] * m.count
        self._groups: dict[bytes, list[tuple[_Company, Array]]] = {}
        self._numbers: dict[bytes, Array] = {}
        self._here: list[tuple[_Company, Array]] = []
        self._events: list[tuple[tuple[Event | None, ...], Array]] = []
        self._columns: Array = np.zeros(0, np.int64)
        self._waves: Array = np.zeros(0, np.int64)
        self._current: Footprint | None = None

    def enter(self, columns: Array) -> None:
        """The group that executes from now on."""
        self._columns = columns
        key = columns.tobytes()
        here = self._groups.get(key)
        if here is None or (len(here) > 1 and all(company.state.settled for company, _ in here)):
            here = self._groups[key] = self._gathered(columns)
        self._here = here
        numbers = self._numbers.get(key)
        if numbers is None:
            numbers = self._numbers[key] = self._memory.waves(self._batch, columns)
        self._waves = numbers

    def _gathered(self, columns: Array) -> list[tuple[_Company, Array]]:
        """The group's companies, each with its waves: those that part from theirs get one of their own, and settled
        ones that are alike become one."""
        members: dict[int, list[int]] = {}
        for column in columns.tolist():
            members.setdefault(id(self._companies[column]), []).append(column)
        parts: list[tuple[_Company, list[int]]] = []
        for own in members.values():
            company = self._companies[own[0]]
            if sum(each is company for each in self._companies) > len(own):
                company = _Company(company.state)
            state = company.state
            like = next((p for p in parts if state.settled and p[0].state.settled and p[0].state.like(state)), None)
            if like is not None:
                like[1].extend(own)
            else:
                parts.append((company, own))
        self._groups.clear()
        for company, own in parts:
            for column in own:
                self._companies[column] = company
        return [(company, np.array(own)) for company, own in parts]

    def begin(self, block: Block) -> None:
        """The group executes a block, instruction by instruction."""
        self._events = []
        for company, columns in self._here:
            passage = self._states.passage(company.state, block)
            company.state = passage.after
            self._events.append((passage.events, columns))

    def issue(self, number: int, footprint: Footprint, group: Lanes) -> None:
        """It executes instruction `number` of the block. Raises KernelFault."""
        self._current = footprint
        if self._gathers:
            self._reporter.executed(footprint, self._columns, group)
        for events, columns in self._events:
            event = events[number]
            if event is not None:
                self._happened(event, footprint, columns)
        kind = footprint.kind
        if kind == BARRIER:
            self.order.arrive(group)
        elif kind == END:
            self.order.end(group)
        elif kind in (DS, VMEM, FLAT):
            places: Places = []
            if kind != VMEM:
                self._send(ON_LDS, footprint, group, places)
            if kind != DS:
                self._send(ON_VECTOR, footprint, group, places)
        elif footprint.device_cache is not None:
            self._exchange(footprint)

    def _exchange(self, footprint: Footprint) -> None:
        """The group's L2 is written back, or its caches dropped, for the whole device."""
        issued, completed = (
            each[ON_VECTOR, self._columns].tolist() for each in (self.order.issued, self.order.completed)
        )
        for wave, sent, done in zip(self._waves.tolist(), issued, completed, strict=True):
            if footprint.device_cache == WRITE_BACK:
                self._memory.exchange.write_back(wave, sent)
            else:
                self._memory.exchange.invalidate(wave, done)

    def _send(self, queue: int, footprint: Footprint, group: Lanes, places: Places) -> None:
        self.order.issued[queue, group] += 1
        sequences = self.order.issued[queue, group].copy()
        iterations = self._reporter.iterations(footprint, group) if self._gathers else None
        self._journal.note(Operation(queue, footprint, self._waves, sequences, iterations, places))

    def _happened(self, event: Event, footprint: Footprint, columns: Array) -> None:
        if event.objections:
            self._reporter.objections(event, footprint, int(columns[0]))
        for queue, left in event.completed:
            self.order.complete(queue, columns, left)

    def lds(self, group: Lanes, address: Array, size: int, words: Words | None = None) -> None:
        """The instruction accesses LDS at byte addresses (n, 64) of the group's waves, to write `words` if it is not an
        atomic. Raises KernelFault."""
        m, footprint = self._m, self._current
        assert footprint is not None
        active = None if m.full else m.active[group]
        if self._gathers:
            self._journal.place(address, active, size)
        inside = self._reporter.misplaced(footprint, self._columns, address, active, size)
        if inside is not None:
            active = inside
        how, index = _lds_access(footprint), address + m.lds_base[group]
        values = None
        if words is not None and not self._watch.strict:
            values = WrittenValues(m.lds, index, active, size, words)
        for race in self._lds.access(self._columns, index, active, size, how, values):
            self._reporter.lds_race(footprint, self._columns, race, how)

    def memory(self, where: Array, active: Array | None, size: int, words: Words | None = None) -> None:
        """The instruction accesses global memory at (n, 64) addresses, to store `words`. Raises KernelFault."""
        footprint = self._current
        assert footprint is not None
        if self._gathers:
            self._journal.place(where, active, size)
        how = STORE if "store" in footprint.instruction.mnemonic else LOAD
        if self._watch.content is not None:
            found = self._watch.content.access(where, active, size, how == LOAD, how == STORE or footprint.atomic)
            if found is not None:
                self._reporter.unset_memory(footprint, self._columns, *found)
        if footprint.atomic:
            self._memory.atomic(self._batch, self._columns, where, active)
            return
        values = None
        if words is not None and not self._watch.strict:
            values = WrittenValues(self._m.space, where, active, size, words)
        for race in self._memory.access(self._batch, self._columns, where, active, size, how, values):
            self._reporter.memory_race(footprint, self._columns, race, "stores to" if how == STORE else "loads from")

    def stray(self, error: AddressError) -> None:
        """An access left every allocation: it goes on without."""
        assert self._current is not None
        self._reporter.stray(self._current, self._columns, error)


def _lds_access(footprint: Footprint) -> int:
    if footprint.to_lds:
        return LOAD_TO_LDS
    if footprint.atomic:
        return ATOMIC
    return WRITE if footprint.instruction.mnemonic.startswith("ds_write") else READ


def shadow_of(space: AddressSpace, dispatch: Dispatch) -> MemoryShadow:
    """The record of global memory that all batches of a dispatch share."""
    return MemoryShadow(space, dispatch.waves_per_workgroup)
