"""A CUDA launch made ready: parameters packed once, of which a call fills in the pointers."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_pack_pointer = struct.Struct("<Q").pack_into
_MAPS_MAX = 1024  # addresses whose tensor maps are kept, for each matrix


@dataclass(frozen=True)
class PointerSlot:
    """A parameter that a call fills in with the tensor at `place` among its own; `encode` makes the tensor map of an
    address where the kernel takes one."""

    place: int
    offset_bytes: int
    encode: Callable[[int], bytes] | None


class _Parameters(threading.local):
    """Each thread's own parameter buffer, and the address of every parameter in it. Enters the context: a thread that
    torch has not used yet has none."""

    def __init__(self, template: bytes, offsets_bytes: Sequence[int], enter: Callable[[], None]) -> None:
        enter()
        buffer = ctypes.create_string_buffer(template, len(template))
        base = ctypes.addressof(buffer)
        self.values = memoryview(buffer).cast("B")  # keeps the buffer
        self.addresses = (ctypes.c_void_p * len(offsets_bytes))(*(base + offset for offset in offsets_bytes))


class PreparedCudaLaunch:
    """A `PreparedLaunch`. `start` is the driver's launch of everything but stream and parameters; the device must be
    the thread's current one, as it is while torch works on it."""

    def __init__(
        self,
        start: Callable[[int | None, ctypes.Array[ctypes.c_void_p]], None],
        template: bytes,
        offsets_bytes: Sequence[int],
        slots: Sequence[PointerSlot],
        enter: Callable[[], None],
    ) -> None:
        self._start = start
        self._parameters = _Parameters(template, offsets_bytes, enter)
        self._pointers = [(slot.place, slot.offset_bytes) for slot in slots if slot.encode is None]
        maps: list[dict[int, bytes]] = [{} for _ in slots]
        self._maps = [
            (slot.place, slot.offset_bytes, slot.encode, known)
            for slot, known in zip(slots, maps, strict=True)
            if slot.encode is not None
        ]

    def __call__(self, *tensors_and_stream: Any) -> None:
        parameters = self._parameters
        values = parameters.values
        for place, offset in self._pointers:
            tensor = tensors_and_stream[place]
            _pack_pointer(values, offset, 0 if tensor is None else tensor.data_ptr())
        for place, offset, encode, known in self._maps:
            tensor = tensors_and_stream[place]
            address = 0 if tensor is None else tensor.data_ptr()
            encoded = known.get(address)
            if encoded is None:
                if len(known) >= _MAPS_MAX:
                    known.clear()
                encoded = known[address] = encode(address)
            values[offset : offset + len(encoded)] = encoded
        self._start(tensors_and_stream[-1], parameters.addresses)
