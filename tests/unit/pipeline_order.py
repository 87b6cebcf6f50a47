"""Whether a traced GEMM reads every K-tile after it has landed, and overwrites it after it has been read.

Judged from the executed instructions and the memory model alone (CDNA4 ISA guide, section 4.4: counters decrement in
issue order): a wave knows that its own loads and reads are done by s_waitcnt, and tells the others by s_barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from hktune.emulator.clock.trace import Step, Trace


@dataclass(frozen=True)
class Pipeline:
    """Per wave: loads to LDS and reads from LDS of each part of a K-tile, in the order in which they are issued.

    `stages` is how many tiles LDS holds. A part is what is refilled by itself."""

    loads_of_part: tuple[int, ...]
    reads_of_part: tuple[int, ...]
    stages: int

    def loads(self, tile: int, part: int) -> slice:
        return _span(self.loads_of_part, tile, part)

    def reads(self, tile: int, part: int) -> slice:
        return _span(self.reads_of_part, tile, part)


def _span(counts: tuple[int, ...], tile: int, part: int) -> slice:
    start = tile * sum(counts) + sum(counts[:part])
    return slice(start, start + counts[part])


@dataclass
class WaveOrder:
    """By load and by read, in order of issue: how many barriers the wave had passed when it was issued and when it was
    known to be done. A wave alone needs no barriers: its own steps are counted instead."""

    load_issued: list[float] = field(default_factory=list)
    load_done: list[float] = field(default_factory=list)
    read_issued: list[float] = field(default_factory=list)
    read_done: list[float] = field(default_factory=list)
    hazards: list[str] = field(default_factory=list)


def wave_order(steps: Iterator[Step], alone: bool) -> WaveOrder:
    order = WaveOrder()
    now = 0
    in_flight: list[tuple[int, ...]] = []  # destination registers of reads not yet waited for, oldest first
    for step in steps:
        pending = {register for registers in in_flight for register in registers}
        if pending.intersection((*step.reads, *step.writes)):
            order.hazards.append(f"{step.mnemonic} at {step.address:#x} touches a register whose read is in flight")
        if alone or step.mnemonic == "s_barrier":
            now += 1
        if step.to_lds:
            order.load_issued.append(now)
            order.load_done.append(inf)
        elif step.mnemonic.startswith("ds_read"):
            order.read_issued.append(now)
            order.read_done.append(inf)
            in_flight.append(step.writes)
        elif step.mnemonic == "s_waitcnt":
            settle(order.load_done, step.vmcnt, now)
            settle(order.read_done, step.lgkmcnt, now)
            if step.lgkmcnt is not None:
                in_flight = in_flight[max(0, len(in_flight) - step.lgkmcnt) :]
    return order


def settle(done: list[float], left: int | None, now: int) -> None:
    """All but the last `left` are done now, if they were not before."""
    for index in range(len(done) - (len(done) if left is None else left)):
        done[index] = min(done[index], now)


def disorders(trace: Trace, pipeline: Pipeline) -> list[str]:
    """What is out of order in `trace`, in words; empty for a pipeline that is right on any timing."""
    orders = [wave_order((trace.program[index] for index in wave.steps), len(trace.waves) == 1) for wave in trace.waves]
    found = [hazard for order in orders for hazard in order.hazards]
    loads_per_tile, reads_per_tile = sum(pipeline.loads_of_part), sum(pipeline.reads_of_part)
    tiles = len(orders[0].load_issued) // loads_per_tile
    for order in orders:
        if len(order.load_issued) != tiles * loads_per_tile:
            found.append(f"{len(order.load_issued)} loads are not {tiles} tiles of {loads_per_tile}")
        if len(order.read_issued) != tiles * reads_per_tile:
            found.append(f"{len(order.read_issued)} reads are not {tiles} tiles of {reads_per_tile}")
    for tile in range(tiles):
        for part in range(len(pipeline.loads_of_part)):
            found += _disorders_of_part(orders, pipeline, tile, part)
    return found


def _disorders_of_part(orders: list[WaveOrder], pipeline: Pipeline, tile: int, part: int) -> list[str]:
    found = []
    loads, reads = pipeline.loads(tile, part), pipeline.reads(tile, part)
    landed = max(done for order in orders for done in order.load_done[loads])
    first_read = min(issued for order in orders for issued in order.read_issued[reads])
    if first_read <= landed:
        found.append(f"part {part} of tile {tile} is read at {first_read}, but has landed for all waves at {landed}")
    if tile >= pipeline.stages:
        before = pipeline.reads(tile - pipeline.stages, part)
        all_read = max(done for order in orders for done in order.read_done[before])
        refilled = min(issued for order in orders for issued in order.load_issued[loads])
        if refilled <= all_read:
            found.append(f"part {part} of tile {tile} is fetched at {refilled}, but its place is free at {all_read}")
    return found
