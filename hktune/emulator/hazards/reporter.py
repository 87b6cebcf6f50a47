"""Turns what the records object to into findings: who, where, against whom, and what may remove it."""

from __future__ import annotations

import numpy as np

from hktune.emulator.hazards import finding as rules
from hktune.emulator.hazards.finding import Finding, Remedy, Side, Watch
from hktune.emulator.hazards.footprint import BARRIER, Footprint
from hktune.emulator.hazards.journal import Operation
from hktune.emulator.hazards.lds_shadow import ATOMIC, LOAD_TO_LDS, READ, WRITE, Race
from hktune.emulator.hazards.memory_shadow import MemoryRace
from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR, Order
from hktune.emulator.hazards.remedies import Counts, barrier_before, encodable, idle_before, wait_before
from hktune.emulator.hazards.states import Event
from hktune.emulator.hazards.track import Objection
from hktune.emulator.machine.memory import AddressError, Array
from hktune.emulator.machine.wave_start import Dispatch
from hktune.emulator.machine.waves import Lanes, Waves

_COUNTERS = {ON_VECTOR: "vmcnt", ON_LDS: "lgkmcnt"}
_DWORD_BYTES = 4
_ACTS = {READ: "reads", WRITE: "writes", ATOMIC: "updates", LOAD_TO_LDS: "loads to"}


