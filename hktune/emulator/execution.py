"""Runs a dispatch: batches of workgroups, and inside a batch all waves that are at the same instruction.

Among ready waves those with the lowest program counter go first, so that waves parted by a branch meet again where
the paths join. A barrier counts arrivals and does not look at program counters: on gfx950 the waves of a workgroup
may wait at different barriers, as staggered kernels do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.core.attended import attended_s
from hktune.core.errors import KernelFault
from hktune.emulator.clock.trace_recorder import Recorder
from hktune.emulator.hazards.checker import Hazards, shadow_of
from hktune.emulator.hazards.finding import Locate, Watch
from hktune.emulator.hazards.footprint import footprints_of
from hktune.emulator.hazards.memory_shadow import MemoryShadow
from hktune.emulator.instructions.control import Trap
from hktune.emulator.instructions.program import Block, Program
from hktune.emulator.machine.memory import AddressError, AddressSpace
from hktune.emulator.machine.wave_start import Descriptor, Dispatch, Pointers, start
from hktune.emulator.machine.waves import Lanes, Waves
from hktune.emulator.schedules.late_data import LateData
from hktune.emulator.schedules.schedule import USUAL, Schedule
from hktune.emulator.slices import RunBatch, Slices

_BATCH_WAVES = 128
_BATCH_BYTES = 1 << 29
_BLOCKS_BETWEEN_TURNS = 4096
"""After so many blocks of one group while others are ready, another group gets a turn: it may be waited for."""


@dataclass
class Limits:
    """When to give up: attended seconds of a launch, and instructions executed by groups of waves. None means never."""

    deadline_s: float | None = None
    max_steps: int | None = None
    started: float = 0.0
    steps: int = 0

    def spend(self, steps: int, where: int) -> None:
        self.steps += steps
        if self.max_steps is not None and self.steps > self.max_steps:
            raise KernelFault("timeout", f"still running after {self.max_steps} steps, at {where:#x}; it may not end")
        if self.deadline_s is not None and attended_s() - self.started > self.deadline_s:
            raise KernelFault("timeout", f"still running after {self.deadline_s} s, at {where:#x}; it may not end")


@dataclass(frozen=True)
class Machine:
    """What a dispatch runs on: memory, code, what the kernel expects at its start, and where its arguments are."""

    space: AddressSpace
    program: Program
    descriptor: Descriptor
    pointers: Pointers
    locate: Locate = lambda _address: ""


def run_dispatch(
    machine: Machine,
    dispatch: Dispatch,
    limits: Limits,
    recorder: Recorder | None = None,
    watch: Watch | None = None,
    schedule: Schedule = USUAL,
    workers: int = 1,
) -> None:
    """Execute every workgroup, looking for hazards where a `watch` is given. Hazards are looked for with early data
    only. What would take long may be divided among processes, at most `workers` (slices.py).

    Raises KernelFault: crashed, hazard or timeout.
    """
    limits.started = attended_s()
    size = batch_workgroups(dispatch)
    firsts = range(0, dispatch.workgroups, size)
    if schedule.last_first:
        firsts = firsts[::-1]
        workers = workers if recorder is None else 1  # what the first workgroup executes must be heard here
    shadow = shadow_of(machine.space, dispatch) if watch is not None else None

    def run_batch(first: int) -> None:
        count = min(size, dispatch.workgroups - first)
        waves = Waves(machine.space, count, dispatch.waves_per_workgroup, dispatch.lds_bytes, dispatch.scratch_bytes)
        notes = waves.recorder = recorder if first == 0 else None
        hazards = _hazards_of(machine, dispatch, waves, first, shadow, watch)
        late = LateData(waves) if schedule.late and hazards is None else None
        waves.hazards = late or hazards
        waves.pc[:] = machine.program.entry
        start(waves, machine.descriptor, dispatch, machine.pointers, first)
        _Batch(waves, machine, dispatch, first, limits, notes, hazards, late, schedule).run()

    mixes = machine.program.has_atomics
    slices = Slices(run_batch, machine.space, watch, lambda: limits.steps, mixes, workers)
    with np.errstate(all="ignore"):
        _run_batches(firsts, run_batch, slices, limits)


def _hazards_of(
    machine: Machine, dispatch: Dispatch, waves: Waves, first: int, shadow: MemoryShadow | None, watch: Watch | None
) -> Hazards | None:
    """What looks for hazards in the batch that begins with workgroup `first`, and hears of its strays; None where
    nothing is looked for."""
    if shadow is None or watch is None:
        return None
    entry = machine.program.block_at(machine.program.entry)
    hazards = Hazards(waves, dispatch, first, machine.descriptor, shadow, watch, entry)
    machine.space.on_stray = hazards.stray if watch.gather else None
    return hazards


def _run_batches(firsts: range, run_batch: RunBatch, slices: Slices, limits: Limits) -> None:
    """One after another; once it is known how long one takes, those that are left may be divided."""
    may_divide = True
    for done, first in enumerate(firsts):
        batch_s = (attended_s() - limits.started) / max(done, 1)
        if done and may_divide and slices.worth(len(firsts) - done, batch_s):
            begun = attended_s()
            steps_left = None if limits.max_steps is None else limits.max_steps - limits.steps
            steps = slices.run(firsts[done:], batch_s, steps_left)
            if steps is not None:
                limits.steps += steps
                return
            may_divide = False
            limits.started += attended_s() - begun  # spent for nothing
        run_batch(first)


def batch_workgroups(dispatch: Dispatch) -> int:
    """How many workgroups run side by side: enough to amortise Python, few enough to stay in memory."""
    waves = dispatch.waves_per_workgroup
    each = waves * (512 * 64 * 4 + 64 * dispatch.scratch_bytes) + dispatch.lds_bytes
    return max(1, min(_BATCH_WAVES // waves, _BATCH_BYTES // each, dispatch.workgroups))


class _Batch:
    """Scheduler of one batch."""

    def __init__(
        self,
        waves: Waves,
        machine: Machine,
        dispatch: Dispatch,
        first: int,
        limits: Limits,
        recorder: Recorder | None,
        hazards: Hazards | None,
        late: LateData | None,
        schedule: Schedule,
    ) -> None:
        self._waves = waves
        self._program = machine.program
        self._locate = machine.locate
        self._dispatch = dispatch
        self._first = first
        self._limits = limits
        self._recorder = recorder
        self._hazards = hazards
        self._late = late
        self._chooser = None if schedule == USUAL else schedule.chooser()
        self._turns = 0

    def run(self) -> None:
        m = self._waves
        while not m.done.all():
            ready = np.flatnonzero(~(m.done | m.waiting | m.halted))
            if not len(ready):
                raise KernelFault("timeout", self._stuck())
            chosen = self._choose(ready)
            group = as_slice(chosen)
            m.full = bool(m.active[group].all())
            if self._recorder is not None:
                self._recorder.enter(chosen, m.workgroups)
            if self._hazards is not None:
                self._hazards.enter(chosen)
            self._run_group(group, len(chosen) == len(ready))
            self._release()

    def _choose(self, ready: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        places = self._waves.pc[ready]
        self._turns += 1
        late = self._turns % _BLOCKS_BETWEEN_TURNS == 0
        chosen: npt.NDArray[np.int64]
        if self._chooser is not None and not late:
            chosen = self._chooser.choose(ready, places)
        else:
            chosen = ready[places == (places.max() if late else places.min())]
        if not self._waves.unusual:
            return chosen
        modes = self._waves.mode_of(chosen)
        alike: npt.NDArray[np.int64] = chosen[modes == modes[0]]
        return alike

    def _run_group(self, group: Lanes, alone: bool) -> None:
        """Run a group block by block for as long as it stays whole and no other group may be waiting to join."""
        m, program = self._waves, self._program
        address: int | None = int(m.pc[group][0])
        try:
            while address is not None:
                block = program.block_at(address)
                if m.unusual:
                    mode = int(m.mode_of(group)[0])
                    block = program.under(block, mode) if mode else block
                self._limits.spend(len(block.instructions), address)
                if self._recorder is not None:
                    self._recorder.block(block)
                if self._hazards is not None:
                    self._run_checked(block, group)
                elif self._late is not None:
                    for step, footprint in zip(block.steps, footprints_of(block), strict=False):
                        self._late.execute(footprint, step, group)
                else:
                    for step in block.steps:
                        step(m, group)
                address = block.terminate(m, group) if block.terminate else block.next_address
                if address is not None and not alone:
                    m.pc[group] = address
                    return
        except AddressError as error:
            raise KernelFault("hazard", self._describe(error, group)) from None
        except Trap as trap:
            wave = self._name(int(np.arange(m.count)[group][0]))
            place = self._locate(trap.instruction.address)
            raise KernelFault("crashed", f"{trap.instruction}{place}, {wave}: {trap}") from None

    def _run_checked(self, block: Block, group: Lanes) -> None:
        """The block's steps, each after the check that it is safe; the terminator's check comes last."""
        m, hazards, footprints = self._waves, self._hazards, footprints_of(block)
        assert hazards is not None
        hazards.begin(block)
        for number, (step, footprint) in enumerate(zip(block.steps, footprints, strict=False)):
            hazards.issue(number, footprint, group)
            step(m, group)
        if block.terminate:
            hazards.issue(len(footprints) - 1, footprints[-1], group)

    def _release(self) -> None:
        m = self._waves
        waiting, done = m.waiting.reshape(-1, m.workgroups), m.done.reshape(-1, m.workgroups)
        met = (waiting | done).all(axis=0)
        if self._hazards is not None and met.any():
            self._hazards.order.release((done & met).reshape(-1))
        waiting[:, met] = False

    def _name(self, wave: int) -> str:
        m = self._waves
        return f"wave {wave // m.workgroups} of workgroup {self._dispatch.workgroup(self._first + wave % m.workgroups)}"

    def _describe(self, error: AddressError, group: Lanes) -> str:
        """Which instruction of which wave and lane went astray."""
        m = self._waves
        access = m.access
        position = error.position
        if access.chosen is not None:
            position = int(np.flatnonzero(access.chosen)[position])
        wave = int(np.arange(m.count)[group][position // access.lanes])
        lane = f", lane {position % access.lanes}" if access.lanes > 1 else ""
        place = self._locate(access.instruction.address) if access.instruction else ""
        return f"{access.instruction}{place}, {self._name(wave)}{lane}: {error}"

    def _stuck(self) -> str:
        m = self._waves
        halted = np.flatnonzero(m.halted & ~m.done)
        waiting = np.flatnonzero(m.waiting)
        if not len(waiting):
            return f"{self._name(int(halted[0]))} halted itself before {int(m.pc[halted[0]]):#x} and never ends"
        return (
            f"a barrier can never release: {self._name(int(waiting[0]))} waits before {int(m.pc[waiting[0]]):#x}, "
            f"{self._name(int(halted[0]))} halted itself before {int(m.pc[halted[0]]):#x}"
        )


def as_slice(columns: npt.NDArray[np.int64]) -> Lanes:
    """The same columns as a slice where they are evenly spaced: numpy then works on views, not copies."""
    if len(columns) == 1:
        return slice(int(columns[0]), int(columns[0]) + 1)
    step = int(columns[1] - columns[0])
    if (np.diff(columns) == step).all():
        return slice(int(columns[0]), int(columns[-1]) + 1, step)
    return columns
