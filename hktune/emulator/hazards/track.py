"""What one wave has under way, for all waves that executed the same instructions: those share one track.

Nothing has to arrive late for a missing wait to show. A register that a load brings is poison from the load's issue to
the s_waitcnt that covers it, whatever the data do. What the counters guarantee (CDNA4 ISA guide, section 4.4): vector
memory returns in order of issue, loads and stores mixed; LDS returns in order; scalar loads return in any order, so
that only lgkmcnt(0) covers one; flat accesses count in both and are covered by zero of both. Registers that a pending
operation only reads may be overwritten: it took them at issue, for CDNA has no counter that would tell.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hktune.emulator.hazards import finding as rules
from hktune.emulator.hazards.footprint import (
    DS,
    FLAT,
    LGKMCNT_MAX,
    SMEM,
    VMCNT_MAX,
    VMEM,
    WAIT,
    Footprint,
    register_name,
)
from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR
from hktune.emulator.hazards.remedies import Counts, encodable, idle_text, wait_text
from hktune.emulator.hazards.wait_states import Clock, Producer, conflict, producer_of


@dataclass(frozen=True, slots=True)
class Objection:
    """What the instruction at hand does that some timing makes wrong, after the earlier instruction `after` of the same
    wave. `wait` or `idle` (states) before it would make it right; `by_the_book`: AMD's own kernels do it."""

    rule: str
    what: str
    after: Footprint | None = None
    by_the_book: bool = False
    wait: Counts | None = None
    left: int = 0
    idle: int = 0


@dataclass(eq=False, slots=True)
class Pending:
    """An operation under way; `counters` that have yet to cover it."""

    footprint: Footprint
    counters: int


