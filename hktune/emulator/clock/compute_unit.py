"""One compute unit, simulated event by event: SIMDs, their issue slots, MFMA pipes, LDS, the vector memory path.

Rules (AMD's CDNA4 ISA guide where not said otherwise; figures in `rates`): a SIMD looks at its waves once per slot,
by priority and then age, and issues at most one instruction of each class, at most one per wave. Loads and LDS reads
return in the order they were issued; s_waitcnt stalls its own wave. s_barrier counts arrivals, at whichever barrier.

Queues are first come, first served, so that an operation's completion is known when it issues, and time need only
stop where a wave can issue. An operation that finds its queue full holds its wave, and its SIMD's port to that queue,
until it has entered: SIMDs take turns at a full queue, and the oldest wave of each goes first.
Not modelled: register port conflicts, instruction fetch, scalar loads out of order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from hktune.core.arch import Arch
from hktune.emulator.clock.instruction_stream import (
    BARRIER,
    BRANCH,
    END,
    ISSUE_CLASS,
    LDS,
    LOAD,
    MFMA,
    PAUSE,
    PRIORITY,
    SCALAR,
    SCALAR_LOAD,
    STORE,
    VALU,
    WAIT,
    Operation,
)
from hktune.emulator.clock.rates import Rates

_NEVER = 1 << 60


class Wave:
    """One wave in flight. `issued` is when each of its operations so far was issued, in clk; `held`, by position, until
    when a full queue or a barrier kept the wave after one of them; `vm` and `lgkm`, when what each counter counts was
    or will be done, in the order of issue."""

    __slots__ = ("age", "held", "issued", "lgkm", "operations", "priority", "ready", "simd", "vm", "workgroup")

    def __init__(self, operations: list[Operation], age: int, simd: Simd, workgroup: _Arrivals) -> None:
        self.operations = operations
        self.age = age
        self.priority = 0
        self.ready = 0
        self.simd = simd
        self.workgroup = workgroup
        self.issued: list[int] = []
        self.held: dict[int, int] = {}
        self.vm: list[int] = []
        self.lgkm: list[int] = []


class Simd:
    """One SIMD: its waves by priority and age, when each of its units is free, and when it next looks at its waves."""

    __slots__ = ("lds_free", "memory_free", "mfma_free", "number", "valu_free", "visit", "waves")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waves: list[Wave] = []
        self.mfma_free = 0
        self.valu_free = 0
        self.lds_free = 0
        self.memory_free = 0
        self.visit = _NEVER


class _Arrivals:
    """A workgroup's barrier: who waits, each with the position of its own, and how many waves still live."""

    __slots__ = ("live", "waiting")

    def __init__(self, waves: int) -> None:
        self.live = waves
        self.waiting: list[tuple[Wave, int]] = []


