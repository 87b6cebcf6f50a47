"""Runs a kernel again and again: all hazards, other schedules, and each fix in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from hktune.core.attended import attended_s
from hktune.core.errors import DeviceError, KernelFault
from hktune.device.device import HostArray
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.emulator.hazards.finding import Insertion, Key, Remedy
from hktune.emulator.schedules.schedule import HIGHEST, RANDOM, USUAL, Schedule
from hktune.verify.diagnosis import Diagnosis
from hktune.verify.finding_rules import ERROR
from hktune.verify.kernel_source import ARCH

SCHEDULES = (
    Schedule(HIGHEST, late=True),
    Schedule(RANDOM, seed=1),
    Schedule(RANDOM, late=True, last_first=True, seed=2),
)
"""What outputs are compared under, with those of the usual order."""
NO_FIX = "no single fix found"

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

    def with_fixes(self, found: Iterable[Diagnosis], base: int, until: float) -> list[Diagnosis]:
        """The findings, the worst of which have the first of their remedies that works, or none. `base` is where the
        program's code is."""
        findings = list(found)
        before = {each.finding.key for each in findings if each.finding is not None}
        outcomes: dict[tuple[Insertion, ...], set[Key] | None] = {}

        def left(remedy: Remedy) -> set[Key] | None:
            if remedy.insertions not in outcomes:  # findings of one cause share their remedies
                outcomes[remedy.insertions] = self._left(remedy, base)
            return outcomes[remedy.insertions]

        return [_with_fix(each, before, left, until) for each in findings]

    def _left(self, remedy: Remedy, base: int) -> set[Key] | None:
        """What is found where `remedy` is applied; None where the kernel does not end then."""
        device = self.device(watches=True)
        insertions = [replace(each, address=each.address - base) for each in remedy.insertions]
        try:
            self.execute(device, device.load(self.data, self.symbol, insertions))
        except (KernelFault, DeviceError):
            return None
        return {each.key for each in device.findings if not each.note}


def _with_fix(
    diagnosis: Diagnosis, before: set[Key], left_by: Callable[[Remedy], set[Key] | None], until: float
) -> Diagnosis:
    """With the first remedy that works, as `left_by` says what it leaves."""
    finding = diagnosis.finding
    if finding is None or diagnosis.level != ERROR or diagnosis.waived:
        return diagnosis
    if not finding.remedies:
        return replace(diagnosis, fix=f"{NO_FIX}; {diagnosis.rule.cure}")
    for remedy in finding.remedies:
        if attended_s() > until:
            return replace(diagnosis, fix=f"{remedy.text} (not tried: the time for trials is over)")
        left = left_by(remedy)
        if left is not None and finding.key not in left and left <= before:
            rest = f"others remain: {len(left)}" if left else "nothing is found then"
            return replace(diagnosis, fix=f"{remedy.text} (tried: it is gone, {rest})")
    return replace(diagnosis, fix=f"{NO_FIX}; {diagnosis.rule.cure}")
