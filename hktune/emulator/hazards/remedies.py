"""Changes of a program that may make a finding go away: waits, barriers, idle states. Whether they do is tried."""

from __future__ import annotations

from hktune.emulator.hazards.finding import Insertion, Remedy
from hktune.emulator.hazards.footprint import LGKMCNT_MAX, VMCNT_MAX
from hktune.emulator.hazards.order import ON_VECTOR

_S_NOP, _S_BARRIER, _S_WAITCNT = 0xBF800000, 0xBF8A0000, 0xBF8C0000
_NO_EXPORT_WAIT = 7 << 4
_NOP_STATES_MAX = 16
Counts = tuple[int | None, int | None]
"""vmcnt and lgkmcnt of a wait, None where it does not wait."""


def encodable(queue: int, left: int) -> Counts:
    """The wait that leaves at most `left` operations of `queue` under way. A full counter waits for nothing, so it asks
    for one less (LLVM's SIInsertWaitcnts clamps in the same way)."""
    if queue == ON_VECTOR:
        return min(left, VMCNT_MAX - 1), None
    return None, min(left, LGKMCNT_MAX - 1)


def wait_text(counts: Counts) -> str:
    """As the assembler writes it."""
    parts = [f"{name}({count})" for name, count in zip(("vmcnt", "lgkmcnt"), counts, strict=True) if count is not None]
    return f"s_waitcnt {' '.join(parts)}"


def wait_word(counts: Counts) -> int:
    """The s_waitcnt (CDNA4 ISA guide, section 4.4): four bits of vmcnt, three of expcnt, four of lgkmcnt, two of
    vmcnt."""
    vmcnt = VMCNT_MAX if counts[0] is None else counts[0]
    lgkmcnt = LGKMCNT_MAX if counts[1] is None else counts[1]
    return _S_WAITCNT | vmcnt & 15 | _NO_EXPORT_WAIT | lgkmcnt << 8 | vmcnt >> 4 << 14


def wait_before(address: int, counts: Counts, where: str) -> Remedy:
    """A wait in front of the instruction at `address`, which `where` names."""
    return Remedy(f"{wait_text(counts)} before {where}", (Insertion(address, (wait_word(counts),)),))


def barrier_before(address: int, where: str, counts: Counts | None = None) -> Remedy:
    """A barrier in front of the instruction at `address`, behind a wait if it takes one."""
    wait = () if counts is None else (wait_word(counts),)
    text = "s_barrier" if counts is None else f"{wait_text(counts)} and s_barrier"
    return Remedy(f"{text} before {where}", (Insertion(address, (*wait, _S_BARRIER)),))


def idle_text(states: int) -> str:
    """The instructions that leave so many idle states: an s_nop leaves 16 at most."""
    return " and ".join(f"s_nop {count - 1}" for count in _idle_counts(states))


def idle_before(address: int, states: int, where: str) -> Remedy:
    """Idle states in front of the instruction at `address`."""
    words = tuple(_S_NOP | count - 1 for count in _idle_counts(states))
    return Remedy(f"{idle_text(states)} before {where}", (Insertion(address, words),))


def _idle_counts(states: int) -> list[int]:
    return [min(_NOP_STATES_MAX, states - done) for done in range(0, states, _NOP_STATES_MAX)]
