"""Races in global memory: for every granule who stored it last, and who loaded it.

Waves of one workgroup are ordered by barriers, as for LDS; those of different workgroups only by what they exchange
with atomics (exchange.py). Loads count as done at the next barrier, and for other workgroups from the first atomic of a
dispatch on. Scalar loads are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hktune.emulator.hazards.exchange import Exchange
from hktune.emulator.hazards.lds_shadow import Values
from hktune.emulator.hazards.order import ON_VECTOR, Order
from hktune.emulator.machine.memory import AddressSpace, Array, Region

LOAD, STORE = range(2)
Batch = tuple[Order, int, int]
"""Workgroups that run together: their order, their number, the first one's number in the dispatch."""
_GRANULE_BYTES = 16
_SEQUENCE_BITS = 32
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1
_PARTNERS_MAX = 16  # of the accesses that one access meets
_SEVERAL = -1
"""A granule that waves of several workgroups, or several waves, have loaded."""


@dataclass
class _Granules:
    """Of one region, by granule: the last store as (wave of the dispatch + 1, number), the wave (+ 1) and workgroup
    (+ 1) that loaded it, and the barrier count of that load."""

    size_bytes: int
    granule: int = _GRANULE_BYTES
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = -(-self.size_bytes // self.granule)
        self.arrays = {name: np.zeros(count, np.int64) for name in ("stored", "wave", "workgroup", "barriers")}

    def refine(self, unit: int) -> None:
        self.arrays = {name: array.repeat(self.granule // unit) for name, array in self.arrays.items()}
        self.granule = unit


@dataclass(frozen=True)
class MemoryRace:
    """The access of row `row` to `address` meets an earlier one by `wave` of the dispatch (None: by several).
    `at_once`: both are of this very instruction. `equal`: both store the same values."""

    row: int
    address: int
    wave: int | None
    before: str
    sequence: int = 0
    at_once: bool = False
    equal: bool = False


class MemoryShadow:
    """Global memory during one dispatch of workgroups of `waves` waves."""

    def __init__(self, space: AddressSpace, waves: int) -> None:
        self._space, self._waves = space, waves
        self._regions: dict[int, _Granules] = {}
        self._atomics = False
        self.exchange = Exchange()

    def waves(self, batch: Batch, columns: Array) -> Array:
        """Their numbers in the dispatch."""
        _, workgroups, first = batch
        numbers: Array = (first + columns % workgroups) * self._waves + columns // workgroups
        return numbers

    def atomic(self, batch: Batch, columns: Array, where: Array, active: Array | None) -> None:
        """Atomics of `columns` on addresses (n, 64): what the waves have released to each other."""
        self._atomics = True
        order = batch[0]
        issued, completed = order.issued[ON_VECTOR, columns], order.completed[ON_VECTOR, columns]
        for row, wave in enumerate(self.waves(batch, columns).tolist()):
            addresses = where[row] if active is None else where[row][active[row]]
            for address in np.unique(addresses).tolist():
                self.exchange.atomic(wave, address, int(issued[row]), int(completed[row]))

    def access(
        self,
        batch: Batch,
        columns: Array,
        where: Array,
        active: Array | None,
        size: int,
        how: int,
        values: Values | None = None,
    ) -> list[MemoryRace]:
        """Addresses (n, 64) by `columns` of `batch`; a race for each earlier access that one meets."""
        races = self._races_of(batch, columns, where, active, size, how)
        if values is None or not races:
            return races
        unchanged, agreed = bool(values.unchanged().all()), bool(values.agreed().all())
        return [replace(race, equal=_same_values(race, unchanged, agreed)) for race in races]

    def _races_of(
        self, batch: Batch, columns: Array, where: Array, active: Array | None, size: int, how: int
    ) -> list[MemoryRace]:
        rows = np.broadcast_to(np.arange(len(columns))[:, None], where.shape)
        if active is not None:
            where, rows = where[active], rows[active]
        races: list[MemoryRace] = []
        while where.size:
            region = self._space.region_of(int(where.min()))
            if region is None:
                break  # the access itself will fault
            if int(where.max()) + size <= region.end:
                return races + self._in_region(region, batch, columns, (where, rows), size, how)
            inside = where < region.end
            if int(where[inside].max()) + size > region.end:
                break
            races += self._in_region(region, batch, columns, (where[inside], rows[inside]), size, how)
            where, rows = where[~inside], rows[~inside]
        return races

    def _in_region(
        self,
        region: Region,
        batch: Batch,
        columns: Array,
        places: tuple[Array, Array],
        size: int,
        how: int,
    ) -> list[MemoryRace]:
        order = batch[0]
        known = self._regions.get(region.base)
        if known is None:
            known = self._regions[region.base] = _Granules(region.block.size_bytes)
        index, rows = _granules(known, places[0] - region.base, places[1], size)
        wave = self.waves(batch, columns)
        group = wave // self._waves
        races = self._stores_before(known, order, columns, (index, rows), wave, group)
        if how == STORE:
            races += self._loads_before(known, order, columns, (index, rows), wave, group)
            races += self._note_stores(known, order.issued[ON_VECTOR, columns], (index, rows), wave)
        else:
            _note_loads(known, order.passed[columns], (index, rows), wave, group)
        return [replace(race, address=region.base + race.address) for race in races]

    def _note_stores(
        self, known: _Granules, issued: Array, places: tuple[Array, Array], wave: Array
    ) -> list[MemoryRace]:
        """Leaves the stores' mark; the places that several waves of this very instruction store to."""
        index, rows = places
        stored, stamp = known.arrays["stored"], ((wave + 1) << _SEQUENCE_BITS | issued)[rows]
        stored[index] = stamp
        beaten = stored[index] != stamp
        return [replace(race, at_once=True) for race in self._races(known, places, beaten)] if beaten.any() else []

    def _stores_before(
        self, known: _Granules, order: Order, columns: Array, places: tuple[Array, Array], wave: Array, group: Array
    ) -> list[MemoryRace]:
        index, rows = places
        stored = known.arrays["stored"][index]
        writer = (stored >> _SEQUENCE_BITS) - 1
        foreign = (writer >= 0) & (writer != wave[rows])
        if not foreign.any():
            return []
        same = writer // self._waves == group[rows]
        told = order.known(columns)[:, ON_VECTOR][rows, writer % self._waves]
        if self._atomics and (foreign & ~same).any():
            told = np.where(same, told, self.exchange.known(wave[rows], writer))
        else:
            told = np.where(same, told, 0)
        unordered = foreign & ((stored & _SEQUENCE_MASK) > told)
        return self._races(known, places, unordered) if unordered.any() else []

    def _loads_before(
        self, known: _Granules, order: Order, columns: Array, places: tuple[Array, Array], wave: Array, group: Array
    ) -> list[MemoryRace]:
        index, rows = places
        loader = known.arrays["workgroup"][index]
        if not loader.any():
            return []
        elsewhere = (loader == _SEVERAL) | ((loader > 0) & (loader - 1 != group[rows]))
        reader = known.arrays["wave"][index]
        beside = (loader - 1 == group[rows]) & (reader - 1 != wave[rows])
        beside &= known.arrays["barriers"][index] >= order.passed[columns][rows]
        unordered = beside | (elsewhere & (not self._atomics))
        places_of = np.flatnonzero(unordered)
        readers, first = np.unique(reader.reshape(-1)[places_of], return_index=True)
        races = []
        for number, at in zip(readers[:_PARTNERS_MAX].tolist(), places_of[first].tolist(), strict=False):
            place = int(index.reshape(-1)[at]) * known.granule
            races.append(MemoryRace(int(rows.reshape(-1)[at]), place, number - 1 if number > 0 else None, "loaded"))
        return races

    def _races(self, known: _Granules, places: tuple[Array, Array], found: Array) -> list[MemoryRace]:
        """Of the stores that left their stamps at the places found, some."""
        index, rows = places
        where = np.flatnonzero(found)
        stamps, first = np.unique(known.arrays["stored"][index].reshape(-1)[where], return_index=True)
        races = []
        for stamp, at in zip(stamps[:_PARTNERS_MAX].tolist(), where[first].tolist(), strict=False):
            place = int(index.reshape(-1)[at]) * known.granule
            number = (stamp >> _SEQUENCE_BITS) - 1
            races.append(MemoryRace(int(rows.reshape(-1)[at]), place, number, "stored", stamp & _SEQUENCE_MASK))
        return races


def _same_values(race: MemoryRace, unchanged: bool, agreed: bool) -> bool:
    """Whether a store leaves what the other store left, as all that it stores is there already, or all agree."""
    return race.before == "stored" and agreed and (race.at_once or unchanged)


def _granules(known: _Granules, index: Array, rows: Array, size: int) -> tuple[Array, Array]:
    low_bits = int(np.bitwise_or.reduce(index, axis=None)) | size
    unit = low_bits & -low_bits
    if unit < known.granule:
        known.refine(unit)
    first = index >> (known.granule.bit_length() - 1)
    if size <= known.granule:
        return first, rows
    spread = first[..., None] + np.arange(size // known.granule)
    return spread, np.broadcast_to(rows[..., None], spread.shape)


def _note_loads(known: _Granules, passed: Array, places: tuple[Array, Array], wave: Array, group: Array) -> None:
    index, rows = places
    for name, mine in (("workgroup", group + 1), ("wave", wave + 1)):
        array = known.arrays[name]
        before, new = array[index], mine[rows]
        array[index] = np.where((before == 0) | (before == new), new, _SEVERAL)
        lost = array[index] != new
        if lost.any():
            array[index[lost]] = _SEVERAL
    known.arrays["barriers"][index] = passed[rows]
