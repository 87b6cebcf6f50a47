"""Wait states that the program itself must leave between dependent instructions, as the hardware does not.

One state is one issue slot: every instruction takes one, `s_nop n` takes n + 1. The counts are those of the AMD CDNA4
ISA guide, table 38 ("Required software-inserted wait states"), as LLVM 22 puts them between gfx950 instructions.
Compilers insert them; assembly statements are on their own.

AMD's own kernels keep some of these rules nowhere, and are right on the hardware all the same: those are marked as by
the book (docs/explanation/hazards.md says which and why).
"""

from __future__ import annotations

from dataclasses import dataclass

from hktune.emulator.hazards.footprint import DS, FLAT, MFMA, SCALAR, VALU, VMEM, Footprint, Set, register_name
from hktune.emulator.hazards.matrix_states import MatrixStates
from hktune.emulator.machine.waves import EXEC, M0, VCC

_VCC = frozenset({SCALAR + VCC, SCALAR + VCC + 1})
_EXEC = frozenset({SCALAR + EXEC, SCALAR + EXEC + 1})
_M0 = frozenset({SCALAR + M0})
_LONGEST_VALU = 5
_NONE: Set = frozenset()
_THROUGH_M0 = "it loads to LDS through M0"
_SCALAR_READ = "it reads a scalar that the VALU wrote"
_INTO_MFMA = "an MFMA reads what a VALU instruction wrote"
_MFMA_RESULT = "it uses the result of an MFMA"
_BY_THE_BOOK = frozenset({_THROUGH_M0, _SCALAR_READ})
_RESULT_SEEN_READ = 2
"""States behind an MFMA after which AMD's kernels have the VALU read its result."""


@dataclass(frozen=True, slots=True)
class Producer:
    """An instruction whose results others must not touch yet. `after` is the state count right behind it."""

    footprint: Footprint
    after: int
    last: int
    scalars: Set


def producer_of(footprint: Footprint, after: int) -> Producer | None:
    """What must be remembered of an instruction; None when nothing can follow it too closely."""
    scalars = frozenset(register for register in footprint.writes if register >= SCALAR)
    if footprint.matrix is not None:
        return Producer(footprint, after, after + footprint.matrix.longest, scalars)
    if footprint.kind == VALU:
        return Producer(footprint, after, after + (_LONGEST_VALU if scalars else 2), scalars)
    if footprint.stored:
        return Producer(footprint, after, after + 2, scalars)
    if footprint.writes & _M0:
        return Producer(footprint, after, after + 1, scalars)
    return None


@dataclass(frozen=True, slots=True)
class Conflict:
    """An instruction that comes too early after another: states it must wait, states it did, and why. `by_the_book`:
    the guide asks for it, production kernels do not."""

    needed: int
    there: int
    why: str
    by_the_book: bool


def conflict(producer: Producer, consumer: Footprint, now: int, behind_mfma: int = -1) -> Conflict | None:
    """When `consumer` at state `now` comes too early after `producer`; `behind_mfma` is the state after the last MFMA
    before it (-1: none)."""
    needed, registers, why = _required(producer, consumer)
    there = now - producer.after
    if there >= needed:
        return None
    by_the_book = (
        why in _BY_THE_BOOK
        or (why == _INTO_MFMA and there > 0 and behind_mfma > producer.after)
        or (why == _MFMA_RESULT and there >= _RESULT_SEEN_READ and _only_reads(consumer, registers))
    )
    return Conflict(needed, there, f"{why} ({register_name(min(registers))})", by_the_book)


def _only_reads(consumer: Footprint, registers: Set) -> bool:
    return consumer.kind == VALU and not registers & consumer.writes


def _required(producer: Producer, consumer: Footprint) -> tuple[int, Set, str]:
    """The longest wait that any rule asks for between the two, on which registers, and why."""
    kind = producer.footprint.kind
    if producer.footprint.matrix is not None:
        return _after_mfma(producer.footprint, producer.footprint.matrix, consumer)
    if kind == VALU:
        return max(_after_valu(producer, consumer), key=lambda rule: rule[0], default=(0, _NONE, ""))
    if producer.footprint.stored:
        overwritten = producer.footprint.stored & consumer.writes if consumer.kind == VALU else _NONE
        return (2, overwritten, "it overwrites data of a wide store") if overwritten else (0, _NONE, "")
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
        return states.memory, result & consumer.reads, _MFMA_RESULT
    if consumer.kind == VALU:
        touched = result & (consumer.reads | consumer.writes)
        if touched:
            return states.result, touched, _MFMA_RESULT
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
        rule(2, read, _INTO_MFMA)
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
            rule(2, read, "DPP reads what the VALU wrote")
            rule(5, producer.scalars & _EXEC, "DPP follows a VALU write of EXEC")
    return rules
