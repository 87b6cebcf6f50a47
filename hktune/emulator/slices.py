"""A launch on several cores: processes that each run a slice of its workgroups, as if one process had run all of them.

Workgroups share global memory alone. So where no slice writes a byte that another one touches, each sees what it would
have seen in its turn, and finds what it would have found. Where one does, or any of them needs another's atomics, what
they did is dropped, and the launch goes on in one process. Results are those of one process either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hktune.core.errors import KernelFault
from hktune.core.forked import Beat, can_fork, side_by_side
from hktune.emulator.hazards.finding import PLACES_MAX, UNSET_MEMORY, Finding, Key, Watch
from hktune.emulator.machine.memory import AddressSpace
from hktune.emulator.machine.touched import Touched, apply, independent, mark, touched

RunBatch = Callable[[int], None]
"""Runs the batch of workgroups that begins with this one. Raises KernelFault."""

_WORTH_S = 0.3  # of work that is left: a child costs some hundredths of a second
_PATIENCE_S = 5.0
_PATIENCE_BATCHES = 20


@dataclass(frozen=True)
class _Slice:
    """What a process did: the memory it touched, what it found that was not known, instructions executed, and the fault
    that ended it. `doubtful`: one process might have done or found something else."""

    touched: list[Touched]
    found: dict[Key, Finding]
    steps: int
    fault: KernelFault | None
    doubtful: bool


class Slices:
    """The batches of one launch, which `run_batch` runs in one process, and the state that they share. `steps`: how
    many instructions were executed; `mixes`: whether workgroups may send each other messages."""

    def __init__(
        self,
        run_batch: RunBatch,
        space: AddressSpace,
        watch: Watch | None,
        steps: Callable[[], int],
        mixes: Callable[[], bool],
        workers: int,
    ) -> None:
        self._run_batch, self._space, self._watch = run_batch, space, watch
        self._steps, self._mixes = steps, mixes
        self._workers = workers if can_fork() else 1

    def worth(self, left: int, batch_s: float) -> bool:
        """Whether `left` batches of `batch_s` each should be divided."""
        return self._workers > 1 and left > 1 and left * batch_s > _WORTH_S and not self._mixes()

    def run(self, firsts: Sequence[int], batch_s: float, steps_left: int | None) -> int | None:
        """Run batches in processes, in contiguous slices; how many instructions they executed. None where that was to
        no avail: then nothing has happened. Raises KernelFault, as one process would."""
        shares = [share.tolist() for share in np.array_split(np.array(firsts), min(self._workers, len(firsts)))]
        patience_s = max(_PATIENCE_S, _PATIENCE_BATCHES * batch_s)
        outcomes = side_by_side([self._call(share) for share in shares], self._workers, patience_s)
        done: list[_Slice] = []
        for outcome in outcomes:
            if outcome is None:
                return None
            done.append(outcome.value)
            if outcome.value.fault is not None:
                break  # one process would have come no further
        steps = sum(each.steps for each in done)
        if (steps_left is not None and steps > steps_left) or not _agree(done):
            return None
        apply(self._space, (each.touched for each in done))
        for each in done:
            self._learn(each.found)
        if done[-1].fault is not None:
            raise done[-1].fault
        return steps

    def _call(self, share: list[int]) -> Callable[[Beat], _Slice]:
        def call(beat: Beat) -> _Slice:
            fault, steps = None, self._steps()
            known = dict(self._watch.found) if self._watch else {}
            mark(self._space)
            try:
                for first in share:
                    beat()
                    self._run_batch(first)
            except KernelFault as error:
                fault = error
            found = self._watch.found if self._watch else {}
            new = {key: each for key, each in found.items() if known.get(key) is not each}
            doubtful = self._mixes() or len(found) >= PLACES_MAX
            return _Slice(touched(self._space), new, self._steps() - steps, fault, doubtful)

        return call

    def _learn(self, found: dict[Key, Finding]) -> None:
        """Add what a slice found to what is known, as Watch does."""
        if self._watch is not None:
            for key, finding in found.items():
                before = self._watch.found.setdefault(key, finding)
                if finding.left < before.left:
                    self._watch.found[key] = replace(before, remedies=finding.remedies, left=finding.left)


def _agree(done: list[_Slice]) -> bool:
    """Whether one process would have done and found the same."""
    first, *others = done
    if first.doubtful or any(each.doubtful for each in others):
        return False
    if any(each.fault is not None and each.fault.status == "timeout" for each in others):
        return False  # it may have waited for another slice
    if any(rule == UNSET_MEMORY for each in others for rule, _, _ in each.found):
        return False  # such a place is found once, by the first that reads it
    return independent(each.touched for each in done)
