"""Races in LDS: for every granule who wrote it last and who has read it since, as operation numbers.

An access is safe when the one before it is known to be complete (order.py), or when both come from one wave through
one queue, which keeps their order. Loads straight to LDS go through the vector memory queue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR, Order
from hktune.emulator.machine.memory import Array

READ, WRITE, ATOMIC, LOAD_TO_LDS = range(4)
"""How an instruction touches LDS."""

_ALWAYS = 1 << 40
_SOURCES = 3  # writers: LDS writes, loads straight to LDS, atomics
_SOURCE_OF = {WRITE: 0, LOAD_TO_LDS: 1, ATOMIC: 2}
_CODE_BITS = 6  # 3 kinds of writer in up to 16 waves, and nobody
_CODE_MASK = (1 << _CODE_BITS) - 1
_GRANULE_BYTES = 16


@dataclass(frozen=True)
class Race:
    """The access at (row, `address`) meets an operation of `wave`: number `sequence` of queue `queue`; `wave` is None
    when nothing was ever written. `before`: whether the earlier one wrote. `equal`: both write the same values."""

    row: int
    address: int
    wave: int | None
    queue: int = ON_LDS
    sequence: int = 0
    before: str = "wrote"
    equal: bool = False


class Values(Protocol):
    """What an access writes, asked for only where it meets another write. One truth value for each active lane."""

    def unchanged(self) -> Array:
        """Whether the bytes are there already."""

    def agreed(self) -> Array:
        """Whether every lane that writes there with this instruction writes the same."""


class LdsShadow:
    """One batch's LDS. Granules are 16 bytes until an access is finer."""

    def __init__(self, workgroups: int, waves: int, lds_bytes: int, order: Order) -> None:
        self._workgroups, self._waves, self._order = workgroups, waves, order
        self._granule = _GRANULE_BYTES
        granules = workgroups * -(-lds_bytes // _GRANULE_BYTES)
        self._nobody = _SOURCES * waves
        self._written = np.full(granules, self._nobody, np.int64)
        self._read = np.zeros((granules, waves), np.int64)
        self._limits: dict[tuple[int, bytes], tuple[Array, Array]] = {}
        self._version = -1

    def access(
        self, columns: Array, index: Array, active: Array | None, size: int, how: int, values: Values | None = None
    ) -> list[Race]:
        """Byte `index` (n, 64) into the batch's LDS, by `columns`; a race for each earlier operation that it meets."""
        rows = np.arange(len(columns))[:, None]
        if active is not None:
            index, rows = index[active], np.nonzero(active)[0]
            if not index.size:
                return []
        granules, rows = self._granules(index, rows, size)
        writers, readers = self._known(columns, how)
        stamps = self._written[granules]
        late = (stamps >> _CODE_BITS) > writers.take((stamps & _CODE_MASK) + rows * writers.shape[1])
        races: list[Race] = []
        if late.any():
            same = _per_granule(values.unchanged(), late) if values is not None and how != READ else None
            races = self._write_races(granules, rows, stamps, late, same)
        wave = (columns // self._workgroups)[rows]
        sequence = self._order.issued[ON_VECTOR if how == LOAD_TO_LDS else ON_LDS, columns][rows]
        if how == READ:
            self._read[granules, wave] = sequence
            return races
        early = self._read[granules] > readers[rows]
        if early.any():
            races += self._read_races(granules, rows, early)
        stamp = sequence << _CODE_BITS | (_SOURCE_OF[how] * self._waves + wave)
        self._written[granules] = stamp
        if how != ATOMIC:
            beaten = self._written[granules] != stamp  # by waves that store to one granule with one instruction
            if beaten.any():
                same = _per_granule(values.agreed(), beaten) if values is not None else None
                races += self._write_races(granules, rows, self._written[granules], beaten, same)
        return races

    def _granules(self, index: Array, rows: Array, size: int) -> tuple[Array, Array]:
        low_bits = int(np.bitwise_or.reduce(index, axis=None)) | size
        unit = low_bits & -low_bits
        if unit < self._granule:
            factor = self._granule // unit
            self._written, self._read = self._written.repeat(factor), self._read.repeat(factor, axis=0)
            self._granule = unit
        first = index >> (self._granule.bit_length() - 1)
        if size <= self._granule:
            return first, rows
        spread = first[..., None] + np.arange(size // self._granule)
        return spread, rows[..., None]

    def _known(self, columns: Array, how: int) -> tuple[Array, Array]:
        """Up to which operation each column may rely on each writer (n, sources * waves + 1), and reader (n, waves)."""
        if self._version != self._order.version:
            self._limits.clear()
            self._version = self._order.version
        key = (how, columns.tobytes())
        found = self._limits.get(key)
        if found is None:
            found = self._limits[key] = self._compute(columns, how)
        return found

    def _compute(self, columns: Array, how: int) -> tuple[Array, Array]:
        known = self._order.known(columns)
        rows, own = np.arange(len(columns)), columns // self._workgroups
        by_lds, by_load = known[:, ON_LDS].copy(), known[:, ON_VECTOR].copy()
        through_load = how == LOAD_TO_LDS
        by_lds[rows, own] = self._order.completed[ON_LDS, columns] if through_load else _ALWAYS
        by_load[rows, own] = _ALWAYS if through_load else self._order.completed[ON_VECTOR, columns]
        by_atomic = np.full_like(by_lds, _ALWAYS) if how == ATOMIC else by_lds
        nobody = np.full((len(columns), 1), -1 if how in (READ, ATOMIC) else _ALWAYS)
        return np.concatenate([by_lds, by_load, by_atomic, nobody], axis=1), by_lds

    def _write_races(self, granules: Array, rows: Array, stamps: Array, late: Array, same: Array | None) -> list[Race]:
        """One for each operation that left its stamp on a granule too lately; those that wrote the `same` last."""
        if same is not None and (late & same).any():
            equal = [replace(race, equal=True) for race in self._write_races(granules, rows, stamps, late & same, None)]
            return self._write_races(granules, rows, stamps, late & ~same, None) + equal
        places, rows = np.flatnonzero(late), np.broadcast_to(rows, granules.shape)
        found, first = np.unique(stamps.reshape(-1)[places], return_index=True)
        races = []
        for stamp, at in sorted(zip(found.tolist(), places[first].tolist(), strict=True), key=lambda pair: pair[1]):
            code = stamp & _CODE_MASK
            row, address = int(rows.reshape(-1)[at]), self._address(granules, at)
            if code == self._nobody:
                races.append(Race(row, address, None))
                continue
            queue = ON_VECTOR if code // self._waves == _SOURCE_OF[LOAD_TO_LDS] else ON_LDS
            races.append(Race(row, address, code % self._waves, queue, stamp >> _CODE_BITS))
        return races

    def _read_races(self, granules: Array, rows: Array, early: Array) -> list[Race]:
        """One for each read that may still be under way."""
        rows = np.broadcast_to(rows, granules.shape)
        places, waves = np.nonzero(early.reshape(-1, self._waves))
        sequences = self._read[granules.reshape(-1)[places], waves]
        _, first = np.unique(np.stack([waves, sequences]), axis=1, return_index=True)
        races = []
        for each in sorted(first.tolist()):
            at, wave, sequence = int(places[each]), int(waves[each]), int(sequences[each])
            row, address = int(rows.reshape(-1)[at]), self._address(granules, at)
            races.append(Race(row, address, wave, ON_LDS, sequence, "read"))
        return races

    def _address(self, granules: Array, at: int) -> int:
        """Byte address inside the workgroup's LDS."""
        per_workgroup = len(self._written) // self._workgroups
        return int(granules.reshape(-1)[at]) % per_workgroup * self._granule


def _per_granule(lanes: Array, like: Array) -> Array:
    """A truth value of each lane as one of each of its granules."""
    return np.broadcast_to(lanes[..., None], like.shape) if like.ndim > lanes.ndim else lanes
