"""A modelled time by cause, and what it would be without each: the model is asked again with that cause taken out.

A profile keeps no causes, so one is made anew here from what it was made of. What a cause is: `stalls.CAUSES` in a
k-step, and MEMORY beyond what was simulated; then what workgroups and the launch take on top.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hktune.core.arch import Arch
from hktune.core.launch import Launch, Tile
from hktune.core.problem import Problem
from hktune.core.problem_tiles import tiles_of
from hktune.core.variant import Resources
from hktune.emulator.clock.instruction_stream import (
    BARRIER,
    LDS,
    LOAD,
    MFMA,
    PAUSE,
    STORE,
    WAIT,
    Operation,
    Workgroup,
    workgroup_of,
)
from hktune.emulator.clock.launch_time import Modelled, Settled, modelled_of, settled
from hktune.emulator.clock.memory_traffic import Order
from hktune.emulator.clock.profile import LATENCIES_CLK, Profile, profile_of, workgroups_that_fit
from hktune.emulator.clock.rates import Rates
from hktune.emulator.clock.stalls import CAUSES, causes_of_a_step
from hktune.emulator.clock.trace import Trace

MEMORY = ("l2", "fabric", "mall", "hbm")
"""Memory levels, from the compute units on."""

ROUNDS = ("workgroup start", "cold pages", "prologue", "epilogue", "idle CUs")
"""What rounds of workgroups take beside their k-steps. Idle CUs: the part of a last round, after others, in which so
many of the compute units have no workgroup."""

LAUNCH = ("unequal k", "gathering", "no tile", "bytes from hbm", "launch", "write-back")
"""What the launch takes on top: places that are done late or early where groups are of K, the sums of a split k,
workgroups for which groups have no tile, how much longer all its bytes take HBM, itself, its end."""

MEMORY_LATENCY, CLOCK = "memory latency", "clock"
"""What is part of other causes, and may be taken out: every load is answered at once; the clock is at its highest."""


@dataclass(frozen=True)
class Specimen:
    """What a profile is made of: see `profile.profile`."""

    trace: Trace
    resources: Resources
    launch: Launch
    tile: Tile
    k_steps: int
    arch: Arch


@dataclass(frozen=True)
class Breakdown:
    """`parts_us` of a modelled time, by cause, which add up to it. `without` is what the model says with a cause taken
    out, at the same shader clock: of each part, of what binds, of MEMORY_LATENCY and of CLOCK. `binding` is the cause
    that `modelled.bound` stands for."""

    modelled: Modelled
    parts_us: dict[str, float]
    without: dict[str, Modelled]
    binding: str


def breakdown(specimen: Specimen, problem: Problem, launch: Launch, order: Order, rates: Rates) -> Breakdown:
    """The time of one launch on `problem` by cause; see `launch_time.modelled_time`."""
    model = LaunchModel(specimen, problem, launch, order, rates)
    binding, parts_us = model.binding, model.parts_us
    wanted = [*(cause for cause, part_us in parts_us.items() if part_us > 0), MEMORY_LATENCY, CLOCK, binding]
    without = {cause: model.without(cause) for cause in dict.fromkeys(wanted)}
    return Breakdown(model.modelled, parts_us, without, binding)


class LaunchModel:
    """The model of one launch, as it is and without a cause; see Breakdown."""

    def __init__(self, specimen: Specimen, problem: Problem, launch: Launch, order: Order, rates: Rates) -> None:
        self._specimen, self._problem, self._launch, self._order = specimen, problem, launch, order
        self._arch = specimen.arch
        self._rates = rates
        self._group = workgroup_of(specimen.trace, specimen.k_steps, self._rates)
        self._profile = self._profiled(self._group, self._rates)
        self._launched = self._settled(self._profile, launch, self._rates)

    @cached_property
    def modelled(self) -> Modelled:
        return self._modelled(self._launched, self._rates)

    @cached_property
    def parts_us(self) -> dict[str, float]:
        return parts_us_of(self._launched, causes_of_a_step(self._group, self._profile, self._arch, self._rates))

    @property
    def binding(self) -> str:
        """The cause that a bound stands for: launch is the longest of what is not the main loop."""
        bound = self.modelled.bound
        if bound == "launch":
            return max((*ROUNDS, *LAUNCH), key=lambda cause: self.parts_us[cause])
        return MEMORY_LATENCY if bound == "latency" else bound

    def without(self, cause: str) -> Modelled:
        """The model with `cause` taken out; the shader clock stays, unless it is the cause."""
        fastest_ghz = self._rates.clock_ghz[0][1]
        clock_ghz = fastest_ghz if cause == CLOCK else self._launched.clock_ghz
        held: dict[str, Any] = {"clock_ghz": ((0.0, clock_ghz), (1.0, clock_ghz))}
        rates = replace(self._rates, **held, **_RATES_WITHOUT.get(cause, {}))
        profile, launch = self._profile, self._launch
        if cause in CAUSES or cause == MEMORY_LATENCY:
            profile = self._profiled(_without_in(self._group, cause), rates, cause == MEMORY_LATENCY)
        elif cause in _PROFILE_WITHOUT:
            profile = _PROFILE_WITHOUT[cause](profile)
        elif cause == "gathering":
            launch = replace(launch, workspace_bytes=0)
        launched = self._settled(profile, launch, rates)
        if cause == "no tile":
            launched = replace(launched, without_tile_clk=0.0)
        elif cause == "unequal k":
            launched = replace(launched, unequal_clk=0.0)
        elif cause == "idle CUs":
            launched = replace(launched, rounds_clk=launched.rounds_clk - _idle_clk(launched))
        return self._modelled(launched, rates)

    def _profiled(self, group: Workgroup, rates: Rates, at_once: bool = False) -> Profile:
        specimen = self._specimen
        fit = workgroups_that_fit(specimen.resources, specimen.launch, len(group.operations), self._arch)
        latencies_clk = (0,) * len(LATENCIES_CLK) if at_once else LATENCIES_CLK
        return profile_of(group, fit, specimen.launch.operation, specimen.tile, self._arch, rates, latencies_clk)

    def _settled(self, profile: Profile, launch: Launch, rates: Rates) -> Settled:
        tile = self._specimen.tile
        tiles = tiles_of(self._problem, tile)
        return settled(profile, self._problem, launch, tile, self._arch, self._order, rates, tiles)

    def _modelled(self, launched: Settled, rates: Rates) -> Modelled:
        return modelled_of(launched, self._problem, self._arch, rates)


def parts_us_of(launched: Settled, causes: Mapping[str, Profile]) -> dict[str, float]:
    """The time of a launch by cause, in us. `causes`: see `stalls.causes_of_a_step`."""
    clk: defaultdict[str, float] = defaultdict(float)
    for number, each in enumerate(launched.rounds):
        parts = each.parts_clk(launched.clock_ghz, follows=number > 0)
        busy = 1 - each.idle_share if number else 1.0
        clk["idle CUs"] += (1 - busy) * sum(parts.values())
        steps = parts.pop("k-steps") * busy / each.step_clk if each.step_clk else 0.0
        for name, part_clk in parts.items():
            clk[name] += busy * part_clk
        step = each.step_parts_clk(launched.clock_ghz)
        simulated_clk = step.pop("simulated")
        simulated = {name: cause.at(each.per_cu, each.latency_clk)[1] for name, cause in causes.items()}
        whole_clk = sum(simulated.values()) or 1.0
        for name, cause_clk in simulated.items():
            clk[name] += steps * simulated_clk * cause_clk / whole_clk
        for name, level_clk in step.items():
            clk[name] += steps * level_clk
    clk["unequal k"] = launched.unequal_clk
    clk["gathering"], clk["no tile"] = launched.gathering_clk, launched.without_tile_clk
    times_us = {name: part_clk / launched.clock_ghz * 1e-3 for name, part_clk in clk.items()}
    times_us["bytes from hbm"] = max(launched.moved_us - launched.walked_us, 0.0)
    times_us["launch"], times_us["write-back"] = launched.launch_us, launched.write_back_us
    return {name: times_us.get(name, 0.0) for name in (*CAUSES, *MEMORY, *ROUNDS, *LAUNCH)}


def _idle_clk(launched: Settled) -> float:
    later = launched.rounds[1:]
    return sum(each.idle_share * each.clk(launched.clock_ghz, follows=True) for each in later)


def _without_in(group: Workgroup, cause: str) -> Workgroup:
    """What a workgroup would issue without `cause`. Waves that issue the same go on sharing one list."""
    change = _OPERATION_WITHOUT.get(cause)
    if change is None:
        return group
    changed = {id(wave): [change(operation) for operation in wave] for wave in group.operations}
    return replace(group, operations=tuple(changed[id(wave)] for wave in group.operations))


def _without_mfma(operation: Operation) -> Operation:
    return operation._replace(back=0, busy_clk=0 if operation.kind == MFMA else operation.busy_clk)


def _without_lds(operation: Operation) -> Operation:
    if operation.kind == LDS:
        return operation._replace(busy_clk=0, first=0)
    return operation._replace(second=0) if operation.kind == LOAD else operation


def _without_barrier(operation: Operation) -> Operation:
    return Operation(PAUSE, 0) if operation.kind == BARRIER else operation


def _with(kinds: tuple[int, ...], **changes: int) -> Callable[[Operation], Operation]:
    """Operations of some kinds with `changes`, others as they are."""
    return lambda operation: operation._replace(**changes) if operation.kind in kinds else operation


_OPERATION_WITHOUT: dict[str, Callable[[Operation], Operation]] = {
    "mfma": _without_mfma,
    "mfma result": lambda operation: operation._replace(back=0),
    "issue": lambda operation: operation if operation.kind == PAUSE else operation._replace(delay_clk=0),
    "pause": _with((PAUSE,), delay_clk=0),
    "lds": _without_lds,
    "tcp": _with((LOAD, STORE), busy_clk=0),
    "vmcnt": _with((WAIT,), first=-1),
    "lgkmcnt": _with((WAIT,), second=-1),
    "barrier": _without_barrier,
}

_RATES_WITHOUT: dict[str, dict[str, Any]] = {
    "issue": {"issue_slot_clk": 1},
    "lds": {"lds_latency_clk": 0},
    "tcp": {"tcp_in_flight_bytes": 1 << 60},
    "l2": {"l2_bytes_per_clk_cu": math.inf},
    "fabric": {"fabric_bytes_per_clk_xcd": math.inf},
    "mall": {"mall_tb_per_s": math.inf},
    "hbm": {"hbm_tb_per_s": math.inf},
    "bytes from hbm": {"hbm_tb_per_s": math.inf},
    "workgroup start": {"workgroup_start_clk": 0},
    "cold pages": {"cold_ns": 0.0},
    "gathering": {"shared_add_us": 0.0},
    "launch": {"launch_us": 0.0},
    "write-back": {"write_back_tb_per_s": math.inf},
}


def _without_prologue(profile: Profile) -> Profile:
    none = (0.0,) * len(LATENCIES_CLK)
    return replace(profile, residencies=tuple(replace(each, prologue_clk=none) for each in profile.residencies))


def _without_epilogue(profile: Profile) -> Profile:
    none = (0.0,) * len(LATENCIES_CLK)
    residencies = tuple(replace(each, epilogue_clk=none) for each in profile.residencies)
    return replace(profile, residencies=residencies, store_bytes=0.0)


_PROFILE_WITHOUT: dict[str, Callable[[Profile], Profile]] = {
    "prologue": _without_prologue,
    "epilogue": _without_epilogue,
}