class Track:
    """Registers written, operations outstanding, and instructions that want wait states behind them."""

    def __init__(self, written: AbstractSet[int]) -> None:
        self.written = written
        self.objections: list[Objection] = []
        self.vector: list[Pending] = []
        self.lds: list[Pending] = []
        self.scalar: list[Pending] = []
        self._arriving: dict[int, Pending] = {}
        self._recent: list[Producer] = []
        self._clock = Clock()

    def copy(self) -> Track:
        """A track of its own for waves that part from the rest. Pending flat accesses are shared no longer."""
        twin = Track(set(self.written))
        known = {id(each): Pending(each.footprint, each.counters) for each in (*self.vector, *self.lds, *self.scalar)}
        twin.vector = [known[id(each)] for each in self.vector]
        twin.lds = [known[id(each)] for each in self.lds]
        twin.scalar = [known[id(each)] for each in self.scalar]
        twin._arriving = {register: known[id(each)] for register, each in self._arriving.items()}
        twin._recent, twin._clock = list(self._recent), self._clock.copy()
        return twin

    def form(self) -> Hashable:
        """The same for tracks of which the same is true from now on. It names footprints by identity, so it means
        something while they live."""
        now, elapsed = self._clock.counted, self._clock.elapsed
        self._recent = [each for each in self._recent if each.last > now]
        self.vector, self.lds = self._that_count(self.vector, VMCNT_MAX), self._that_count(self.lds, LGKMCNT_MAX)
        pending = {id(each): each for each in (*self.vector, *self.lds, *self.scalar)}
        number = {key: place for place, key in enumerate(pending)}
        return (
            self.written,
            tuple((id(each.footprint), each.counters) for each in pending.values()),
            tuple(tuple(number[id(each)] for each in queue) for queue in (self.vector, self.lds, self.scalar)),
            frozenset((register, number[id(each)]) for register, each in self._arriving.items()),
            tuple((id(p.footprint), p.after - now, p.elapsed - elapsed, p.last - now) for p in self._recent),
            self._clock.held,
        )

    def _that_count(self, queue: list[Pending], most: int) -> list[Pending]:
        """`queue` without those that no wait can tell apart any more: older than the counter reaches, and bringing
        nothing that is still on its way."""
        if len(queue) <= most + 1:
            return queue
        bringing = set(map(id, self._arriving.values()))
        old = [each for each in queue[: -most - 1] if each.footprint.kind == FLAT or id(each) in bringing]
        return old + queue[-most - 1 :]

    @property
    def settled(self) -> bool:
        """Nothing is under way: tracks that are settled and wrote the same registers are alike."""
        return not (self.vector or self.lds or self.scalar or any(p.last > self._clock.counted for p in self._recent))

    def issue(self, footprint: Footprint) -> None:
        """Execute one instruction. What is wrong with it is added to `objections`. It is taken to be repaired then, so
        no later instruction is blamed for the same."""
        if self._arriving and not (
            self._arriving.keys().isdisjoint(footprint.reads) and self._arriving.keys().isdisjoint(footprint.writes)
        ):
            self._check_arrivals(footprint)
        if not footprint.strict <= self.written or footprint.lenient:
            self._check_written(footprint)
        if self._recent:
            self._check_wait_states(footprint)
        self._clock.pass_by(footprint)
        self.written |= footprint.writes
        if footprint.kind == WAIT:
            self.wait(footprint.vmcnt, footprint.lgkmcnt)
        elif footprint.counted:
            self._send(footprint)
        producer = producer_of(footprint, self._clock)
        if producer is not None:
            self._recent.append(producer)

    def wait(self, vmcnt: int | None, lgkmcnt: int | None) -> None:
        """An s_waitcnt that leaves so many operations outstanding."""
        if vmcnt is not None:
            self.vector = self._left(self.vector, vmcnt)
        if lgkmcnt is not None:
            self.lds = self._left(self.lds, lgkmcnt)
            if lgkmcnt == 0:
                self.scalar = self._left(self.scalar, 0)

    def _left(self, queue: list[Pending], count: int) -> list[Pending]:
        """What may still be outstanding with `count` left on the counter: the youngest, and flat ones of any age."""
        if count >= len(queue):
            return queue
        ordered = [each for each in queue if each.footprint.kind != FLAT]
        kept = set(map(id, ordered[len(ordered) - count :] if count else ()))
        left = [each for each in queue if id(each) in kept or (count and each.footprint.kind == FLAT)]
        staying = set(map(id, left))
        for each in queue:
            if id(each) not in staying:
                each.counters -= 1
                if not each.counters:
                    self._arrive(each)
        return left

    def _arrive(self, pending: Pending) -> None:
        for register in pending.footprint.writes:
            if self._arriving.get(register) is pending:
                del self._arriving[register]

    def _send(self, footprint: Footprint) -> None:
        pending = Pending(footprint, 2 if footprint.kind == FLAT else 1)
        if footprint.kind in (VMEM, FLAT):
            self.vector.append(pending)
        if footprint.kind in (DS, FLAT):
            self.lds.append(pending)
        if footprint.kind == SMEM:
            if not footprint.writes:
                return
            self.scalar.append(pending)
        for register in footprint.writes:
            self._arriving[register] = pending

    def _check_arrivals(self, footprint: Footprint) -> None:
        for register in sorted(footprint.reads | footprint.writes):
            pending = self._arriving.get(register)
            if pending is None:
                continue
            reads = register in footprint.reads
            in_order = footprint.kind == pending.footprint.kind and footprint.kind in (VMEM, DS)
            if not reads and in_order:
                continue
            self.objections.append(self._too_early(register, "reads" if reads else "overwrites", pending))
            self._arrive(pending)

    def _too_early(self, register: int, act: str, pending: Pending) -> Objection:
        counts = self._cover(pending)
        what = (
            f"{act} {register_name(register)}, which {pending.footprint.instruction} may still be writing: "
            f"{self.outstanding()} outstanding, {wait_text(counts)} would cover it"
        )
        rule = rules.MISSING_WAIT
        if self._counted_out(pending):
            rule = rules.COUNTER_FULL
        elif self._from_memory(pending):
            rule = rules.FLAT_BY_VMCNT
        left = min(count for count in counts if count is not None)
        return Objection(rule, what, pending.footprint, rule != rules.MISSING_WAIT, counts, left)

    def _counted_out(self, pending: Pending) -> bool:
        """More operations of its queue were issued since than the counter holds: issue stalled until it was done."""
        for kind, queue, most in ((VMEM, self.vector, VMCNT_MAX), (DS, self.lds, LGKMCNT_MAX)):
            if pending.footprint.kind == kind and pending in queue:
                return len(queue) - 1 - queue.index(pending) >= most
        return False

    def _from_memory(self, pending: Pending) -> bool:
        """A flat load's data are there by `vmcnt` alone: they come from memory, as flat accesses of LDS are not
        emulated."""
        return pending.footprint.kind == FLAT and pending not in self.vector

    def outstanding(self) -> str:
        """The counters' state in words. Issue stalls at a full counter, so there are never more under way."""
        vector, lds = min(len(self.vector), VMCNT_MAX), min(len(self.lds), LGKMCNT_MAX)
        return f"{vector} vector memory, {lds} LDS and {len(self.scalar)} scalar memory operations are"

    def _cover(self, pending: Pending) -> Counts:
        """The loosest wait that completes `pending`."""
        kind = pending.footprint.kind
        if kind == FLAT:
            return 0, 0
        if kind == SMEM:
            return None, 0
        number, queue = (ON_VECTOR, self.vector) if kind == VMEM else (ON_LDS, self.lds)
        return encodable(number, len(queue) - 1 - queue.index(pending))

    def _check_written(self, footprint: Footprint) -> None:
        never = footprint.strict - self.written
        if not never and footprint.lenient.isdisjoint(self.written):
            never = footprint.lenient
        if never:
            what = f"reads {register_name(min(never))}, which nothing has written"
            self.objections.append(Objection(rules.UNSET_REGISTER, what))
            self.written = self.written | never

    def _check_wait_states(self, footprint: Footprint) -> None:
        now, expired = self._clock.counted, 0
        for producer in self._recent:
            if producer.last <= now:
                expired += 1
                continue
            found = conflict(producer, footprint, self._clock)
            if found is not None:
                idle = found.needed - found.there
                what = (
                    f"follows {producer.footprint.instruction} too closely, as {found.why}: {found.needed} wait states "
                    f"are needed, {found.there} are there; put {idle_text(idle)} before it"
                )
                rule = rules.BOOK_WAIT_STATE if found.by_the_book else rules.WAIT_STATE
                self.objections.append(Objection(rule, what, producer.footprint, found.by_the_book, idle=idle))
        if expired > 16:
            self._recent = [producer for producer in self._recent if producer.last > now]
