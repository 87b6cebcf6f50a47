"""What one code object costs one compute unit: the traced workgroup simulated once, reduced to a few numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from hktune.core.arch import Arch
from hktune.core.errors import InputError
from hktune.core.launch import Launch, Tile
from hktune.core.operand import operands_of
from hktune.core.operation import Operation
from hktune.core.variant import Resources
from hktune.emulator.clock.compute_unit import ComputeUnit, Wave
from hktune.emulator.clock.instruction_stream import LDS, LOAD, MFMA, STORE, Workgroup, workgroup_of
from hktune.emulator.clock.rates import Rates, arch_rates
from hktune.emulator.clock.trace import Trace

LATENCIES_CLK = (400, 800, 1200, 1600, 2400)
"""Memory latencies that a profile is simulated at; in between it is interpolated."""


@dataclass(frozen=True)
class Residency:
    """So many workgroups together on one compute unit: clk of their parts, one value per entry of LATENCIES_CLK.

    `step_clk` is one k-step of every resident workgroup, in the steady state of the main loop.
    """

    workgroups: int
    prologue_clk: tuple[float, ...]
    step_clk: tuple[float, ...]
    epilogue_clk: tuple[float, ...]

    def at(self, latency_clk: float) -> tuple[float, float, float]:
        """Clk of prologue, k-step and epilogue at a memory latency: linear, and level below the lowest simulated."""
        high = min(max(bisect_right(LATENCIES_CLK, latency_clk), 1), len(LATENCIES_CLK) - 1)
        low = high - 1
        span = LATENCIES_CLK[high] - LATENCIES_CLK[low]
        share = max(0.0, (latency_clk - LATENCIES_CLK[low]) / span)
        prologue, step, epilogue = self.prologue_clk, self.step_clk, self.epilogue_clk
        return (
            prologue[low] + (prologue[high] - prologue[low]) * share,
            step[low] + (step[high] - step[low]) * share,
            epilogue[low] + (epilogue[high] - epilogue[low]) * share,
        )


@dataclass(frozen=True)
class Profile:
    """What one code object costs a compute unit, whatever the problem. Survives `to_json` and `from_json` unchanged.

    `residencies` are one workgroup and, where more fit, as many as fit. `peeled_steps`: k-steps that prologue and
    epilogue contain. The rest is for one workgroup: clk that one k-step holds the busiest SIMD's MFMA pipe
    (`mfma_clk`) and its busiest wave's issue (`issue_clk`), the LDS banks and the TCP; bytes that one k-step reads
    from L2, in whole lines; bytes stored at the end.
    """

    residencies: tuple[Residency, ...]
    peeled_steps: float
    mfma_clk: float
    issue_clk: float
    lds_clk: float
    tcp_clk: float
    load_bytes: float
    store_bytes: float

    def at(self, workgroups: float, latency_clk: float) -> tuple[float, float, float]:
        """Clk of prologue, k-step and epilogue with so many workgroups resident, also a mean, at a memory latency.

        Linear between what was simulated, in latency and in workgroups; a k-step is that of all of them.
        """
        fewest, most = self.residencies[0], self.residencies[-1]
        if workgroups <= fewest.workgroups or fewest is most:
            return fewest.at(latency_clk)
        share = (workgroups - fewest.workgroups) / (most.workgroups - fewest.workgroups)
        low, high = fewest.at(latency_clk), most.at(latency_clk)
        prologue, step, epilogue = (one + (all_ - one) * share for one, all_ in zip(low, high, strict=True))
        return prologue, step, epilogue

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Profile:
        """Raises msgspec.DecodeError when `data` is not a profile."""
        return msgspec.json.decode(data, type=cls)


def profile(trace: Trace, resources: Resources, launch: Launch, tile: Tile, k_steps: int, arch: Arch) -> Profile:
    """Simulate one compute unit running the workgroup of `trace`, which walked `k_steps` steps of `tile.k` of the
    operation that `launch` names.

    Raises InputError when a wave has no MFMA or walks the main loop more often than another, when fewer than 2 k-steps
    were traced, and when a k-step's MFMAs cannot have computed m x n x k of `tile`.
    """
    rates = arch_rates(arch)
    group = workgroup_of(trace, k_steps, rates)
    fit = workgroups_that_fit(resources, launch, len(trace.waves), arch)
    whole = profile_of(group, fit, launch.operation, tile, arch, rates)
    flops = 2 * tile.m * tile.n * launch.operation.b_columns * tile.k
    least_clk = flops / rates.peak_flops_per_clk_cu(launch.operation)
    if whole.mfma_clk < 0.999 * least_clk:
        raise InputError(
            f"a k-step of {tile} takes at least {least_clk:.0f} MFMA clk: the trace has {whole.mfma_clk:.0f}, "
            f"so check the tile and k_steps={k_steps}"
        )
    return whole


def profile_of(
    group: Workgroup,
    fit: int,
    operation: Operation,
    tile: Tile,
    arch: Arch,
    rates: Rates,
    latencies_clk: Sequence[int] = LATENCIES_CLK,
) -> Profile:
    """The profile of what a workgroup issues, `fit` of which are on a compute unit at most. `latencies_clk` are what
    memory takes where a profile says LATENCIES_CLK."""
    residencies = tuple(_residency(group, count, arch, rates, latencies_clk) for count in sorted({1, fit}))
    return Profile(residencies, group.peeled_steps, **_demands(group, operation, tile, rates, arch))


def workgroups_that_fit(resources: Resources, launch: Launch, waves: int, arch: Arch) -> int:
    """Workgroups of so many waves that a compute unit's registers, wave slots and LDS hold at once; at least 1."""
    lds_bytes = resources.lds_bytes + launch.dynamic_lds_bytes
    by_lds = arch.lds_bytes // max(-(-lds_bytes // arch.lds_granule_bytes) * arch.lds_granule_bytes, 1)
    wave_slots = arch.waves_that_fit(resources.vgprs, resources.agprs, 0, waves) * arch.simds_per_cu
    return max(1, min(by_lds if lds_bytes else wave_slots, wave_slots // waves))


def _residency(group: Workgroup, count: int, arch: Arch, rates: Rates, latencies_clk: Sequence[int]) -> Residency:
    """Simulated at each latency; where arbitration makes a longer one some clk faster, the shorter one's clk count."""
    parts = [_parts(group, count, ComputeUnit(arch, rates, latency)) for latency in latencies_clk]
    prologue, step, epilogue = (tuple(accumulate(clocks, max)) for clocks in zip(*parts, strict=True))
    return Residency(count, prologue, step, epilogue)


def _parts(group: Workgroup, count: int, unit: ComputeUnit) -> tuple[float, float, float]:
    """Clk of the prologue, of one k-step and of the epilogue. The second half of the iterations is the steady state."""
    resident, end_clk = unit.run([group.operations] * count)
    iterations = len(group.headers[0]) - 1
    middle = iterations // 2
    early, late = (_mean_clk(resident, group, header) for header in (middle, iterations))
    iteration_clk = (late - early) / (iterations - middle)
    prologue_clk = early - middle * iteration_clk
    return prologue_clk, iteration_clk / group.steps_per_iteration, end_clk - late


def _mean_clk(resident: Sequence[Sequence[Wave]], group: Workgroup, header: int) -> float:
    """When the waves issued the first instruction of an iteration, on average."""
    marks = [
        wave.issued[headers[header]] for waves in resident for wave, headers in zip(waves, group.headers, strict=True)
    ]
    return sum(marks) / len(marks)


def _demands(group: Workgroup, operation: Operation, tile: Tile, rates: Rates, arch: Arch) -> dict[str, float]:
    """What one k-step of one workgroup asks of each unit, counted over one iteration of the main loop.

    L2 hands out whole lines. Parts of a line that belong to the same k-step are assumed to meet in L1, others are not.
    """
    mfma_clk = [0] * arch.simds_per_cu
    issue_clk = lds_clk = tcp_clk = load_bytes = 0
    for number, (operations, headers) in enumerate(zip(group.operations, group.headers, strict=True)):
        body = operations[headers[0] : headers[1]]
        mfma_clk[number % len(mfma_clk)] += sum(part.busy_clk for part in body if part.kind == MFMA)
        issue_clk = max(issue_clk, sum(part.delay_clk for part in body))
        loads = [part for part in body if part.kind == LOAD]
        lds_clk += sum(part.busy_clk for part in body if part.kind == LDS)
        lds_clk += sum(part.second // rates.lds_dma_bytes_per_clk for part in loads)
        tcp_clk += sum(part.busy_clk for part in body if part.kind in (LOAD, STORE))
        load_bytes += sum(part.first for part in loads)
    steps = group.steps_per_iteration
    return {
        "mfma_clk": max(mfma_clk) / steps,
        "issue_clk": issue_clk / steps,
        "lds_clk": lds_clk / steps,
        "tcp_clk": tcp_clk / steps,
        "load_bytes": load_bytes * _whole_lines(operation, tile, rates.line_bytes) / steps,
        "store_bytes": float(group.store_bytes),
    }


def _whole_lines(operation: Operation, tile: Tile, line_bytes: int) -> float:
    """Bytes of the lines that a k-step of a tile reads, as a multiple of the bytes that it needs of A and B. What is
    contiguous of an operand begins with a line."""
    sizes = {"m": tile.m, "n": tile.n, "k": tile.k}
    needed = read = 0
    for operand in (operands_of(operation)[name] for name in ("a", "b")):
        *_, rows, columns = operand.shape(sizes)
        row_bytes = columns * operand.dtype.bytes
        needed += rows * row_bytes
        read += rows * -(-row_bytes // line_bytes) * line_bytes
    return read / needed
