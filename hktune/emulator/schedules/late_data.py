"""Data that arrive as late as the counters allow: what is loaded stays away until an s_waitcnt covers it.

The usual run of a kernel has every load arrive at once. Here a register that a load fills, and LDS that is loaded to,
keep what they held until the wave waits. Which wait covers which load: CDNA4 ISA guide, section 4.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hktune.emulator.hazards.footprint import (
    DS,
    FLAT,
    LGKMCNT_MAX,
    SCALAR,
    SMEM,
    VMCNT_MAX,
    VMEM,
    WAIT,
    Footprint,
)
from hktune.emulator.instructions.operand_access import Step
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes, Waves

_Arrival = Callable[[], None]


@dataclass
class _Queues:
    """What one wave has under way, oldest first; None for what brings nothing."""

    vector: deque[_Arrival | None] = field(default_factory=deque)
    lds: deque[_Arrival | None] = field(default_factory=deque)
    scalar: deque[_Arrival | None] = field(default_factory=deque)


class LateData:
    """Executes the steps of a batch of waves. Hears of accesses to LDS, as a checker does."""

    def __init__(self, m: Waves) -> None:
        self._m = m
        self._all: Array = np.arange(m.count)
        self._targets: dict[int, tuple[Footprint, list[int], list[int]]] = {}
        self._queues = [_Queues() for _ in range(m.count)]
        self._loads_to_lds = False
        self._to_lds: tuple[Array, Array, Array] | None = None
        self._size = 0

    def lds(self, group: Lanes, address: Array, size: int, words: Array | None = None) -> None:
        """Where it is a load to LDS that is about to write there, keeps what was there."""
        del words
        m = self._m
        if not self._loads_to_lds:
            return
        chosen = m.active[group] & (address >= 0) & (address + size <= m.lds_bytes)
        if not chosen.any():
            return
        index = address + m.lds_base[group]
        self._to_lds = index, chosen, m.lds.gather(np.where(chosen, index, 0), size)
        self._size = size

    def memory(self, where: Array, active: Array | None, size: int, words: Array | None = None) -> None:
        """Loads read memory when they are issued."""

    def execute(self, footprint: Footprint, step: Step, group: Lanes) -> None:
        """One instruction of the group."""
        if footprint.kind == WAIT:
            for wave in self._waves(group):
                self._wait(self._queues[wave], footprint.vmcnt, footprint.lgkmcnt)
        if not footprint.counted:
            step(self._m, group)
            return
        m, waves = self._m, self._waves(group)
        vector, scalar = self._targets_of(footprint)
        there, where = _places(vector, group, waves), _places(scalar, group, waves)
        before = m.registers[there].copy(), m.scalars[where].copy()
        self._to_lds, self._loads_to_lds = None, footprint.to_lds
        step(m, group)
        after = m.registers[there].copy(), m.scalars[where].copy()
        m.registers[there], m.scalars[where] = before
        held = self._hold_lds() if self._to_lds is not None else None
        for row, wave in enumerate(waves.tolist()):
            arrival = self._arrival(wave, row, (vector, after[0][:, row]), (scalar, after[1][:, row]), held)
            self._send(self._queues[wave], footprint.kind, arrival)

    def _waves(self, group: Lanes) -> Array:
        waves: Array = self._all[group]
        return waves

    def _targets_of(self, footprint: Footprint) -> tuple[list[int], list[int]]:
        """The vector and the scalar registers that it fills, in order."""
        known = self._targets.get(id(footprint))
        if known is None:
            vector = sorted(register for register in footprint.writes if register < SCALAR)
            scalar = sorted(register - SCALAR for register in footprint.writes if register >= SCALAR)
            known = self._targets[id(footprint)] = footprint, vector, scalar
        return known[1], known[2]

    def _hold_lds(self) -> tuple[Array, Array, Array, int]:
        """Puts back what a load to LDS has overwritten: places, lanes, the new words, bytes."""
        assert self._to_lds is not None
        (index, chosen, old), size, lds = self._to_lds, self._size, self._m.lds
        new = lds.gather(np.where(chosen, index, 0), size)
        lds.scatter(index[chosen], size, old[chosen])
        return index, chosen, new, size

    def _arrival(
        self,
        wave: int,
        row: int,
        vector: tuple[list[int], Array],
        scalar: tuple[list[int], Array],
        held: tuple[Array, Array, Array, int] | None,
    ) -> _Arrival | None:
        """Brings a wave what it has loaded."""
        m, active = self._m, self._m.active[wave].copy()
        if not vector[0] and not scalar[0] and held is None:
            return None

        def arrive() -> None:
            for register, values in zip(*vector, strict=True):
                np.copyto(m.registers[register, wave], values, where=active)
            for register, value in zip(*scalar, strict=True):
                m.scalars[register, wave] = value
            if held is not None:
                index, chosen, new, size = held
                m.lds.scatter(index[row][chosen[row]], size, new[row][chosen[row]])

        return arrive

    def _send(self, queues: _Queues, kind: int, arrival: _Arrival | None) -> None:
        if kind in (VMEM, FLAT):
            queues.vector.append(arrival)
        if kind in (DS, FLAT):
            queues.lds.append(None if kind == FLAT else arrival)
        if kind == SMEM:
            queues.scalar.append(arrival)
        _deliver(queues.vector, VMCNT_MAX)  # issue stalls at a full counter
        _deliver(queues.lds, LGKMCNT_MAX)

    def _wait(self, queues: _Queues, vmcnt: int | None, lgkmcnt: int | None) -> None:
        if vmcnt is not None:
            _deliver(queues.vector, vmcnt)
        if lgkmcnt is not None:
            _deliver(queues.lds, lgkmcnt)
            if lgkmcnt == 0:
                _deliver(queues.scalar, 0)


def _places(registers: list[int], group: Lanes, waves: Array) -> Any:
    """An index of these registers of a group, whose waves are `waves`."""
    if not registers:
        return slice(0, 0), group
    if registers[-1] - registers[0] == len(registers) - 1:
        return slice(registers[0], registers[-1] + 1), group
    return np.ix_(np.array(registers), waves)


def _deliver(queue: deque[_Arrival | None], left: int) -> None:
    while len(queue) > left:
        arrival = queue.popleft()
        if arrival is not None:
            arrival()
