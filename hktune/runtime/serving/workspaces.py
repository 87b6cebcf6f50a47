"""Scratch memory of kernels that share a problem among workgroups.

A kernel's workspace begins with counters that are zero before and after every launch (launch.Launch). An algorithm of a
library leaves anything in its own. Launches of one stream follow one another and share one; streams have their own, and
so has every graph. All memory is torch's caching allocator's, so that what a launch still uses when a larger workspace
replaces it goes to later work of the same stream only.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from hktune.core.errors import DeviceError
from hktune.core.launch import WORKSPACE_COUNTER_BYTES
from hktune.device.device import Capture, GraphLife
from hktune.runtime.torch_state import is_capturing

_Made = TypeVar("_Made")


def made_to_last(make: Callable[[], _Made]) -> _Made:
    """What `make` allocates, as memory that may be kept. What this thread allocates may be of a pool that torch checks
    for such (a compiled program's, while it is warmed up for graphs): another thread's is not."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(make).result()


@dataclass
class _Captured:
    """What a graph's launches use while it may be replayed: of each stream the latest, and what that replaced."""

    life: GraphLife
    latest: dict[int, Tensor] = field(default_factory=dict)
    replaced: list[Tensor] = field(default_factory=list)


class _Memory:
    """Bytes of torch's allocator that are `stream`'s, whatever this thread's current stream is."""

    def __init__(self, size_bytes: int, device: torch.device, stream: torch.cuda.Stream | int) -> None:
        address: int = torch.cuda.caching_allocator_alloc(size_bytes, device, stream)
        weakref.finalize(self, torch.cuda.caching_allocator_delete, address).atexit = False
        data = (address, False)
        self.__cuda_array_interface__ = {"shape": (size_bytes,), "typestr": "|u1", "data": data, "version": 3}


class Workspaces:
    """The workspaces of one device, by stream. The first `counter_bytes` of each are zero at first."""

    def __init__(
        self,
        device: torch.device,
        counter_bytes: int = WORKSPACE_COUNTER_BYTES,
        captured_by: Callable[[int], Capture | None] | None = None,
    ) -> None:
        """`captured_by` says what a stream is being captured into; see `CapturedDevice`."""
        self._device = device
        self._counter_bytes = counter_bytes
        self._captured_by = captured_by if counter_bytes else None
        self._kept: dict[int | None, Tensor] = {}
        self._captured: dict[int, _Captured] = {}
        self._capturing = threading.Lock()
        self._aside: torch.cuda.Stream | None = None

    def of(self, stream: int | None, size_bytes: int) -> Tensor:
        """A workspace of at least `size_bytes` for the next launch on `stream`, this thread's current one."""
        if is_capturing():
            return self._of_capture(stream, size_bytes)
        kept = self._kept.get(stream)
        if kept is None or kept.numel() < size_bytes:
            kept = self._kept[stream] = self._cleared(self._lasting(size_bytes, stream))
        return kept

    def _of_capture(self, stream: int | None, size_bytes: int) -> Tensor:
        """One of the graph's own, for it may be replayed together with anything. Its launches of one stream share it:
        each replay clears the counters once, before the first of them. So they are zero even where a replay before was
        cut short. Where nobody knows how long the graph lives, each launch has one, of the graph's memory."""
        capture = self._captured_by(stream) if self._captured_by and stream is not None else None
        if capture is None or stream is None:
            return self._fresh(size_bytes)
        with self._capturing:
            try:
                captured = self._captured.get(capture.number) or self._begun(capture)
            except DeviceError:
                return self._fresh(size_bytes)
            latest = captured.latest.get(stream)
            if latest is None or latest.numel() < size_bytes:
                captured.replaced += [] if latest is None else [latest]
                latest = captured.latest[stream] = self._cleared(self._outside_graph(size_bytes))
            return latest

    def _begun(self, capture: Capture) -> _Captured:
        """The first launch of a capture; what graphs had that are gone is given back."""
        captured = _Captured(capture.life())
        self._captured = {number: each for number, each in self._captured.items() if not each.life.is_over}
        self._captured[capture.number] = captured
        return captured

    def _lasting(self, size_bytes: int, stream: int | None) -> Tensor:
        if self._device.type != "cuda" or stream is None:
            return torch.empty(size_bytes, dtype=torch.uint8, device=self._device)
        memory = made_to_last(partial(_Memory, size_bytes, self._device, stream))
        return torch.as_tensor(memory, device=self._device)

    def _outside_graph(self, size_bytes: int) -> Tensor:
        """Memory that torch does not hand to other work of the capture: it does so with a graph's own as soon as no
        tensor has it. Another stream's is not the graph's."""
        if self._aside is None:
            self._aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.as_tensor(_Memory(size_bytes, self._device, self._aside), device=self._device)

    def _fresh(self, size_bytes: int) -> Tensor:
        return self._cleared(torch.empty(size_bytes, dtype=torch.uint8, device=self._device))

    def _cleared(self, workspace: Tensor) -> Tensor:
        if self._counter_bytes:
            workspace[: self._counter_bytes].zero_()
        return workspace
