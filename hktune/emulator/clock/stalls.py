"""Where the clk of a k-step go: of a simulated compute unit, what its waves waited for while no MFMA was at work.

A SIMD's time is first its MFMA pipe's. What is left is each wave's own: it issues, or it waits for what its next
instruction needs. The mean of the SIMD's waves counts, so that the causes of a k-step add up to its clk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from hktune.core.arch import Arch
from hktune.emulator.clock.compute_unit import ComputeUnit, Wave
from hktune.emulator.clock.instruction_stream import (
    BARRIER,
    LDS,
    LOAD,
    MFMA,
    PAUSE,
    SCALAR_LOAD,
    STORE,
    WAIT,
    Operation,
    Workgroup,
)
from hktune.emulator.clock.profile import LATENCIES_CLK, Profile
from hktune.emulator.clock.rates import Rates

CAUSES = ("mfma", "mfma result", "issue", "pause", "lds", "tcp", "vmcnt", "lgkmcnt", "barrier")
"""Why a wave does not issue its next instruction: an MFMA of its SIMD is at work; the result of one is not readable
yet; it issues, or another wave takes the port; s_nop or s_sleep; LDS or vector memory takes no more; a counter is
waited for; a barrier."""

_MFMA, _RESULT, _ISSUE, _PAUSE, _LDS, _TCP, _VMCNT, _LGKMCNT, _BARRIER = range(len(CAUSES))
_AFTER = {PAUSE: _PAUSE, LDS: _LDS, LOAD: _TCP, STORE: _TCP, BARRIER: _BARRIER}
_BEFORE = {LDS: _LDS, LOAD: _TCP, STORE: _TCP}

Clk = npt.NDArray[np.int64]
Means = npt.NDArray[np.float64]


def causes_of_a_step(group: Workgroup, profile: Profile, arch: Arch, rates: Rates) -> dict[str, Profile]:
    """For each cause `profile` with a k-step of that cause's clk alone; together they are those of `profile`, which is
    of `group`."""
    parts: list[list[Means]] = []
    for each in profile.residencies:
        units = [ComputeUnit(arch, rates, latency_clk) for latency_clk in LATENCIES_CLK]
        clk = [step_causes_clk(group, unit.run([group.operations] * each.workgroups)[0]) for unit in units]
        parts.append(list(accumulate(clk, _longer)))

    def of(cause: int) -> Profile:
        residencies = [
            replace(each, step_clk=tuple(float(clk[cause]) for clk in own))
            for each, own in zip(profile.residencies, parts, strict=True)
        ]
        return replace(profile, residencies=tuple(residencies))

    return {name: of(cause) for cause, name in enumerate(CAUSES)}


def step_causes_clk(group: Workgroup, resident: Sequence[Sequence[Wave]]) -> Means:
    """Clk of one k-step by cause, in the order of CAUSES, over the second half of the iterations: the steady state."""
    waves = [wave for waves in resident for wave in waves]
    headers = list(group.headers) * len(resident)
    idle = {number: _MfmaIdle([wave for wave in waves if wave.simd.number == number]) for number in _simds(waves)}
    iterations = len(group.headers[0]) - 1
    middle = iterations // 2
    total = np.zeros(len(CAUSES))
    for wave, own in zip(waves, headers, strict=True):
        total += _wave_causes_clk(wave, own[middle], own[-1], idle[wave.simd.number])
    return total / (len(waves) * (iterations - middle) * group.steps_per_iteration)


def _longer(one: Means, other: Means) -> Means:
    """As in a profile: where a longer latency is faster, the shorter one's clk count."""
    return other if other.sum() >= one.sum() else one


def _simds(waves: Sequence[Wave]) -> set[int]:
    return {wave.simd.number for wave in waves}


class _MfmaIdle:
    """When the MFMA pipe of one SIMD is idle, from what its waves issued."""

    def __init__(self, waves: Sequence[Wave]) -> None:
        spans = sorted(
            (at, at + operation.busy_clk)
            for wave in waves
            for at, operation in zip(wave.issued, wave.operations, strict=True)
            if operation.kind == MFMA
        )
        busy = np.array(spans, np.int64).reshape(-1, 2)
        worked = np.concatenate([[0], np.cumsum(busy[:, 1] - busy[:, 0])])
        self._edges = busy.ravel()
        self._worked = np.repeat(worked, 2)[1:-1]

    def before(self, clk: Clk) -> Means:
        """Idle clk before each of `clk`. MFMAs follow one another: none begins before the last has left the pipe."""
        return clk - np.interp(clk, self._edges, self._worked) if len(self._edges) else clk.astype(np.float64)


def _wave_causes_clk(wave: Wave, first: int, last: int, idle: _MfmaIdle) -> Means:
    """Clk by cause from the issue of operation `first` to that of `last`."""
    issued = np.array(wave.issued[first : last + 1], np.int64)
    operations = wave.operations[first : last + 1]
    begun = np.minimum(issued[:-1] + [each.delay_clk for each in operations[:-1]], issued[1:])
    held = np.array([wave.held.get(first + at, 0) for at in range(len(begun))], np.int64)
    freed = np.clip(held, begun, issued[1:])
    readable = np.clip(_readable(wave, first, operations), freed, issued[1:])
    edges = np.stack([issued[:-1], begun, freed, readable, issued[1:]])
    kinds = [each.kind for each in operations]
    causes = np.stack(
        [
            [_PAUSE if kind == PAUSE else _ISSUE for kind in kinds[:-1]],
            [_AFTER.get(kind, _ISSUE) for kind in kinds[:-1]],
            np.full(len(begun), _RESULT),
            _before(wave, first, operations),
        ]
    )
    waited = np.diff(idle.before(edges), axis=0)
    clk: Means = np.bincount(causes.ravel(), waited.ravel(), len(CAUSES)).astype(np.float64)
    clk[_MFMA] = issued[-1] - issued[0] - waited.sum()
    return clk


def _readable(wave: Wave, first: int, operations: Sequence[Operation]) -> Clk:
    """When the MFMA result that each operation but the first reads may be read; 0 where it reads none."""
    return np.array(
        [
            wave.issued[first + at - each.back] + each.result_clk if each.back else 0
            for at, each in enumerate(operations[1:], start=1)
        ],
        np.int64,
    )


def _before(wave: Wave, first: int, operations: Sequence[Operation]) -> list[int]:
    """What holds each operation but the first back once it could be issued."""
    vm, lgkm = (_counted(wave, first, kinds) for kinds in ((LOAD, STORE), (LDS, SCALAR_LOAD)))
    causes = []
    for before, each in pairwise(operations):
        vm += before.kind in (LOAD, STORE)
        lgkm += before.kind in (LDS, SCALAR_LOAD)
        if each.kind == WAIT:
            by_vm, by_lgkm = _done(wave.vm, vm, each.first), _done(wave.lgkm, lgkm, each.second)
            causes.append(_VMCNT if by_vm >= by_lgkm else _LGKMCNT)
        else:
            causes.append(_BEFORE.get(each.kind, _ISSUE))
    return causes


def _counted(wave: Wave, first: int, kinds: tuple[int, int]) -> int:
    return sum(each.kind in kinds for each in wave.operations[:first])


def _done(done: Sequence[int], issued: int, left: int) -> int:
    """When a counter of which so many were issued is down to `left`; -1 where it is not waited for."""
    return done[issued - 1 - left] if 0 <= left < issued else -1
