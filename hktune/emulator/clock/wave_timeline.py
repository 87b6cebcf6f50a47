"""When each wave of one workgroup does what, alone on a compute unit: for a picture, and for clk by instruction."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.arch import Arch
from hktune.emulator.clock.compute_unit import ComputeUnit, Wave
from hktune.emulator.clock.instruction_stream import (
    BARRIER,
    LDS,
    LOAD,
    MFMA,
    SCALAR_LOAD,
    STORE,
    WAIT,
    operations_of,
)
from hktune.emulator.clock.rates import arch_rates
from hktune.emulator.clock.trace import Trace

MEMORY_CLK = 800
"""What a load from memory takes here: nothing else is on the device."""
ACTIVITIES = ("MFMA", "LDS", "load", "store", "wait", "barrier", "other")
_ACTIVITY = {MFMA: "MFMA", LDS: "LDS", LOAD: "load", SCALAR_LOAD: "load", STORE: "store", BARRIER: "barrier"}


@dataclass(frozen=True)
class Span:
    """What a wave does from one clk to another: it executes the instruction at `address`, or waits in it."""

    activity: str
    start_clk: int
    end_clk: int
    address: int


@dataclass(frozen=True)
class Timeline:
    """`waves` has the spans of each wave, in order. `clk_by_address`: clk from the issue before an instruction to its
    own, the mean over the waves: what it waited for is its own."""

    waves: tuple[tuple[Span, ...], ...]
    clk_by_address: dict[int, float]
    end_clk: int


def timeline_of(trace: Trace, arch: Arch) -> Timeline:
    """The workgroup of `trace`. Raises InputError where one of its waves did not end."""
    operations = operations_of(trace, arch_rates(arch))
    resident, end_clk = ComputeUnit(arch, arch_rates(arch), MEMORY_CLK).run([operations])
    spans, clk = [], dict[int, float]()
    for wave, traced in zip(resident[0], trace.waves, strict=True):
        addresses = [trace.program[index].address for index in traced.steps.tolist()]
        spans.append(_spans(wave, addresses))
        before = 0
        for address, issued in zip(addresses, wave.issued, strict=True):
            clk[address] = clk.get(address, 0.0) + (issued - before) / len(trace.waves)
            before = issued
    return Timeline(tuple(spans), clk, end_clk)


def _spans(wave: Wave, addresses: list[int]) -> tuple[Span, ...]:
    """One for each instruction; an s_waitcnt begins where the instruction before it was issued."""
    spans = []
    free = 0
    for position, (operation, issued) in enumerate(zip(wave.operations, wave.issued, strict=True)):
        kind, start, end = operation.kind, issued, issued + operation.delay_clk
        if kind == WAIT:
            start, end = min(free, issued), max(issued, free)
        elif kind == MFMA:
            end = issued + operation.busy_clk
        elif position in wave.held:
            end = wave.held[position]
        free = issued + operation.delay_clk
        spans.append(Span("wait" if kind == WAIT else _ACTIVITY.get(kind, "other"), start, end, addresses[position]))
    return tuple(spans)
