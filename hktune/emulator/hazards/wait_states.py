"""Wait states that the program itself must leave between dependent instructions, as the hardware does not.

One state is one issue slot: every instruction takes one, `s_nop n` takes n + 1. The counts are those of the AMD CDNA4
ISA guide, table 38 ("Required software-inserted wait states"), as LLVM 22 puts them between gfx950 instructions.
Compilers insert them; assembly statements are on their own. A matrix instruction that finds the pipe held by another
waits for it by itself, which the guide does not count.

AMD's own kernels keep some of these rules nowhere, and are right on the hardware all the same: those are marked as by
the book (docs/explanation/hazards.md says which and why).
"""

from __future__ import annotations

from dataclasses import dataclass

from hktune.emulator.hazards.footprint import DS, FLAT, MFMA, SCALAR, VALU, VMEM, Footprint, Set, register_name
from hktune.emulator.instructions.matrix_states import MatrixStates
from hktune.emulator.machine.waves import EXEC, M0, VCC

_VCC = frozenset({SCALAR + VCC, SCALAR + VCC + 1})
_EXEC = frozenset({SCALAR + EXEC, SCALAR + EXEC + 1})
_M0 = frozenset({SCALAR + M0})
_LONGEST_VALU = 5
_NONE: Set = frozenset()
_THROUGH_M0 = "it loads to LDS through M0"
_SCALAR_READ = "it reads a scalar that the VALU wrote"
_DPP_OTHER = "DPP reads what the VALU wrote, but moves another register"
_DPP_MOVED = "DPP moves between lanes what the VALU wrote"
_MFMA_RESULT = "the VALU reads the result of an MFMA"
_SEEN = {_THROUGH_M0: 0, _SCALAR_READ: 0, _DPP_OTHER: 0, _DPP_MOVED: 1, _MFMA_RESULT: 2}
"""The fewest states that AMD's production kernels leave where the guide asks for more."""


class Clock:
    """The states of a wave: as the guide counts them, and with the time that matrix instructions wait for the pipe."""

    def __init__(self) -> None:
        self.counted = 0
        self.elapsed = 0
        self._pipe_free = 0

    def copy(self) -> Clock:
        twin = Clock()
        twin.counted, twin.elapsed, twin._pipe_free = self.counted, self.elapsed, self._pipe_free
        return twin

    @property
    def held(self) -> int:
        """For how long matrix instructions wait for the pipe."""
        return max(self._pipe_free - self.elapsed, 0)

    def issue_of(self, footprint: Footprint) -> int:
        """When `footprint` is issued next."""
        return max(self.elapsed, self._pipe_free) if footprint.matrix is not None else self.elapsed

    def pass_by(self, footprint: Footprint) -> None:
        """It was issued."""
        issued = self.issue_of(footprint)
        self.counted += footprint.states
        self.elapsed = issued + footprint.states
        if footprint.matrix is not None:
            self._pipe_free = issued + footprint.matrix.passes


@dataclass(frozen=True, slots=True)
class Producer:
    """An instruction whose results others must not touch yet. `after` and `elapsed` are the clock's right behind it."""

    footprint: Footprint
    after: int
    elapsed: int
    last: int
    scalars: Set


def producer_of(footprint: Footprint, clock: Clock) -> Producer | None:
    """What must be remembered of an instruction that was just issued; None when nothing can follow it too closely."""
    after, elapsed = clock.counted, clock.elapsed
    scalars = frozenset(register for register in footprint.writes if register >= SCALAR)
    if footprint.matrix is not None:
        return Producer(footprint, after, elapsed, after + footprint.matrix.longest, scalars)
    if footprint.kind == VALU:
        return Producer(footprint, after, elapsed, after + (_LONGEST_VALU if scalars else 2), scalars)
    if footprint.stored:
        return Producer(footprint, after, elapsed, after + 2, scalars)
    if footprint.writes & _M0:
        return Producer(footprint, after, elapsed, after + 1, scalars)
    return None


@dataclass(frozen=True, slots=True)
class Conflict:
    """An instruction that comes too early after another: states it must wait, states it did, and why. `by_the_book`:
    the guide asks for it, production kernels do not."""

    needed: int
    there: int
    why: str
    by_the_book: bool