class Reporter:
    """Of one batch of workgroups, the first of which is number `first` of the dispatch."""

    def __init__(self, m: Waves, dispatch: Dispatch, first: int, order: Order, watch: Watch) -> None:
        self._m, self._dispatch, self._first, self._order, self._watch = m, dispatch, first, order, watch
        self._executed: dict[int, Array] = {}
        self._barriers: dict[int, tuple[int, Array]] = {}

    def executed(self, footprint: Footprint, columns: Array, group: Lanes) -> None:
        """The group executes an instruction once more; kept where a launch goes on after a hazard."""
        address = footprint.instruction.address
        counts = self._executed.get(address)
        if counts is None:
            counts = self._executed[address] = np.zeros(self._m.count, np.int64)
        counts[group] += 1
        if footprint.kind == BARRIER:
            for column in columns.tolist():
                self._barriers[column] = address, self._order.issued[:, column].copy()

    def iterations(self, footprint: Footprint, group: Lanes) -> Array | None:
        """How often each wave of the group has executed the instruction."""
        counts = self._executed.get(footprint.instruction.address)
        return None if counts is None else counts[group].copy()

    def objections(self, event: Event, footprint: Footprint, column: int) -> None:
        """What is wrong with an instruction of waves, the first of which is `column`. Raises KernelFault."""
        for each in event.objections:
            note = each.by_the_book and not self._watch.strict
            here = self._side(footprint, column)
            other = None if each.after is None else self._side(each.after, column)
            remedies = self._remedies_alone(each, footprint)
            counters = f"{event.outstanding} outstanding"
            found = Finding(each.rule, here, each.what, note, other, None, False, counters, remedies, each.left)
            self._watch.report(found)

    def _remedies_alone(self, objection: Objection, footprint: Footprint) -> tuple[Remedy, ...]:
        address, name = footprint.instruction.address, footprint.instruction.mnemonic
        if objection.wait is not None:
            return (wait_before(address, objection.wait, name),)
        return (idle_before(address, objection.idle, name),) if objection.idle else ()

    def misplaced(
        self, footprint: Footprint, columns: Array, address: Array, active: Array | None, size: int
    ) -> Array | None:
        """Judges LDS addresses (n, 64); which lanes stay inside, where not all do. Raises KernelFault."""
        unit = 16 if size > 8 else size
        if self._all_right(address, size, unit):
            return None
        outside = (address + size > self._m.lds_bytes) | (address < 0)
        least = _least_alignment(footprint, unit)
        crooked = address & (least - 1) != 0
        slow = (address & (unit - 1) != 0) & ~crooked
        for rule, wrong, why in (
            (rules.LDS_BOUNDS, outside, f"which runs past the workgroup's {self._m.lds_bytes} bytes"),
            (rules.LDS_ALIGNMENT, crooked, f"which is not aligned to {least} bytes, as it must be"),
            (rules.UNALIGNED_LDS, slow, f"which is not aligned to its {unit} bytes: that is slow"),
        ):
            wrong = wrong if active is None else wrong & active
            if wrong.any():
                row, lane = divmod(int(np.flatnonzero(wrong)[0]), address.shape[1])
                place = int(address[row, lane])
                what = f"lane {lane} accesses LDS address {place}, {why}"
                here = self._side(footprint, int(columns[row]), lane)
                note = rule == rules.UNALIGNED_LDS and not self._watch.strict
                self._watch.report(Finding(rule, here, what, note, address=place, in_lds=True))
        if not outside.any():
            return None
        inside: Array = ~outside if active is None else active & ~outside
        return inside

    def _all_right(self, address: Array, size: int, unit: int) -> bool:
        """Whether every lane, inactive ones too, is inside and aligned: so it is nearly always."""
        if int(np.bitwise_or.reduce(address, axis=None)) & (unit - 1):
            return False
        return int(address.min()) >= 0 and int(address.max()) + size <= self._m.lds_bytes

    def stray(self, footprint: Footprint, columns: Array, error: AddressError) -> None:
        """An access to memory that nobody allocated. Raises KernelFault."""
        access, position = self._m.access, error.position
        if access.chosen is not None:
            position = int(np.flatnonzero(access.chosen)[position])
        lane = position % access.lanes if access.lanes > 1 else None
        here = self._side(footprint, int(columns[position // access.lanes]), lane)
        self._watch.report(Finding(rules.MEMORY_BOUNDS, here, str(error), address=error.address))

    def unset_memory(self, footprint: Footprint, columns: Array, row: int, lane: int, address: int) -> None:
        """A load, or an atomic, of what nothing has stored. Raises KernelFault."""
        act = "updates" if footprint.atomic else "loads from"
        here = self._side(footprint, int(columns[row]), lane)
        what = f"{act} {address:#x}, which nothing has written"
        self._watch.report(Finding(rules.UNSET_MEMORY, here, what, address=address))

    def lds_race(self, footprint: Footprint, columns: Array, race: Race, how: int) -> None:
        """Raises KernelFault."""
        m, column = self._m, int(columns[race.row])
        here = self._side(footprint, column, self._own_lane(column, race.address))
        place = f"{_ACTS[how]} LDS address {race.address}"
        if race.wave is None:
            what = f"{place}, which nothing has written"
            self._watch.report(Finding(rules.UNSET_LDS, here, what, address=race.address, in_lds=True))
            return
        other = race.wave * m.workgroups + column % m.workgroups
        found = self._watch.journal.find(race.queue, self._number(other), race.sequence)
        by = f"{found[0].footprint.instruction}" if found else "an earlier instruction"
        what = f"{place}, which {by} of wave {race.wave} {race.before}"
        side = None if found is None else self._other_side(*found, other, race.address)
        if race.equal:
            rule, note, cure = rules.EQUAL_WRITES, not self._watch.strict, "the same values: the order does not matter"
            what = f"{what}, {cure}"
        else:
            rule, note = rules.LDS_RACE, False
            what = f"{what}, maybe only later: {self._cure(race, column, other)}"
        remedies = () if found is None else self._remedies_of_race(footprint, found[0].footprint, race, column, other)
        report = Finding(rule, here, what, note, side, race.address, True, self._counters(column), remedies)
        self._watch.report(report)

    def _cure(self, race: Race, column: int, other: int) -> str:
        counter = _COUNTERS[race.queue]
        if other == column:
            return f"this wave must wait for it with s_waitcnt {counter}"
        if self._order.completed[race.queue, other] >= race.sequence:
            return "no s_barrier lies between its completion and this"
        return f"wave {race.wave} must wait for it with s_waitcnt {counter}, then both pass an s_barrier"

    def _remedies_of_race(
        self, here: Footprint, there: Footprint, race: Race, column: int, other: int
    ) -> tuple[Remedy, ...]:
        """The smallest changes first."""
        address, name, order = here.instruction.address, here.instruction.mnemonic, self._order
        counts = encodable(race.queue, 0)
        if other == column:
            left = int(order.issued[race.queue, other]) - race.sequence
            return (wait_before(address, encodable(race.queue, left), name),)
        if order.completed[race.queue, other] >= race.sequence:
            return (barrier_before(address, name), *self._behind(there, None))
        earlier = self._barriers.get(other)
        before: tuple[Remedy, ...] = ()
        if earlier is not None and earlier[1][race.queue] >= race.sequence:
            left = int(earlier[1][race.queue]) - race.sequence
            before = (wait_before(earlier[0], encodable(race.queue, left), "s_barrier"),)
        return (*before, barrier_before(address, name, counts), *self._behind(there, counts))

    def _behind(self, there: Footprint, counts: Counts | None) -> tuple[Remedy, ...]:
        instruction = there.instruction
        return (barrier_before(instruction.next_address, f"what follows {instruction.mnemonic}", counts),)

    def memory_race(self, footprint: Footprint, columns: Array, race: MemoryRace, act: str) -> None:
        """Raises KernelFault."""
        column = int(columns[race.row])
        here = self._side(footprint, column, self._own_lane(column, race.address))
        what = f"{act} {race.address:#x}, which"
        if race.wave is None:
            what = f"{what} several waves {race.before} with nothing to order them"
            self._watch.report(Finding(rules.MEMORY_RACE, here, what, address=race.address))
            return
        group, wave = divmod(race.wave, self._dispatch.waves_per_workgroup)
        who = f"wave {wave} of workgroup {self._dispatch.workgroup(group)}"
        same = group == self._first + column % self._m.workgroups
        cure = "it must wait, then both pass an s_barrier" if same else "workgroups run in any order"
        found = self._earlier(race)
        side = None if found is None else self._side_of(*found, group, wave, race.address)
        remedies: tuple[Remedy, ...] = ()
        if same and found is not None:
            counts, address = encodable(ON_VECTOR, 0), footprint.instruction.address
            remedies = (
                barrier_before(address, footprint.instruction.mnemonic),
                barrier_before(address, footprint.instruction.mnemonic, counts),
                *self._behind(found[0].footprint, counts),
            )
        what = f"{what} {who} {race.before}"
        if race.equal:
            what = f"{what}, the same values: the order does not matter"
            note = not self._watch.strict
            self._watch.report(Finding(rules.EQUAL_WRITES, here, what, note, side, race.address))
            return
        what = f"{what}: {cure}"
        counters = self._counters(column)
        self._watch.report(Finding(rules.MEMORY_RACE, here, what, False, side, race.address, False, counters, remedies))

    def _earlier(self, race: MemoryRace) -> tuple[Operation, int] | None:
        assert race.wave is not None
        journal = self._watch.journal
        if race.sequence:
            return journal.find(ON_VECTOR, race.wave, race.sequence)
        return journal.touching(ON_VECTOR, race.wave, race.address)

    def _side(self, footprint: Footprint, column: int, lane: int | None = None) -> Side:
        workgroup = self._dispatch.workgroup(self._first + column % self._m.workgroups)
        counts = self._executed.get(footprint.instruction.address)
        iteration = 0 if counts is None else int(counts[column])
        return Side(footprint.instruction, workgroup, column // self._m.workgroups, lane, iteration)

    def _other_side(self, operation: Operation, row: int, column: int, address: int) -> Side:
        group = self._first + column % self._m.workgroups
        return self._side_of(operation, row, group, column // self._m.workgroups, address)

    def _side_of(self, operation: Operation, row: int, group: int, wave: int, address: int) -> Side:
        iteration = 0 if operation.iterations is None else int(operation.iterations[row])
        instruction, lane = operation.footprint.instruction, operation.lane(row, address)
        return Side(instruction, self._dispatch.workgroup(group), wave, lane, iteration)

    def _own_lane(self, column: int, address: int) -> int | None:
        return self._watch.journal.own_lane(self._number(column), address)

    def _number(self, column: int) -> int:
        """The wave's number in the dispatch."""
        group = self._first + column % self._m.workgroups
        return int(group * self._dispatch.waves_per_workgroup + column // self._m.workgroups)

    def _counters(self, column: int) -> str:
        """How many operations of the wave may be under way."""
        under_way = self._order.issued[:, column] - self._order.completed[:, column]
        return f"{int(under_way[ON_VECTOR])} vector memory and {int(under_way[ON_LDS])} LDS operations are outstanding"


def _least_alignment(footprint: Footprint, unit: int) -> int:
    """What an LDS address must be a multiple of. ROCm's driver sets SH_MEM_CONFIG to unaligned, where reads and writes
    of any width may begin at any byte. Atomics may not; M0 counts dwords for loads to LDS; of transposed reads no
    source says so."""
    if footprint.to_lds:
        return min(unit, _DWORD_BYTES)
    return unit if footprint.atomic or "_tr_" in footprint.instruction.mnemonic else 1
