"""Runs a kernel again and again: all hazards, other schedules, and fixes in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from hktune.core.attended import attended_s
from hktune.core.errors import DeviceError, KernelFault
from hktune.device.device import HostArray
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.emulator.hazards.finding import Finding, Insertion
from hktune.emulator.schedules.schedule import HIGHEST, RANDOM, USUAL, Schedule
from hktune.verify.kernel_source import ARCH

SCHEDULES = (
    Schedule(HIGHEST, late=True),
    Schedule(RANDOM, seed=1),
    Schedule(RANDOM, late=True, last_first=True, seed=2),
)
"""What outputs are compared under, with those of the usual order."""

Execute = Callable[[EmulatedDevice, EmulatedKernel], dict[str, HostArray]]
"""Launches the kernel on the device, and returns what its outputs hold then. Raises KernelFault."""


@dataclass(frozen=True)
class Examination:
    """One kernel, and how to run it. Trials end at `until`, in attended seconds."""

    data: bytes
    symbol: str
    execute: Execute
    strict: bool
    deadline_s: float

    def device(self, schedule: Schedule = USUAL, watches: bool = False, traces: bool = False) -> EmulatedDevice:
        """One for a run: that looks for hazards and may record what is executed, or has a schedule of its own."""
        return EmulatedDevice(
            ARCH,
            deadline_s=self.deadline_s,
            record_trace=traces,
            find_hazards=watches,
            strict_hazards=self.strict,
            gather_hazards=watches,
            schedule=schedule,
        )

    def under_schedules(
        self, usual: Mapping[str, HostArray], until: float
    ) -> Iterator[tuple[str, Schedule, HostArray]]:
        """Each output that a schedule leaves unlike `usual`, once."""
        unlike: set[str] = set()
        for schedule in SCHEDULES:
            if attended_s() > until:
                return
            device = self.device(schedule)
            try:
                left = self.execute(device, device.load(self.data, self.symbol))
            except (KernelFault, DeviceError):
                continue  # workgroups may wait for those that the usual order starts first
            for name, array in left.items():
                if name not in unlike and array.tobytes() != usual[name].tobytes():
                    unlike.add(name)
                    yield name, schedule, array

    def found_with(self, insertions: Iterable[Insertion], base: int) -> list[Finding] | None:
        """What is found where instructions are inserted, notes left out; None where the kernel does not end then.
        `base` is where the program's code is."""
        device = self.device(watches=True)
        placed = [replace(each, address=each.address - base) for each in insertions]
        try:
            self.execute(device, device.load(self.data, self.symbol, placed))
        except (KernelFault, DeviceError):
            return None
        return [each for each in device.findings if not each.note]
