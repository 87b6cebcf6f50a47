"""What one workgroup executed, and where each of its instructions comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hktune.device.emulated import EmulatedKernel
from hktune.emulator.clock.trace import Trace
from hktune.emulator.instructions.assembly import assembly
from hktune.objects.source_lines import source_places


@dataclass(frozen=True)
class CodePlace:
    """An instruction: its text, its offset in the kernel, and the user's own line, "" without debug lines."""

    text: str
    offset: str
    line: str


@dataclass(frozen=True)
class ExecutionTrace:
    """`places` has every address of the trace's program."""

    trace: Trace
    places: Mapping[int, CodePlace]


def execution_trace(trace: Trace, kernel: EmulatedKernel) -> ExecutionTrace:
    """Of a launch of `kernel`."""
    base, entry = kernel.code.region.base, kernel.program.entry
    sources = source_places(kernel.data, [step.address - base for step in trace.program])
    places = {}
    for step in trace.program:
        source = sources.get(step.address - base)
        text = assembly(kernel.program.instruction(step.address), entry)
        places[step.address] = CodePlace(text, f"+{step.address - entry:#x}", str(source.own) if source else "")
    return ExecutionTrace(trace, places)
