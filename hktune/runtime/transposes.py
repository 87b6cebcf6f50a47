"""Transposed copies of right-hand operands that are used again and again."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, UntypedStorage


@dataclass(frozen=True)
class _Seen:
    """A tensor as it was when last seen. `state`: torch's count of in-place writes to it, its memory and its layout.
    Holding on to the storage keeps other memory from coming to lie at its address."""

    source: weakref.ref[Tensor]
    storage: UntypedStorage
    state: tuple[Any, ...]
    transposed: Tensor | None = None


class Transposes:
    """Copies of b [K, N] as [N, K], for b that comes back unchanged; at most `limit_bytes` of them, oldest out first.

    A tensor is copied the second time that it is seen: one that is used once is not worth it. A copy is served to the
    very tensor and stream that it was made for, and only while the tensor's memory, layout and version are what they
    were: an in-place operation bumps the version, and a freed tensor takes its copy along. What torch does not see
    (writes through `.data`, numpy or a replayed graph) is not seen here either.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[tuple[int, int | None], _Seen] = {}
        self._lock = threading.Lock()

    def of(self, b: Tensor, stream: int | None) -> Tensor | None:
        """b [K, N] as a contiguous [N, K], or None where that is not kept."""
        if b.is_inference():  # has no version
            return None
        state = (b._version, b.data_ptr(), b.shape, b.stride())
        seen = self._kept.get((id(b), stream))
        if seen is None or seen.source() is not b or seen.state != state:
            self._note(b, stream, state)
            return None
        return self._copy(b, stream, seen) if seen.transposed is None else seen.transposed

    @property
    def kept_bytes(self) -> int:
        copies = [seen.transposed for seen in list(self._kept.values())]
        return sum(copy.nbytes for copy in copies if copy is not None)

    def _note(self, b: Tensor, stream: int | None, state: tuple[Any, ...]) -> None:
        key = (id(b), stream)

        def forget(gone: weakref.ref[Tensor]) -> None:
            seen = self._kept.get(key)
            if seen is not None and seen.source is gone:
                self._kept.pop(key, None)

        self._kept[key] = _Seen(weakref.ref(b, forget), b.untyped_storage(), state)

    def _copy(self, b: Tensor, stream: int | None, seen: _Seen) -> Tensor | None:
        if b.nbytes > self._limit_bytes:
            return None
        transposed = b.detach().t().contiguous()
        with self._lock:
            self._kept[id(b), stream] = replace(seen, transposed=transposed)
            for key in [key for key, each in list(self._kept.items()) if each.transposed is not None]:
                if self.kept_bytes <= self._limit_bytes:
                    break
                self._kept.pop(key, None)
        return transposed