def conflict(producer: Producer, consumer: Footprint, clock: Clock) -> Conflict | None:
    """When `consumer`, the next instruction, comes too early after `producer`."""
    needed, registers, why = _required(producer, consumer)
    there = clock.counted - producer.after
    if there >= needed:
        return None
    by_the_book = there >= _SEEN.get(why, needed) or clock.issue_of(consumer) - producer.elapsed >= needed
    return Conflict(needed, there, f"{why} ({register_name(min(registers))})", by_the_book)


def _required(producer: Producer, consumer: Footprint) -> tuple[int, Set, str]:
    """The longest wait that any rule asks for between the two, on which registers, and why."""
    kind = producer.footprint.kind
    if producer.footprint.matrix is not None:
        return _after_mfma(producer.footprint, producer.footprint.matrix, consumer)
    if kind == VALU:
        return max(_after_valu(producer, consumer), key=lambda rule: rule[0], default=(0, _NONE, ""))
    if producer.footprint.stored:
        overwritten = producer.footprint.stored & consumer.writes if consumer.kind == VALU else _NONE
        states = producer.footprint.stored_states
        return (states, overwritten, "it overwrites data of a wide store") if overwritten else (0, _NONE, "")
    if consumer.to_lds:
        return 1, _M0, _THROUGH_M0
    return 0, _NONE, ""


def _after_mfma(mfma: Footprint, states: MatrixStates, consumer: Footprint) -> tuple[int, Set, str]:
    result = mfma.writes
    if consumer.kind == MFMA:
        touched = result & consumer.factors
        if touched:
            return states.result, touched, "it multiplies the result of an MFMA"
        overlap = result & consumer.addends
        if overlap and consumer.addends != result:
            return states.part, overlap, "it adds to a part of the result of an MFMA"
        return states.same if overlap else 0, overlap, "it adds to the result of an MFMA"
    if consumer.kind in (DS, VMEM, FLAT) and result & consumer.reads:
        return states.memory, result & consumer.reads, "a memory operation reads the result of an MFMA"
    if consumer.kind == VALU:
        only_written = result & (consumer.writes - consumer.reads)  # in place it waits as a reader
        if only_written:
            return states.result, only_written, "it overwrites the result of an MFMA"
        if result & consumer.reads:
            return states.result, result & consumer.reads, _MFMA_RESULT
        overwritten = mfma.addends & consumer.writes
        if overwritten:
            return states.addend, overwritten, "it overwrites what an MFMA adds to"
    return 0, _NONE, ""


def _after_valu(producer: Producer, consumer: Footprint) -> list[tuple[int, Set, str]]:
    """Every rule that applies."""
    valu, rules = producer.footprint, []
    read = valu.writes & consumer.reads

    def rule(states: int, registers: Set, why: str) -> None:
        if registers:
            rules.append((states, registers, why))

    if consumer.kind == MFMA:
        rule(2, read, "an MFMA reads what a VALU instruction wrote")
        rule(4, producer.scalars & _EXEC, "an MFMA follows a VALU write of EXEC")
    elif consumer.kind in (VMEM, FLAT):
        rule(5, producer.scalars & consumer.reads, "it addresses memory through a scalar that the VALU wrote")
    elif consumer.kind == VALU:
        name = consumer.instruction.mnemonic
        rule(2, producer.scalars & consumer.reads, _SCALAR_READ)
        rule(4, producer.scalars & consumer.lane_select, "it selects a lane by a scalar that the VALU wrote")
        if "div_fmas" in name:
            rule(4, producer.scalars & _VCC, "v_div_fmas reads VCC")
        if valu.transcendental and not consumer.transcendental:
            rule(1, read, "it reads the result of a transcendental instruction")
        if name.startswith(("v_readlane", "v_readfirstlane")):
            rule(1, read, "it reads a lane of what the VALU wrote")
        if consumer.instruction.variant == "dpp":
            moved = read & {consumer.instruction.fields["vsrc0"]}
            rule(2, moved, _DPP_MOVED)
            rule(2, read - moved, _DPP_OTHER)
            rule(5, producer.scalars & _EXEC, "DPP follows a VALU write of EXEC")
    return rules
