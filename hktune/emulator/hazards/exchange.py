"""What waves of different workgroups know of each other's stores: atomics are the only messages.

LLVM's AMDGPU usage guide, "Memory Model GFX942", which gfx950 shares: each XCD has an L2 of its own. To release to the
device, a wave writes its L2 back (buffer_wbl2 sc1), waits for its stores (vmcnt), and then executes an atomic. To
acquire, it waits for the value of an atomic on the same address and drops what its caches hold (buffer_inv sc1). An
operation that went through both is known; knowledge is handed on.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from hktune.emulator.machine.memory import Array

_Known = dict[int, int]  # by wave of the dispatch: the youngest of its vector memory operations that is known


class Exchange:
    """Waves are numbered through the dispatch, operations of each in order of issue, from 1."""

    def __init__(self) -> None:
        self._written_back: _Known = {}
        self._published: defaultdict[int, _Known] = defaultdict(dict)
        self._asked: defaultdict[int, list[tuple[int, _Known]]] = defaultdict(list)
        self._known: defaultdict[int, _Known] = defaultdict(dict)

    def write_back(self, wave: int, issued: int) -> None:
        """A buffer_wbl2 of the device's scope, behind `issued` operations."""
        self._written_back[wave] = issued

    def atomic(self, wave: int, address: int, issued: int, completed: int) -> None:
        """Operation `issued` is an atomic on `address`; up to `completed` the wave has waited for."""
        published = self._published[address]
        self._asked[wave].append((issued, dict(published)))
        own = {wave: min(completed, self._written_back.get(wave, 0))}
        _merge(published, self._known[wave])
        _merge(published, own)

    def invalidate(self, wave: int, completed: int) -> None:
        """A buffer_inv of the device's scope: what completed atomics have published holds from here on."""
        arrived = [told for issued, told in self._asked[wave] if issued <= completed]
        self._asked[wave] = [asked for asked in self._asked[wave] if asked[0] > completed]
        for told in arrived:
            _merge(self._known[wave], told)

    def known(self, readers: Array, writers: Array) -> Array:
        """The youngest operation of each writer that the reader of its place knows of, 0 for none."""
        pairs, inverse = np.unique(np.stack([readers.ravel(), writers.ravel()]), axis=1, return_inverse=True)
        found = [
            self._known[reader].get(writer, 0) if reader in self._known else 0 for reader, writer in pairs.T.tolist()
        ]
        return np.array(found, np.int64)[inverse].reshape(readers.shape)


def _merge(known: _Known, told: _Known) -> None:
    for wave, sequence in told.items():
        known[wave] = max(sequence, known.get(wave, 0))
