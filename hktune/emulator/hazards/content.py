"""Memory that holds nothing of meaning before a launch stores to it: an output that must be written whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hktune.emulator.machine.memory import Array


class Content:
    """`regions`: address and bytes of each. Kept byte by byte."""

    def __init__(self, regions: Mapping[int, int]) -> None:
        self._written = {base: np.zeros(size, bool) for base, size in regions.items()}

    def access(
        self, where: Array, active: Array | None, size: int, reads: bool, writes: bool
    ) -> tuple[int, int, int] | None:
        """Row, lane and address of the first byte at (n, 64) addresses that is read and was never written."""
        chosen = np.ones(where.shape, bool) if active is None else active
        first = None
        for base, written in self._written.items():
            inside = chosen & (where >= base) & (where + size <= base + len(written))
            if not inside.any():
                continue
            offsets = (where[inside] - base)[:, None] + np.arange(size)
            if reads and first is None:
                unset = ~written[offsets]
                if unset.any():
                    at, byte = divmod(int(np.flatnonzero(unset)[0]), size)
                    row, lane = divmod(int(np.flatnonzero(inside)[at]), where.shape[1])
                    first = row, lane, int(where[row, lane]) + byte
            if writes or (reads and first is not None):
                written[offsets] = True
        return first
