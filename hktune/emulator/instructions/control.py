"""Control flow and synchronisation: SOPP, and the SOP1 and SOPK instructions that set the program counter.

A terminator ends a block. It moves the program counters of its waves and returns where they all go next, or None when
they part, wait or end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hktune.emulator.instructions.decode import Instruction
from hktune.emulator.instructions.operand_access import Step, pair, scalar_destination, unimplemented
from hktune.emulator.instructions.wave_modes import MODE_TERMINATORS, Terminator
from hktune.emulator.machine.memory import Array
from hktune.emulator.machine.waves import EXEC, VCC, Lanes, Waves

Condition = Callable[[Waves, Lanes], Array]

_NO_EFFECT = frozenset(
    {
        "s_nop",
        "s_waitcnt",
        "s_setprio",
        "s_sleep",
        "s_wakeup",
        "s_icache_inv",
        "s_incperflevel",
        "s_decperflevel",
        "s_ttracedata",
        "s_set_valu_coexec_mode",
    }
)
_SETHALT_BIT = 1


def build_control(instruction: Instruction) -> Step:
    """The step of a SOPP instruction that does not end a block."""
    if instruction.mnemonic in _NO_EFFECT:
        return lambda _m, _w: None
    if instruction.mnemonic == "s_trap":
        return _trap(instruction)
    raise unimplemented(instruction)


class Trap(Exception):
    """A kernel gives itself up, by `instruction`."""

    def __init__(self, instruction: Instruction) -> None:
        super().__init__("the kernel stopped itself: an assert that failed, abort, or code that must not be reached")
        self.instruction = instruction


def _trap(instruction: Instruction) -> Step:
    """s_trap: what assert, abort and __builtin_trap become. Its handler is the driver's."""

    def step(_m: Waves, _w: Lanes) -> None:
        raise Trap(instruction)

    return step


def _zero(register: int) -> Condition:
    return lambda m, w: (m.scalars[register : register + 2, w] == 0).all(axis=0)


def _not(condition: Condition) -> Condition:
    return lambda m, w: ~condition(m, w)


_CONDITIONS: dict[str, Condition] = {
    "s_cbranch_scc0": lambda m, w: ~m.scc[w],
    "s_cbranch_scc1": lambda m, w: m.scc[w],
    "s_cbranch_vccz": _zero(VCC),
    "s_cbranch_vccnz": _not(_zero(VCC)),
    "s_cbranch_execz": _zero(EXEC),
    "s_cbranch_execnz": _not(_zero(EXEC)),
}


def ends_block(instruction: Instruction) -> bool:
    return instruction.mnemonic in _CONDITIONS or instruction.mnemonic in _TERMINATORS


def branch_target(instruction: Instruction) -> int | None:
    """Where a direct branch goes."""
    if instruction.mnemonic in _CONDITIONS or instruction.mnemonic in ("s_branch", "s_call_b64"):
        words = instruction.fields["simm16"]
        return instruction.next_address + 4 * (words - (1 << 16) if words >> 15 else words)
    return None


def falls_through(instruction: Instruction) -> bool:
    return instruction.mnemonic not in ("s_branch", "s_endpgm", "s_setpc_b64")


def build_terminator(instruction: Instruction) -> Terminator:
    if instruction.mnemonic in _CONDITIONS:
        return _conditional_branch(instruction)
    return _TERMINATORS[instruction.mnemonic](instruction)


def _conditional_branch(instruction: Instruction) -> Terminator:
    condition, target, other = _CONDITIONS[instruction.mnemonic], branch_target(instruction), instruction.next_address
    either = np.array([other, target])

    def terminate(m: Waves, w: Lanes) -> int | None:
        taken = condition(m, w)
        if taken.all():
            return target
        if not taken.any():
            return other
        m.pc[w] = either[taken.astype(np.intp)]
        return None

    return terminate


def _branch(instruction: Instruction) -> Terminator:
    target = branch_target(instruction)
    return lambda _m, _w: target


def _end(instruction: Instruction) -> Terminator:
    def terminate(m: Waves, w: Lanes) -> int | None:
        m.pc[w] = instruction.address
        m.done[w] = True
        return None

    return terminate


def _barrier(instruction: Instruction) -> Terminator:
    """Arrivals are counted, whatever the program counter: the scheduler releases a workgroup when all have arrived."""

    def terminate(m: Waves, w: Lanes) -> int | None:
        m.pc[w] = instruction.next_address
        m.waiting[w] = True
        return None

    return terminate


def _halt(instruction: Instruction) -> Terminator:
    def terminate(m: Waves, w: Lanes) -> int | None:
        if instruction.fields["simm16"] & _SETHALT_BIT:
            m.pc[w] = instruction.next_address
            m.halted[w] = True
            return None
        return instruction.next_address

    return terminate


def _jump(instruction: Instruction) -> Terminator:
    """s_setpc_b64, s_swappc_b64: the target is in registers; the latter leaves the return address behind."""
    source = instruction.fields["ssrc0"]
    link = scalar_destination(instruction) if instruction.mnemonic == "s_swappc_b64" else None
    back = np.array(instruction.next_address, np.uint64)

    def terminate(m: Waves, w: Lanes) -> int | None:
        targets = pair(m.scalars[source, w], m.scalars[source + 1, w]).view(np.int64)
        if link is not None:
            link(m, w, back)
        if (targets == targets[0]).all():
            return int(targets[0])
        m.pc[w] = targets
        return None

    return terminate


def _call(instruction: Instruction) -> Terminator:
    target, link = branch_target(instruction), scalar_destination(instruction)
    back = np.array(instruction.next_address, np.uint64)

    def terminate(m: Waves, w: Lanes) -> int | None:
        link(m, w, back)
        return target

    return terminate


def get_program_counter(instruction: Instruction) -> Step:
    """s_getpc_b64: the address of the next instruction."""
    write, value = scalar_destination(instruction), np.array(instruction.next_address, np.uint64)
    return lambda m, w: write(m, w, value)


_TERMINATORS: dict[str, Callable[[Instruction], Terminator]] = {
    "s_branch": _branch,
    "s_call_b64": _call,
    "s_setpc_b64": _jump,
    "s_swappc_b64": _jump,
    "s_endpgm": _end,
    "s_barrier": _barrier,
    "s_sethalt": _halt,
    **MODE_TERMINATORS,
}
