"""What each wave of a workgroup may know of the others' memory operations: barriers are the only messages.

An operation of wave a is known to wave b to be complete when a waited for it before arriving at its k-th barrier, and b
has passed k barriers. Barriers count arrivals and ignore program counters, so this holds for staggered waves too.
"""

from __future__ import annotations

import numpy as np

from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import Lanes

ON_LDS, ON_VECTOR = 0, 1
"""Queues of a wave that complete in order: LDS accesses, and vector memory accesses."""


class Order:
    """Counts per wave and queue: operations issued, known complete to the wave itself, and known to others.

    A wave can be at most one barrier ahead of its workgroup, so two generations of what it published are enough.
    `version` changes whenever knowledge does.
    """

    def __init__(self, workgroups: int, waves: int) -> None:
        count = workgroups * waves
        self._workgroups, self._waves = workgroups, waves
        self.passed = np.zeros(count, np.int64)
        self.issued = np.zeros((2, count), np.int64)
        self.completed = np.zeros((2, count), np.int64)
        self._told = np.zeros((2, 2, count), np.int64)
        self.version = 0

    def complete(self, queue: int, waves: Array, left: int) -> None:
        """All but the youngest `left` operations of the queue are complete."""
        self.completed[queue, waves] = np.maximum(self.completed[queue, waves], self.issued[queue, waves] - left)
        self.version += 1

    def arrive(self, waves: Lanes) -> None:
        """`waves` arrive at a barrier."""
        self.passed[waves] += 1
        generation = self.passed[waves] & 1
        self._told[generation, :, np.arange(len(self.passed))[waves]] = self.completed[:, waves].T
        self.version += 1

    def end(self, waves: Lanes) -> None:
        """`waves` end, which completes all they issued: a wave that passes the next barrier knows."""
        self.completed[:, waves] = self.issued[:, waves]
        generation = (self.passed[waves] + 1) & 1
        self._told[generation, :, np.arange(len(self.passed))[waves]] = self.completed[:, waves].T
        self.version += 1

    def release(self, done: Array) -> None:
        """A barrier released; waves that had ended before have nothing more to tell in any generation."""
        self._told[:, :, done] = self.completed[:, done]
        self.version += 1

    def known(self, columns: Array) -> Array:
        """(n, queue, wave): the youngest complete operation that each column knows of, by wave of its workgroup."""
        told = self._told.reshape(2, 2, self._waves, self._workgroups)
        known: Array = told[self.passed[columns] & 1, :, :, columns % self._workgroups]
        return known
