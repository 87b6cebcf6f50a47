"""Which bytes of memory a part of a launch reads and writes, and what it leaves there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.emulator.machine.memory import AddressSpace, Array, Block, Region, Words

Bits = npt.NDArray[np.uint8]


class MarkedBlock(Block):
    """Remembers which of its bytes were read, and which were written."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        super().__init__(data)
        self.read, self.written = (Block(np.zeros(data.size, np.uint8)) for _ in range(2))

    def gather(self, index: Array, size: int) -> Words:
        self.read.mark(index, size)
        return super().gather(index, size)

    def scatter(self, index: Array, size: int, words: Words) -> None:
        self.written.mark(index, size)
        super().scatter(index, size, words)


@dataclass(frozen=True)
class Touched:
    """Of the region at `base`: a bit for each byte that was read, and for each that was written; and what the written
    ones hold, one after another."""

    base: int
    read: Bits
    written: Bits
    left: npt.NDArray[np.uint8]


def mark(space: AddressSpace) -> None:
    """From now on the memory that kernels may write remembers what happens to it."""
    space.replace_blocks(lambda region: MarkedBlock(region.block.data) if region.writable else region.block)


def touched(space: AddressSpace) -> list[Touched]:
    """What has happened since `mark`."""
    found = []
    for region in space.regions:
        block = region.block
        if isinstance(block, MarkedBlock) and (block.read.data.any() or block.written.data.any()):
            read, written = (np.packbits(each.data) for each in (block.read, block.written))
            found.append(Touched(region.base, read, written, block.data[block.written.data.view(bool)]))
    return found


def independent(parts: Iterable[Iterable[Touched]]) -> bool:
    """Whether no part writes a byte that another one reads or writes: then their order does not matter."""
    read: dict[int, Bits] = {}
    written: dict[int, Bits] = {}
    for part in parts:
        for each in part:
            nothing = np.zeros_like(each.read)
            read_before, written_before = read.get(each.base, nothing), written.get(each.base, nothing)
            if (each.written & (read_before | written_before)).any() or (each.read & written_before).any():
                return False
            read[each.base], written[each.base] = read_before | each.read, written_before | each.written
    return True


def apply(space: AddressSpace, parts: Iterable[Iterable[Touched]]) -> None:
    """Write what the parts have left."""
    for each in (each for part in parts for each in part):
        region: Region | None = space.region_of(each.base)
        if region is not None:
            data = region.block.data
            data[np.unpackbits(each.written, count=data.size).view(bool)] = each.left
