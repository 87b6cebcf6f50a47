"""What each wave issues, as the clock's compute unit takes it: one operation per executed step, main loop extended.

The main loop is the backward branch with the most MFMAs in its loop. Its headers cut a wave's steps into whole
iterations; a kernel without such a loop is cut at the first MFMA of each k-step. A proved problem may have too few
iterations to reach a steady state, so a middle one (neither the first nor a last that no longer prefetches) repeats.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hktune.core.errors import InputError
from hktune.emulator.clock.rates import Rates
from hktune.emulator.clock.trace import Step, Trace, WaveTrace

WAVE = 64
"""Lanes of a wave."""

MFMA, VALU, SCALAR, SCALAR_LOAD, LDS, LOAD, STORE, BRANCH, WAIT, BARRIER, PRIORITY, PAUSE, END = range(13)
"""Kinds of operation."""

ISSUE_CLASS = (1, 1, 2, 2, 4, 8, 8, 16, 0, 0, 0, 0, 0)
"""By kind: instructions of one class share one issue port of a SIMD; 0 is consumed in the wave's own buffer."""


class _Result(NamedTuple):
    """What an MFMA wrote: where it is in its wave's steps, and the clk from its issue until others may read it."""

    position: int
    clk: int
    registers: tuple[int, ...]


class Operation(NamedTuple):
    """One executed instruction.

    `delay_clk` passes before the wave may issue its next; `busy_clk` is what its own unit is held (MFMA pipe, VALU,
    LDS banks, TCP). `first`, `second`: LDS bus clk and result flag; bytes in flight and bytes written to LDS; bytes in
    flight and whether memory answers (a store; of a scalar load the second alone); the vmcnt and lgkmcnt waited for
    (-1: not); the priority set. `back` operations earlier is the MFMA whose result is
    read, `result_clk` after its issue at the earliest; 0 where there is none.
    """

    kind: int
    delay_clk: int
    busy_clk: int = 0
    first: int = 0
    second: int = 0
    back: int = 0
    result_clk: int = 0


@dataclass(frozen=True)
class Workgroup:
    """What one workgroup's waves issue, and where its main loop is.

    `operations` has one list per wave; `headers`, also per wave, where each whole iteration begins and the last one
    ends. `steps_per_iteration` is in k-steps; `peeled_steps`: k-steps outside the whole iterations. `store_bytes`:
    what the workgroup stores in all.
    """

    operations: tuple[list[Operation], ...]
    headers: tuple[list[int], ...]
    steps_per_iteration: float
    peeled_steps: float
    store_bytes: int


def workgroup_of(
    trace: Trace, k_steps: int, rates: Rates, least_steps: int = 12, least_iterations: int = 6
) -> Workgroup:
    """The operations of `trace`, its main loop extended to at least so many k-steps and iterations.

    `k_steps` is how many the traced problem had. Raises InputError when a wave issued no MFMA or fewer than two k-steps
    were traced, since there is nothing then to tell a loop by, and when the waves walked it unequally often.
    """
    mfma = np.array([step.matrix is not None for step in trace.program], dtype=bool)
    issued = [int(mfma[wave.steps].sum()) for wave in trace.waves]
    if min(issued, default=0) == 0 or k_steps < 2:
        raise InputError(f"a profile needs MFMAs in every wave over at least 2 k-steps: got {issued} over {k_steps}")
    cuts = [_headers(wave.steps, mfma, k_steps) for wave in trace.waves]
    if len({len(cut) for cut in cuts}) > 1:
        raise InputError(f"a profile needs waves that walk the main loop together: got {[len(cut) for cut in cuts]}")
    body = int(mfma[trace.waves[0].steps[cuts[0][0] : cuts[0][1]]].sum())
    steps_per_iteration = body * k_steps / issued[0]
    iterations = len(cuts[0]) - 1
    extra = max(0, least_iterations - iterations, math.ceil(least_steps / steps_per_iteration) - iterations)
    middle = (iterations - 1) // 2
    longer = [_extended(wave, cut, middle, extra) for wave, cut in zip(trace.waves, cuts, strict=True)]
    return Workgroup(
        operations=operations_of(Trace(trace.program, tuple(wave for wave, _ in longer)), rates),
        headers=tuple(headers for _, headers in longer),
        steps_per_iteration=steps_per_iteration,
        peeled_steps=k_steps - iterations * steps_per_iteration,
        store_bytes=_store_bytes(trace),
    )


