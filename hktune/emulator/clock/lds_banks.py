"""Clocks the LDS banks are busy with an access, from the addresses of its lanes.

An access is served in phases, groups of lanes that go together; lanes of one phase that want different dwords of one
bank take turns, lanes that want the same dword share it. A phase costs the most dwords any bank has to give.
"""

from __future__ import annotations

import numpy as np

from hktune.emulator.machine.memory import Array

_LANES = 64

# Which lanes go together when 16 bytes a lane are read: measured on gfx950 by HipKittens' phase solver (arXiv
# 2511.08083, appendix), confirmed for b128 by nod-ai's LDS measurements on MI350X.
_READ_B128 = [[*range(4), *range(12, 16), *range(20, 28)], [*range(4, 12), *range(16, 20), *range(28, 32)]]
_READ_B96 = [
    [*range(4), *range(20, 24)],
    [*range(4, 8), *range(16, 20)],
    [*range(8, 12), *range(28, 32)],
    [*range(12, 16), *range(24, 28)],
]


def _both_halves(phases: list[list[int]]) -> Array:
    return np.array([[lane + half for lane in phase] for half in (0, 32) for phase in phases])


def _consecutive(lanes: int) -> Array:
    return np.arange(_LANES).reshape(-1, lanes)


# (phases as lane numbers, banks of 4 bytes that a phase sees), by bytes a lane. Reads of 4 and 8 bytes: AMD's
# gfx950-gluon-tutorials (docs/lds_throughput.md), by which transposed ones are like others (4.2). Writes go half as
# wide; their 16-byte phases are MI300X's.
_READS = {
    4: (_consecutive(64), 64),
    8: (_consecutive(32), 64),
    12: (_both_halves(_READ_B96), 32),
    16: (_both_halves(_READ_B128), 64),
}
_WRITES = {
    4: (_consecutive(32), 32),
    8: (_consecutive(16), 32),
    12: (_consecutive(8), 32),
    16: (_consecutive(8), 32),
}
_MISALIGNED_CLOCKS = _LANES  # one lane at a time: gfx950-gluon-tutorials, reads 4 bytes off a 16-byte boundary


def bank_clocks(address: Array, active: Array, size: int, writes: bool) -> Array:
    """Clocks per wave for byte addresses (n, 64) of `size` bytes a lane; lanes not in `active` (n, 64) cost nothing."""
    phases, banks = (_WRITES if writes else _READS)[max(size, 4)]
    dwords = (address[:, phases] >> 2)[..., None] + np.arange(max(size, 4) // 4)
    dwords = np.where(active[:, phases][..., None], dwords, -1).reshape(len(address), len(phases), -1)
    dwords.sort(axis=-1)
    counted = dwords >= 0
    counted[..., 1:] &= dwords[..., 1:] != dwords[..., :-1]
    row, phase, _ = np.nonzero(counted)
    slot = (row * len(phases) + phase) * banks + dwords[counted] % banks
    given = np.bincount(slot, minlength=len(address) * len(phases) * banks)
    clocks = given.reshape(len(address), len(phases), banks).max(axis=2).sum(axis=1)
    if size in (8, 16):
        misaligned = ((address & (size - 1) != 0) & active).any(axis=1)
        clocks = np.where(misaligned, _MISALIGNED_CLOCKS, clocks)
    return np.asarray(clocks)


def lines_touched(address: Array, active: Array, size: int) -> Array:
    """Distinct 128-byte lines per wave for byte addresses (n, lanes) of `size` bytes a lane."""
    ends = np.concatenate([address, address + (size - 1)], axis=1) >> 7
    ends = np.where(np.concatenate([active, active], axis=1), ends, -1)
    ends.sort(axis=1)
    fresh = ends >= 0
    fresh[:, 1:] &= ends[:, 1:] != ends[:, :-1]
    return np.asarray(fresh.sum(axis=1))
