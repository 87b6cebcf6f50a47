"""Runs a kernel again and again: all hazards, other schedules, and each fix in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hktune.core.attended import attended_s
from hktune.core.errors import DeviceError, KernelFault
from hktune.core.forked import Beat, can_fork, side_by_side
from hktune.device.device import HostArray
from hktune.device.emulated import EmulatedDevice, EmulatedKernel
from hktune.emulator.hazards.finding import Finding, Insertion, Key, Remedy
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

_WORTH_S = 0.1  # a run that takes as long may have a process of its own
_GRACE_S = 10.0  # over a run's deadline, for its process

Change = tuple[Insertion, ...]
Item = TypeVar("Item")
T = TypeVar("T")
Execute = Callable[[EmulatedDevice, EmulatedKernel], dict[str, HostArray]]
"""Launches the kernel on the device, and returns what its outputs hold then. Raises KernelFault."""


@dataclass(frozen=True)
class Examination:
    """One kernel, and how to run it, on at most `workers` cores. Trials end at `until`, in attended seconds."""

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
        """Each output that a schedule leaves unlike `usual`, once. A run takes some `run_s`."""

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

    def with_fixes(self, found: Iterable[Diagnosis], base: int, until: float, run_s: float) -> list[Diagnosis]:
        """The findings, the worst of which have the first of their remedies that works, or none. `base` is where the
        program's code is; a run takes some `run_s`."""

        def left_by(change: Change, alone: bool) -> set[Key] | None:
            device = self.device(watches=True, alone=alone)
            insertions = [replace(each, address=each.address - base) for each in change]
            try:
                self.execute(device, device.load(self.data, self.symbol, insertions))
            except (KernelFault, DeviceError):
                return None
            return {each.key for each in device.findings if not each.note}

        findings = list(found)
        fixes = Fixes({each.finding.key for each in findings if each.finding is not None})
        while True:
            changes = fixes.wanted(findings)
            lefts = list(self._each(left_by, changes, until, run_s))
            fixes.tried.update(zip(changes, lefts, strict=False))
            if not changes or len(lefts) < len(changes):
                return [fixes.applied_to(each) for each in findings]

    def _each(self, run: Callable[[Item, bool], T], items: Sequence[Item], until: float, run_s: float) -> Iterator[T]:
        """What `run` makes of each item and of whether it runs alone, until the time is over. On several cores where
        that pays."""
        at_once = self.workers if can_fork() and run_s > _WORTH_S else 1
        for at in range(0, len(items), at_once):
            if attended_s() > until:
                return
            some = items[at : at + at_once]
            if len(some) == 1:
                yield run(some[0], True)
                continue
            calls = [_call(run, item) for item in some]
            outcomes = side_by_side(calls, at_once, self.deadline_s + _GRACE_S)
            for item, outcome in zip(some, outcomes, strict=True):
                yield run(item, True) if outcome is None else outcome.value


def _call(run: Callable[[Item, bool], T], item: Item) -> Callable[[Beat], T]:
    return lambda _beat: run(item, False)


@dataclass
class Fixes:
    """Remedies that were tried, with what is found then, None where the kernel does not end; `before` is what is found
    without."""

    before: set[Key]
    tried: dict[Change, set[Key] | None] = field(default_factory=dict)

    def wanted(self, findings: Iterable[Diagnosis]) -> list[Change]:
        """What to try next: of each finding without a fix the first remedy that was not tried. Findings of one cause
        share theirs."""
        found: dict[Change, None] = {}
        for finding in (each.finding for each in findings if _is_open(each)):
            assert finding is not None
            untried = [each.insertions for each in finding.remedies if each.insertions not in self.tried]
            if untried and not any(self._works(each, finding) for each in finding.remedies):
                found[untried[0]] = None
        return list(found)

    def applied_to(self, diagnosis: Diagnosis) -> Diagnosis:
        """With the first remedy that works, or why there is none."""
        finding = diagnosis.finding
        if finding is None or not _is_open(diagnosis):
            return diagnosis
        for remedy in finding.remedies:
            if remedy.insertions not in self.tried:
                return replace(diagnosis, fix=f"{remedy.text} (not tried: the time for trials is over)")
            if self._works(remedy, finding):
                left = self.tried[remedy.insertions]
                rest = f"others remain: {len(left)}" if left else "nothing is found then"
                return replace(diagnosis, fix=f"{remedy.text} (tried: it is gone, {rest})")
        return replace(diagnosis, fix=f"{NO_FIX}; {diagnosis.rule.cure}")

    def _works(self, remedy: Remedy, finding: Finding) -> bool:
        left = self.tried.get(remedy.insertions)
        return left is not None and finding.key not in left and left <= self.before


def _is_open(diagnosis: Diagnosis) -> bool:
    """Whether a fix is looked for."""
    return diagnosis.finding is not None and diagnosis.level == ERROR and not diagnosis.waived
