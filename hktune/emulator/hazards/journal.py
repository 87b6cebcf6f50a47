"""Who did what before: the memory operations of the waves of a dispatch, to name the other side of a race."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from hktune.emulator.hazards.footprint import Footprint
from hktune.emulator.machine.memory import Array

_OPERATIONS_MAX = 1 << 15
_ADDRESS_BYTES_MAX = 1 << 28

Places = list[tuple[Array, "Array | None", int]]
"""Byte addresses (n, 64), active lanes (None: all), bytes."""


@dataclass(slots=True)
class Operation:
    """One instruction of `waves` (numbers in the dispatch): number `sequences` in queue `queue` of each. `iterations`:
    how often each had executed it then."""

    queue: int
    footprint: Footprint
    waves: Array
    sequences: Array
    iterations: Array | None = None
    places: Places = field(default_factory=list)

    def lane(self, row: int, address: int) -> int | None:
        """The first lane of row `row` that touches the byte at `address`."""
        for where, active, size in self.places:
            touched = (where[row] <= address) & (address < where[row] + size)
            touched = touched if active is None else touched & active[row]
            if touched.any():
                return int(np.flatnonzero(touched)[0])
        return None


class Journal:
    """The last operations, and the addresses that each lane touched, as far as these are given: they take memory."""

    def __init__(self) -> None:
        self._operations: deque[Operation] = deque()
        self._bytes = 0

    def note(self, operation: Operation) -> None:
        """It was issued."""
        self._operations.append(operation)
        if len(self._operations) > _OPERATIONS_MAX:
            self._forget()

    def place(self, where: Array, active: Array | None, size: int) -> None:
        """The lanes' addresses of the operation noted last."""
        self._operations[-1].places.append((where, active, size))
        self._bytes += where.nbytes
        while self._bytes > _ADDRESS_BYTES_MAX:
            self._forget()

    def _forget(self) -> None:
        self._bytes -= sum(each.nbytes for each, _, _ in self._operations.popleft().places)

    def own_lane(self, wave: int, address: int) -> int | None:
        """The lane of the operation noted last by which a wave touches the byte at `address`."""
        last = self._operations[-1]
        rows = np.flatnonzero(last.waves == wave)
        return last.lane(int(rows[0]), address) if len(rows) else None

    def find(self, queue: int, wave: int, sequence: int) -> tuple[Operation, int] | None:
        """Operation number `sequence` of a wave's queue, and the wave's row in it."""
        for each in reversed(self._operations):
            if each.queue == queue:
                rows = np.flatnonzero((each.waves == wave) & (each.sequences == sequence))
                if len(rows):
                    return each, int(rows[0])
        return None

    def touching(self, queue: int, wave: int, address: int) -> tuple[Operation, int] | None:
        """The last operation before the present one by which a wave touched a byte, and the wave's row in it."""
        for each in list(self._operations)[-2::-1]:
            if each.queue == queue:
                for row in np.flatnonzero(each.waves == wave).tolist():
                    if each.lane(row, address) is not None:
                        return each, row
        return None