class Lds:
    """The LDS: one bus and FIFO for each pair of SIMDs, and the banks that both share, booked 4 clk at a time."""

    def __init__(self, rates: Rates, pairs: int) -> None:
        self._latency_clk = rates.lds_latency_clk
        self._dma_bytes_per_clk = rates.lds_dma_bytes_per_clk
        self._bus_free = [0] * pairs
        depth = rates.lds_fifo_entries
        self._entries: list[deque[int]] = [deque([0] * depth, depth) for _ in range(pairs)]
        self._booked: dict[int, int] = {}

    def access(self, pair: int, now: int, bus_clk: int, bank_clk: int) -> tuple[int, int]:
        """Queue one instruction: when it enters the pair's FIFO, and when its data is back."""
        entries = self._entries[pair]
        entered = max(now, entries[0])
        start = max(entered, self._bus_free[pair])
        end = self._book(start, bank_clk)
        self._bus_free[pair] = end = max(start + bus_clk, end)
        entries.append(start)
        return entered, max(start + self._latency_clk, end + self._latency_clk - bus_clk)

    def deposit(self, now: int, size_bytes: int) -> int:
        """Take banks for data that arrives straight from memory; when it is written."""
        return self._book(now, size_bytes // self._dma_bytes_per_clk)

    def _book(self, start: int, bank_clk: int) -> int:
        """Take the first free bank clk from `start` on; where the last one ends."""
        booked, block = self._booked, start >> 2
        while bank_clk > 0:
            used = booked.get(block, 0)
            if used < 4:
                taken = min(4 - used, bank_clk)
                booked[block] = used + taken
                bank_clk -= taken
            block += 1
        return block << 2


class Tcp:
    """The vector memory path of a compute unit: a queue of bounded bytes, served one instruction after another."""

    def __init__(self, rates: Rates) -> None:
        self._limit_bytes = rates.tcp_in_flight_bytes
        self._free = 0
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0

    def request(self, now: int, busy_clk: int, size_bytes: int, latency_clk: int) -> tuple[int, int]:
        """Queue one instruction: when there is room for it, and when its data is back, or its store acknowledged."""
        entered = max(now, self._room_at(now, size_bytes))
        self._free = max(entered, self._free) + busy_clk
        done = self._free + latency_clk
        self._in_flight.append((done, size_bytes))
        self._in_flight_bytes += size_bytes
        return entered, done

    def _room_at(self, now: int, size_bytes: int) -> int:
        """When so many more bytes may be in flight; 0 if they may at once."""
        queue = self._in_flight
        while queue and queue[0][0] <= now:
            self._in_flight_bytes -= queue.popleft()[1]
        excess = self._in_flight_bytes + size_bytes - self._limit_bytes
        at = 0
        for done, held_bytes in queue:
            if excess <= 0:
                break
            at = done
            excess -= held_bytes
        return at


class ComputeUnit:
    """Runs workgroups that are resident together from their first instruction to the end of the last wave."""

    def __init__(self, arch: Arch, rates: Rates, latency_clk: int) -> None:
        self._rates = rates
        self._latency_clk = latency_clk
        self._vmcnt_max, self._lgkmcnt_max = arch.vmcnt_max, arch.lgkmcnt_max
        self._simds = [Simd(number) for number in range(arch.simds_per_cu)]
        self._lds = Lds(rates, arch.simds_per_cu // 2)
        self._tcp = Tcp(rates)
        self._visits: list[tuple[int, int]] = []
        self._end_clk = 0
        self._issue: dict[int, Callable[[Wave, Operation, int], int]] = {
            MFMA: self._mfma,
            VALU: self._valu,
            SCALAR: _at_once,
            SCALAR_LOAD: self._scalar_load,
            LDS: self._lds_access,
            LOAD: self._load,
            STORE: self._store,
            BRANCH: _at_once,
            WAIT: self._wait,
            BARRIER: self._barrier,
            PRIORITY: self._set_priority,
            PAUSE: _at_once,
            END: self._end,
        }

    def run(self, workgroups: Sequence[Sequence[list[Operation]]]) -> tuple[list[list[Wave]], int]:
        """The waves of each workgroup as they ended, and the clk at which the last one did.

        Waves go to the SIMDs in turn (measured up to a permutation: tinygrad's gfx950 thread traces).
        """
        resident: list[list[Wave]] = []
        age = 0
        for group in workgroups:
            arrivals = _Arrivals(len(group))
            resident.append([])
            for operations in group:
                simd = self._simds[age % len(self._simds)]
                wave = Wave(operations, age, simd, arrivals)
                simd.waves.append(wave)
                resident[-1].append(wave)
                age += 1
        for simd in self._simds:
            self._look(simd, 0)
        visits, simds = self._visits, self._simds
        while visits:
            now, number = heapq.heappop(visits)
            if simds[number].visit == now:
                self._visit(simds[number], now)
        return resident, self._end_clk

    def _look(self, simd: Simd, at: int) -> None:
        """Have `simd` look at its waves at `at`, unless it does so earlier anyway."""
        if at < simd.visit:
            simd.visit = at
            heapq.heappush(self._visits, (at, simd.number))

    def _visit(self, simd: Simd, now: int) -> None:
        """One issue slot."""
        simd.visit = following = _NEVER
        taken = 0
        slot = self._rates.issue_slot_clk
        for wave in simd.waves:
            ready = wave.ready
            if ready <= now:
                issued = wave.issued
                operation = wave.operations[len(issued)]
                kind, delay_clk, _, _, _, back, result_clk = operation
                port = ISSUE_CLASS[kind]
                if taken & port:
                    ready = now + slot
                elif back and issued[-back] + result_clk > now:
                    ready = issued[-back] + result_clk
                else:
                    wave.ready = now + delay_clk
                    earliest = self._issue[kind](wave, operation, now)
                    if earliest <= now:
                        issued.append(now)
                        taken |= port
                        ready = wave.ready
                    else:
                        ready = earliest
                ready = -(-ready // slot) * slot
                wave.ready = ready
            if ready < following:
                following = ready
        if following < _NEVER:
            self._look(simd, following)

    def _mfma(self, wave: Wave, operation: Operation, now: int) -> int:
        simd = wave.simd
        if simd.mfma_free <= now:
            simd.mfma_free = now + operation.busy_clk
            return now
        return simd.mfma_free

    def _valu(self, wave: Wave, operation: Operation, now: int) -> int:
        simd = wave.simd
        if simd.valu_free <= now:
            simd.valu_free = now + operation.busy_clk
            return now
        return simd.valu_free

    def _lds_access(self, wave: Wave, operation: Operation, now: int) -> int:
        simd = wave.simd
        earliest = max(simd.lds_free, _counter_room(wave.lgkm, self._lgkmcnt_max))
        if earliest <= now:
            entered, done = self._lds.access(simd.number >> 1, now, operation.first, operation.busy_clk)
            if entered > wave.ready:
                wave.ready = wave.held[len(wave.issued)] = entered
            simd.lds_free = entered
            wave.lgkm.append(done)
        return earliest

    def _scalar_load(self, wave: Wave, operation: Operation, now: int) -> int:
        done = now + (self._latency_clk if operation.second else self._rates.scalar_load_clk)
        wave.lgkm.append(max(done, wave.lgkm[-1]) if wave.lgkm else done)
        return now

    def _load(self, wave: Wave, operation: Operation, now: int) -> int:
        return self._request(wave, operation, now, self._latency_clk)

    def _store(self, wave: Wave, operation: Operation, now: int) -> int:
        return self._request(wave, operation, now, self._latency_clk if operation.second else self._rates.store_ack_clk)

    def _request(self, wave: Wave, operation: Operation, now: int, latency_clk: int) -> int:
        simd = wave.simd
        earliest = max(simd.memory_free, _counter_room(wave.vm, self._vmcnt_max))
        if earliest <= now:
            entered, done = self._tcp.request(now, operation.busy_clk, operation.first, latency_clk)
            if entered > wave.ready:
                wave.ready = wave.held[len(wave.issued)] = entered
            simd.memory_free = entered
            if operation.kind == LOAD and operation.second:
                done = self._lds.deposit(done, operation.second)
            wave.vm.append(max(done, wave.vm[-1]) if wave.vm else done)
        return earliest

    def _wait(self, wave: Wave, operation: Operation, _now: int) -> int:
        vmcnt, lgkmcnt = operation.first, operation.second
        by_vm = wave.vm[-1 - vmcnt] if 0 <= vmcnt < len(wave.vm) else 0
        by_lgkm = wave.lgkm[-1 - lgkmcnt] if 0 <= lgkmcnt < len(wave.lgkm) else 0
        return max(by_vm, by_lgkm)

    def _barrier(self, wave: Wave, _operation: Operation, now: int) -> int:
        wave.ready = _NEVER
        wave.workgroup.waiting.append((wave, len(wave.issued)))
        self._release(wave.workgroup, now)
        return now

    def _release(self, workgroup: _Arrivals, now: int) -> None:
        """Let the waves at a barrier go once every live one has arrived."""
        if not workgroup.waiting or len(workgroup.waiting) < workgroup.live:
            return
        slot = self._rates.issue_slot_clk
        at = -(-(now + self._rates.barrier_clk) // slot) * slot
        for wave, position in workgroup.waiting:
            wave.ready = wave.held[position] = at
            self._look(wave.simd, at)
        workgroup.waiting = []

    def _set_priority(self, wave: Wave, operation: Operation, now: int) -> int:
        wave.priority = operation.first
        wave.simd.waves = sorted(wave.simd.waves, key=_by_priority)
        return now

    def _end(self, wave: Wave, _operation: Operation, now: int) -> int:
        earliest = max(wave.vm[-1] if wave.vm else 0, wave.lgkm[-1] if wave.lgkm else 0)
        if earliest <= now:
            wave.ready = _NEVER
            wave.simd.waves = [other for other in wave.simd.waves if other is not wave]
            wave.workgroup.live -= 1
            self._release(wave.workgroup, now)
            self._end_clk = max(self._end_clk, now)
        return earliest


def _at_once(_wave: Wave, _operation: Operation, now: int) -> int:
    return now


def _counter_room(outstanding: list[int], limit: int) -> int:
    """When a counter that holds at most `limit` has room (assumed: issue stalls while it is full)."""
    return outstanding[-limit] if len(outstanding) >= limit else 0


def _by_priority(wave: Wave) -> tuple[int, int]:
    return (-wave.priority, wave.age)
