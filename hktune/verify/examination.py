"""Runs a kernel again and again: all hazards, other schedules, and fixes in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hktune.core.attended import attended_s
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.forked import Beat, Outcome, can_fork, side_by_side
from hktune.device.device import HostArray
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.emulator.hazards.finding import Change, Finding
from hktune.emulator.schedules.schedule import HIGHEST, RANDOM, USUAL, Schedule
from hktune.verify.kernel_source import ARCH

SCHEDULES = (
    Schedule(HIGHEST, late=True),
    Schedule(RANDOM, seed=1),
    Schedule(RANDOM, late=True, last_first=True, seed=2),
)
"""What outputs are compared under, with those of the usual order."""

_WORTH_S = 0.1  # a run that takes as long may have a process of its own
_GRACE_S = 10.0  # over a run's deadline, for its process

Item = TypeVar("Item")
T = TypeVar("T")
Execute = Callable[[EmulatedDevice, EmulatedKernel], dict[str, HostArray]]
"""Launches the kernel on the device, and returns what its outputs hold then. Raises KernelFault."""


@dataclass(frozen=True)
class Examination:
    """One kernel, and how to run it, on at most `workers` cores. Trials end at `until`, in attended seconds; each takes
    some `run_s`."""

    data: bytes
    symbol: str
    execute: Execute
    strict: bool
    deadline_s: float
    workers: int

    def device(
        self, schedule: Schedule = USUAL, watches: bool = False, traces: bool = False, alone: bool = True
    ) -> EmulatedDevice:
        """One for a run: that looks for hazards and may record what is executed, or has a schedule of its own. Only one
        that runs `alone` may use all cores."""
        return EmulatedDevice(
            ARCH,
            deadline_s=self.deadline_s,
            record_trace=traces,
            find_hazards=watches,
            strict_hazards=self.strict,
            gather_hazards=watches,
            schedule=schedule,
            workers=self.workers if alone else 1,
        )

    def under_schedules(
        self, usual: Mapping[str, HostArray], until: float, run_s: float
    ) -> Iterator[tuple[str, Schedule, HostArray]]:
        """Each output that a schedule leaves unlike `usual`, once."""

        def left_by(schedule: Schedule, alone: bool) -> dict[str, HostArray] | None:
            device = self.device(schedule, alone=alone)
            try:
                return self.execute(device, device.load(self.data, self.symbol))
            except (KernelFault, DeviceError):
                return None  # workgroups may wait for those that the usual order starts first

        unlike: set[str] = set()
        for schedule, left in zip(SCHEDULES, self._each(left_by, SCHEDULES, until, run_s), strict=False):
            for name, array in (left or {}).items():
                if name not in unlike and array.tobytes() != usual[name].tobytes():
                    unlike.add(name)
                    yield name, schedule, array

    def found_with(
        self, changes: Sequence[Change], base: int, until: float, run_s: float
    ) -> Iterator[list[Finding] | None]:
        """What is found with each of the changes, notes left out; None where the kernel does not end then. `base` is
        where the program's code is."""

        def found(change: Change, alone: bool) -> list[Finding] | None:
            device = self.device(watches=True, alone=alone)
            placed = [replace(each, address=each.address - base) for each in change]
            try:
                self.execute(device, device.load(self.data, self.symbol, placed))
            except (KernelFault, DeviceError):
                return None
            return [each for each in device.findings if not each.note]

        return self._each(found, changes, until, run_s)

    def _each(self, run: Callable[[Item, bool], T], items: Sequence[Item], until: float, run_s: float) -> Iterator[T]:
        """What `run` makes of each item and of whether it runs alone, until the time is over. On several cores where
        that pays."""
        outcomes: Sequence[Outcome[T] | None] = [None] * len(items)
        if self.workers > 1 and len(items) > 1 and run_s > _WORTH_S and can_fork():
            calls = [_call(run, item) for item in items]
            outcomes = side_by_side(calls, self.workers, self.deadline_s + _GRACE_S, until)
        for item, outcome in zip(items, outcomes, strict=False):
            if outcome is None and attended_s() > until:
                return
            yield run(item, True) if outcome is None else outcome.value


def _call(run: Callable[[Item, bool], T], item: Item) -> Callable[[Beat], T]:
    return lambda _beat: run(item, False)
