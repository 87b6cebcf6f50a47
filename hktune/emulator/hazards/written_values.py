"""What a write changes: two waves that write the same to one place do no harm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hktune.emulator.machine.memory import AddressSpace, Array, Block, Words


@dataclass(frozen=True, slots=True)
class WrittenValues:
    """`size` bytes of `words` (n, 64, dwords) that the active lanes write at byte `index` (n, 64) of `memory`: a
    batch's LDS, or all addresses."""

    memory: Block | AddressSpace
    index: Array
    active: Array | None
    size: int
    words: Words

    def unchanged(self) -> Array:
        """Whether the bytes are there already, for each active lane."""
        index, words = self._chosen()
        same: Array = (self.memory.gather(index, self.size) == words).all(axis=-1)
        return self._by_lane(same)

    def agreed(self) -> Array:
        """Whether every lane that writes to a lane's place with this instruction writes the same there."""
        index, words = self._chosen()
        places, first, inverse = np.unique(index, return_index=True, return_inverse=True)
        differs = (words != words[first[inverse]]).any(axis=-1)
        disputed = np.zeros(len(first), bool)
        disputed[inverse[differs]] = True
        overlap = np.diff(places) < self.size
        disputed[:-1] |= overlap
        disputed[1:] |= overlap
        return self._by_lane(~disputed[inverse])

    def _chosen(self) -> tuple[Array, Words]:
        """Places and words of the active lanes, one after another."""
        chosen = np.ones(self.index.shape, bool) if self.active is None else self.active
        mask = np.uint32((1 << 8 * min(self.size, 4)) - 1)
        return self.index[chosen], np.ascontiguousarray(self.words[chosen] & mask)

    def _by_lane(self, found: Array) -> Array:
        return found.reshape(self.index.shape) if self.active is None else found
