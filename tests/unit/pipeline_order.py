"""Whether a traced GEMM reads every K-tile after it has landed, and overwrites it after it has been read.

Judged from the executed instructions and the memory model alone (CDNA4 ISA guide, section 4.4: counters decrement in
issue order): a wave knows that its own loads and reads are done by s_waitcnt, and tells the others by s_barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from hktune.emulator.trace import Step, Trace


@dataclass(frozen=True)
class Pipeline:
    """Per wave and K-tile: loads to LDS, reads from LDS; and how many tiles LDS holds."""

    loads_per_tile: int
    reads_per_tile: int
    stages: int


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
    tiles = len(orders[0].load_issued) // pipeline.loads_per_tile
    for order in orders:
        if len(order.load_issued) != tiles * pipeline.loads_per_tile:
            found.append(f"{len(order.load_issued)} loads are not {tiles} tiles of {pipeline.loads_per_tile}")
        if len(order.read_issued) != tiles * pipeline.reads_per_tile:
            found.append(f"{len(order.read_issued)} reads are not {tiles} tiles of {pipeline.reads_per_tile}")
    for tile in range(tiles):
        loads = slice(tile * pipeline.loads_per_tile, (tile + 1) * pipeline.loads_per_tile)
        reads = slice(tile * pipeline.reads_per_tile, (tile + 1) * pipeline.reads_per_tile)
        landed = max(done for order in orders for done in order.load_done[loads])
        first_read = min(issued for order in orders for issued in order.read_issued[reads])
        if first_read <= landed:
            found.append(f"tile {tile} is read at {first_read}, but has landed for all waves at {landed}")
        if tile >= pipeline.stages:
            before = slice(*((tile - pipeline.stages + end) * pipeline.reads_per_tile for end in (0, 1)))
            all_read = max(done for order in orders for done in order.read_done[before])
            refilled = min(issued for order in orders for issued in order.load_issued[loads])
            if refilled <= all_read:
                found.append(f"tile {tile} is sent for at {refilled}, but its place is free at {all_read}")
    return found
