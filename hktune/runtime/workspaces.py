"""Scratch memory of kernels that share a problem among workgroups.

A kernel's workspace begins with counters that are zero before and after every launch (launch.Launch). An algorithm of a
library leaves anything in its own. Launches of one stream follow one another and share one; streams have their own. All
memory is torch's caching allocator's, so that what a launch still uses when a larger workspace replaces it goes to
later work of the same stream only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.runtime.torch_state import is_capturing


class Workspaces:
    """The workspaces of one device, by stream. The first `counter_bytes` of each are zero at first."""

    def __init__(self, device: torch.device, counter_bytes: int = WORKSPACE_COUNTER_BYTES) -> None:
        self._device = device
        self._counter_bytes = counter_bytes
        self._kept: dict[int | None, Tensor] = {}

    def of(self, stream: int | None, size_bytes: int) -> Tensor:
        """A workspace of at least `size_bytes` for the next launch on `stream`, this thread's current one.

        A captured launch gets its own, from the graph's memory: the graph may be replayed together with anything.
        """
        if is_capturing():
            return self._fresh(size_bytes)
        kept = self._kept.get(stream)
        if kept is None or kept.numel() < size_bytes:
            kept = self._kept[stream] = self._fresh(size_bytes)
        return kept

    def _fresh(self, size_bytes: int) -> Tensor:
        workspace = torch.empty(size_bytes, dtype=torch.uint8, device=self._device)
        if self._counter_bytes:
            workspace[: self._counter_bytes].zero_()
        return workspace