def operations_of(trace: Trace, rates: Rates) -> tuple[list[Operation], ...]:
    """What each wave issues. Waves that did the same share one list. Raises InputError when one did not end."""
    static = tuple(_static_operation(step, rates) for step in trace.program)
    known: dict[tuple[bytes, ...], list[Operation]] = {}
    operations: list[list[Operation]] = []
    for wave in trace.waves:
        key = (wave.steps.tobytes(), wave.lds_bank_clocks.tobytes(), wave.lines.tobytes())
        if key not in known:
            known[key] = _operations(wave, trace.program, static, rates)
            if not known[key] or known[key][-1].kind != END:
                raise InputError(
                    f"each wave's trace ends with s_endpgm: wave {len(operations)}'s does not, so trace anew"
                )
        operations.append(known[key])
    return tuple(operations)


def _headers(steps: npt.NDArray[np.int32], mfma: npt.NDArray[np.bool_], k_steps: int) -> list[int]:
    """Where each iteration begins; the last entry ends the last whole one."""
    positions = np.flatnonzero(np.diff(steps) <= 0)
    edges = Counter(zip(steps[positions].tolist(), steps[positions + 1].tolist(), strict=True))
    executed = np.bincount(steps, minlength=len(mfma)) * mfma
    if edges:
        _, target = max(edges, key=lambda edge: (executed[edge[1] : edge[0] + 1].sum(), edges[edge]))
        headers = np.flatnonzero(steps == target)
        if len(headers) > 1 and mfma[steps[headers[0] : headers[1]]].any():
            return [int(position) for position in headers]
    issued = np.flatnonzero(mfma[steps])
    return [int(issued[step * len(issued) // k_steps]) for step in range(k_steps)]


def _store_bytes(trace: Trace) -> int:
    widths = np.array(
        [step.bytes_per_lane if step.mnemonic.startswith(_STORES) else 0 for step in trace.program], dtype=np.int64
    )
    return sum(int(widths[wave.steps].sum()) for wave in trace.waves) * WAVE


def _extended(wave: WaveTrace, headers: list[int], middle: int, extra: int) -> tuple[WaveTrace, list[int]]:
    """`wave` with iteration `middle` repeated `extra` times more, and its headers."""
    start, stop = headers[middle], headers[middle + 1]

    def longer(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.concatenate([values[:stop], np.tile(values[start:stop], extra), values[stop:]])

    length = stop - start
    copies = [stop + copy * length for copy in range(extra)]
    moved = [position + extra * length for position in headers[middle + 1 :]]
    whole = WaveTrace(longer(wave.steps), longer(wave.lds_bank_clocks), longer(wave.lines))
    return whole, [*headers[: middle + 1], *copies, *moved]


def _static_operation(step: Step, rates: Rates) -> Operation:
    """The operation of a step, less what differs from one execution to the next (bank clocks, lines)."""
    name, slot = step.mnemonic, rates.issue_slot_clk
    if step.matrix is not None:
        return Operation(MFMA, slot, step.matrix.passes * rates.matrix_pass_clk)
    if name.startswith("v_"):
        clk = rates.transcendental_clk if name.startswith(_TRANSCENDENTAL) else rates.valu_clk
        return Operation(VALU, clk, clk)
    if name.startswith("ds_"):
        return Operation(LDS, slot, 0, -(-step.bytes_per_lane * WAVE // rates.lds_bus_bytes_per_clk))
    if name.startswith(_LOADS):
        return Operation(LOAD, slot, 0, step.bytes_per_lane * WAVE, step.bytes_per_lane * WAVE * step.to_lds)
    if name.startswith(_STORES):
        return Operation(STORE, slot, 0, 0, int(step.coherent))
    return _scalar_operation(step, rates)


def _scalar_operation(step: Step, rates: Rates) -> Operation:
    name, slot, immediate = step.mnemonic, rates.issue_slot_clk, step.immediate or 0
    if name == "s_waitcnt":
        vmcnt, lgkmcnt = (-1 if count is None else count for count in (step.vmcnt, step.lgkmcnt))
        return Operation(WAIT, slot, 0, vmcnt, lgkmcnt)
    if name == "s_nop":
        return Operation(PAUSE, slot * (immediate + 1))
    if name == "s_sleep":
        return Operation(PAUSE, max(slot, rates.sleep_unit_clk * immediate))
    if name == "s_setprio":
        return Operation(PRIORITY, slot, 0, immediate & 3)
    if name.startswith(("s_load", "s_buffer_load", "s_scratch_load")):
        return Operation(SCALAR_LOAD, slot, 0, 0, int(step.coherent))
    kinds = {"s_barrier": BARRIER, "s_endpgm": END}
    if name in kinds:
        return Operation(kinds[name], slot)
    return Operation(BRANCH if name.startswith(("s_branch", "s_cbranch")) else SCALAR, slot)


_LOADS = ("buffer_load", "global_load", "flat_load", "scratch_load")
_STORES = ("buffer_store", "global_store", "flat_store", "scratch_store", "buffer_atomic", "global_atomic")
_TRANSCENDENTAL = ("v_exp", "v_log", "v_rcp", "v_rsq", "v_sqrt", "v_sin", "v_cos")


def _operations(
    wave: WaveTrace, program: tuple[Step, ...], static: tuple[Operation, ...], rates: Rates
) -> list[Operation]:
    """One operation per executed step, with its own bank clocks and lines, and the MFMA result that it waits for."""
    readable: dict[int, _Result] = {}
    operations: list[Operation] = []
    indices = wave.steps.tolist()
    columns = zip(indices, wave.lds_bank_clocks.tolist(), wave.lines.tolist(), strict=True)
    for position, (index, bank_clk, lines) in enumerate(columns):
        step, operation = program[index], static[index]
        kind = operation.kind
        if kind == LDS:
            operation = operation._replace(busy_clk=bank_clk)
        elif kind in (LOAD, STORE):
            operation = _memory_operation(operation, step, lines, rates)
        elif kind == BRANCH and position + 1 < len(indices) and indices[position + 1] != index + 1:
            operation = operation._replace(delay_clk=rates.branch_clk)
        if readable and kind <= STORE:
            operation = _after_mfma(operation, step, position, readable, rates.issue_slot_clk)
        if step.matrix is not None:
            result = _Result(position, (step.matrix.result + 1) * rates.issue_slot_clk, step.writes)
            readable.update(dict.fromkeys(step.writes, result))
        elif readable and step.writes and kind != STORE:
            for register in step.writes:
                readable.pop(register, None)
        operations.append(operation)
    return operations


def _memory_operation(operation: Operation, step: Step, lines: int, rates: Rates) -> Operation:
    """TCP clk of a global memory instruction: its data or its lines, whichever take longer; a lane at most one clk.

    Two dwords a lane cost as much as four (measured: AMD's gfx950 Gluon tutorials).
    """
    width = 16 if step.bytes_per_lane == 8 else step.bytes_per_lane
    data_clk = -(-width * WAVE // rates.tcp_bytes_per_clk)
    line_clk = (
        math.ceil(lines * rates.tcp_line_clk) if operation.kind == LOAD else min(lines * rates.tcp_store_line_clk, WAVE)
    )
    busy_clk = max(data_clk, line_clk, rates.issue_slot_clk)
    in_flight = operation.first if operation.kind == LOAD else busy_clk * rates.tcp_bytes_per_clk
    return operation._replace(busy_clk=busy_clk, first=in_flight)


def _after_mfma(
    operation: Operation, step: Step, position: int, readable: dict[int, _Result], slot_clk: int
) -> Operation:
    """`operation` with the latest MFMA whose result it reads, unless that can be read by then: every step in between
    takes a slot.

    What an MFMA adds to is forwarded if it is the whole result of another (ISA guide, table 38: no wait states).
    """
    latest: _Result | None = None
    for register in _read_once_written(step, readable) if operation.kind == MFMA else step.reads:
        result = readable.get(register)
        if result is not None and (latest is None or result.position > latest.position):
            latest = result
    if latest is None or (position - latest.position) * slot_clk > latest.clk:
        return operation
    return operation._replace(back=position - latest.position, result_clk=latest.clk)


def _read_once_written(step: Step, readable: dict[int, _Result]) -> tuple[int, ...]:
    """The registers that an MFMA reads only once an earlier one's result is written: its addend may be forwarded."""
    size = len(step.writes)
    factors, addend = step.reads[:-size], step.reads[-size:]
    result = readable.get(addend[0])
    return factors if result is not None and result.registers == addend else step.reads
