"""Memories as numpy sees them: a block of bytes with wide views, and the address space made of such blocks."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""Numbers of one format, or truth values. A constant is a numpy scalar, which does what an array of one does."""
NumberType: TypeAlias = type[np.number]
"""numpy's type for a format of numbers."""
Words = npt.NDArray[np.uint32]

_PAGE_BYTES = 4096
_FIRST_ADDRESS = 1 << 32
# A copy of one complex128 moves 16 bytes untouched: numpy has no 128-bit integer.
_WIDE_VIEWS: dict[int, np.dtype[np.number]] = {
    16: np.dtype(np.complex128),
    8: np.dtype(np.uint64),
    4: np.dtype(np.uint32),
    2: np.dtype(np.uint16),
}

_ONES = {width: np.ones(width, np.uint8) for width in (1, *_WIDE_VIEWS)}


class Block:
    """Bytes that are gathered and scattered by byte index; indices must be inside.

    A gather of `size` bytes (1, 2, or a multiple of 4) at indices of shape (...) gives uint32 (..., max(1, size / 4)),
    zero-extended; a scatter takes the same shape and stores the low `size` bytes.
    """

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data = data
        self.size_bytes = data.size
        self.views: dict[int, Array] = {1: data}
        for width, dtype in _WIDE_VIEWS.items():
            self.views[width] = data[: data.size // width * width].view(dtype)

    def gather(self, index: Array, size: int) -> Words:
        view, spread = self._view(index, size)
        values = view.take(spread)
        if size < 4:  # as bytes where not every access is aligned
            return values.view(f"u{size}").reshape(index.shape).astype(np.uint32)[..., None]
        return values.view(np.uint32).reshape(*index.shape, size // 4)

    def scatter(self, index: Array, size: int, words: Words) -> None:
        view, spread = self._view(index, size)
        data = words[..., 0].astype(f"u{size}") if size < 4 else np.ascontiguousarray(words)
        view[spread] = data.view(view.dtype).reshape(spread.shape)

    def mark(self, index: Array, size: int) -> None:
        """Set `size` bytes at each index to 1."""
        view, spread = self._view(index, size)
        view[spread] = _ONES[view.itemsize].view(view.dtype)

    def _view(self, index: Array, size: int) -> tuple[Array, Array]:
        """The widest view that every access of this call is aligned to, and the elements of it to touch."""
        low_bits = int(np.bitwise_or.reduce(index, axis=None)) | size
        unit = min(low_bits & -low_bits, 16)
        while self.size_bytes % unit:
            unit //= 2
        elements = index >> (unit.bit_length() - 1)
        if unit != size:
            elements = elements[..., None] + np.arange(size // unit)
        return self.views[unit], elements


@dataclass(frozen=True)
class Region:
    """One allocation: where it is in the address space, and its bytes."""

    base: int
    block: Block
    writable: bool

    @property
    def end(self) -> int:
        return self.base + self.block.size_bytes


class AddressError(Exception):
    """An access left every allocation: `position` is its flat index in the access, `address` what it asked for."""

    def __init__(self, position: int, address: int, rule: str) -> None:
        super().__init__(f"address {address & (1 << 64) - 1:#x} {rule}")
        self.position = position
        self.address = address


class AddressSpace:
    """The device's memory: regions at deterministic addresses, a page of nothing between neighbours."""

    def __init__(self) -> None:
        self.on_stray: Callable[[AddressError], None] | None = None
        """Where it is set, an access that goes astray is given to it and not raised: it loads 0, or stores nothing."""
        self._lock = threading.RLock()
        self._map: tuple[tuple[int, ...], tuple[Region, ...]] = ((), ())
        self._next = _FIRST_ADDRESS

    def map(self, data: npt.NDArray[np.uint8], writable: bool = True) -> Region:
        """Give `data` an address; the memory stays the caller's. May be called while a kernel runs, as may unmap."""
        with self._lock:
            region = self.place(data, self._next, writable)
            self._next += (data.size // _PAGE_BYTES + 2) * _PAGE_BYTES
        return region

    def map_image(self, data: npt.NDArray[np.uint8], writable: Sequence[range]) -> tuple[Region, ...]:
        """The same of memory that may be stored to in some ranges only: a region each, and for what is between."""
        cuts = sorted({0, data.size, *(edge for each in writable for edge in (each.start, each.stop))})
        with self._lock:
            base = self._next
            self._next += (data.size // _PAGE_BYTES + 2) * _PAGE_BYTES
            return tuple(
                self.place(data[start:stop], base + start, any(start in each for each in writable))
                for start, stop in itertools.pairwise(cuts)
            )

    def place(self, data: npt.NDArray[np.uint8], base: int, writable: bool = True) -> Region:
        """The same at an address of the caller's choice, where nothing else is."""
        region = Region(base, Block(data), writable)
        with self._lock:
            bases, regions = self._map
            at = bisect.bisect_left(bases, base)
            self._map = ((*bases[:at], base, *bases[at:]), (*regions[:at], region, *regions[at:]))
        return region

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._map[1]

    def replace_blocks(self, block_of: Callable[[Region], Block]) -> None:
        """Give each region the block that `block_of` makes of it."""
        with self._lock:
            bases, regions = self._map
            self._map = (bases, tuple(Region(each.base, block_of(each), each.writable) for each in regions))

    def unmap(self, region: Region) -> None:
        with self._lock:
            kept = tuple(each for each in self._map[1] if each is not region)
            self._map = (tuple(each.base for each in kept), kept)

    def gather(self, addresses: Array, size: int) -> Words:
        """uint32 (..., dwords) from byte addresses (...), as Block.gather. Raises AddressError."""
        if addresses.size == 0:
            return np.empty((*addresses.shape, max(1, size // 4)), np.uint32)
        region = self._home(addresses, size)
        if region is not None:
            return region.block.gather(addresses - region.base, size)
        out = np.zeros((*addresses.shape, max(1, size // 4)), np.uint32)
        for found, chosen in self._split(addresses, size):
            out[chosen] = found.block.gather(addresses[chosen] - found.base, size)
        return out

    def scatter(self, addresses: Array, size: int, words: Words) -> None:
        """The reverse of gather. Raises AddressError, also for memory that is read-only."""
        if addresses.size == 0:
            return
        region = self._home(addresses, size)
        if region is not None and region.writable:
            region.block.scatter(addresses - region.base, size, words)
            return
        for found, chosen in self._split(addresses, size, writes=True):
            found.block.scatter(addresses[chosen] - found.base, size, words[chosen])

    def apply(self, operation: Callable[..., Words], addresses: Array, size: int, words: Words) -> Words:
        """Run an atomic (block, index, words) -> words on flat addresses (k,). Raises AddressError."""
        out = np.zeros((len(addresses), size // 4), np.uint32)
        for found, chosen in self._split(addresses, size, writes=True):
            out[chosen] = operation(found.block, addresses[chosen] - found.base, words[chosen])
        return out

    def region_of(self, address: int) -> Region | None:
        bases, regions = self._map
        at = bisect.bisect_right(bases, address) - 1
        return regions[at] if at >= 0 and address < regions[at].end else None

    def _home(self, addresses: Array, size: int) -> Region | None:
        """The one region that holds every access, if there is one."""
        region = self.region_of(int(addresses.min()))
        return region if region is not None and int(addresses.max()) + size <= region.end else None

    def _split(self, addresses: Array, size: int, writes: bool = False) -> list[tuple[Region, npt.NDArray[np.bool_]]]:
        """The regions that hold the accesses, each with a mask of the accesses it holds."""
        left = np.ones(addresses.shape, bool)
        if self.on_stray is not None:
            self._drop_strays(addresses, size, writes, left)
        parts = []
        while left.any():
            first = int(np.flatnonzero(left)[0])
            address = int(addresses.reshape(-1)[first])
            region = self.region_of(address)
            if region is None or (writes and not region.writable):
                raise AddressError(first, address, _why_stray(region, size, writes))
            chosen = left & (addresses >= region.base) & (addresses < region.end)
            over = np.flatnonzero(chosen & (addresses + size > region.end))
            if over.size:
                address = int(addresses.reshape(-1)[over[0]])
                raise AddressError(int(over[0]), address, _why_stray(region, size, writes))
            parts.append((region, chosen))
            left &= ~chosen
        return parts

    def _drop_strays(self, addresses: Array, size: int, writes: bool, left: npt.NDArray[np.bool_]) -> None:
        """Takes the accesses that leave every allocation from `left`, and tells `on_stray` of the first."""
        bases, regions = self._map
        ends = np.array([region.end if region.writable or not writes else region.base for region in regions])
        at = np.searchsorted(np.array(bases), addresses, side="right") - 1
        inside = (at >= 0) & (addresses + size <= ends[at])
        if not inside.all() and self.on_stray is not None:
            first = int(np.flatnonzero(~inside)[0])
            address = int(addresses.reshape(-1)[first])
            self.on_stray(AddressError(first, address, _why_stray(self.region_of(address), size, writes)))
            left &= inside


def _why_stray(region: Region | None, size: int, writes: bool) -> str:
    if region is None:
        return "is in no allocation"
    if writes and not region.writable:
        return "is read-only"
    return f"and the {size} bytes from it run past their allocation"
