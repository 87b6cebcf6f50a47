"""The rules that a kernel can break, worst first: what each means, how bad it is, what repairs it, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.emulator.hazards import finding as found

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Levels. A note is no fault: AMD's own kernels do it, or it does no harm."""


@dataclass(frozen=True)
class Rule:
    """`group` is what the rule is about, in the order of `GROUPS`."""

    name: str
    group: str
    level: str
    meaning: str
    cure: str
    source: str


_COUNTERS = "CDNA4 ISA guide, 4.4"
_MODEL = "LLVM AMDGPUUsage, GFX942"
_UNALIGNED = "Linux amdkfd; LLVM unaligned-access-mode"
_STATES = "CDNA4 ISA guide, table 38; LLVM GCNHazardRecognizer"

GROUPS = ("race", "missing wait", "out of bounds", "uninitialised", "wait state", "suspicious")
"""Worst first."""

_ALL = (
    Rule(
        found.LDS_RACE,
        "race",
        ERROR,
        "two waves touch one place of LDS, one of them writes, and nothing orders the two",
        "wait for the first, then s_barrier (__syncthreads) before the second",
        _COUNTERS,
    ),
    Rule(
        found.MEMORY_RACE,
        "race",
        ERROR,
        "two waves touch one place of memory, one of them stores, and nothing orders the two",
        "a wait and a barrier; between workgroups a release and an acquire",
        _MODEL,
    ),
    Rule(
        found.MISSING_WAIT,
        "missing wait",
        ERROR,
        "a register is used while a load may still be under way to it",
        "an s_waitcnt that leaves no more under way than were issued after the load",
        _COUNTERS,
    ),
    Rule(
        found.MEMORY_BOUNDS,
        "out of bounds",
        ERROR,
        "a lane accesses memory that no buffer holds, or stores to what is read-only",
        "compare the index with the size, or correct the size in --args",
        "the buffers of --args",
    ),
    Rule(
        found.LDS_BOUNDS,
        "out of bounds",
        ERROR,
        "a lane accesses LDS behind the end of the workgroup's: reads give 0, writes are dropped",
        "more LDS, or another index",
        "CDNA4 ISA guide, 11",
    ),
    Rule(
        found.LDS_ALIGNMENT,
        "out of bounds",
        ERROR,
        "an atomic, a transposed read or a load to LDS is not aligned as it must be",
        "another index or padding, or a narrower access",
        "CDNA4 ISA guide, 11",
    ),
    Rule(
        found.UNSET_REGISTER,
        "uninitialised",
        ERROR,
        "a register is read that nothing has written",
        "write it first",
        "CDNA4 ISA guide, 3.6",
    ),
    Rule(
        found.UNSET_LDS,
        "uninitialised",
        ERROR,
        "a place of LDS is read that nothing has written",
        "write it first",
        "CDNA4 ISA guide, 3.6",
    ),
    Rule(
        found.UNSET_MEMORY,
        "uninitialised",
        ERROR,
        "an output is read, or updated by an atomic, before the kernel has written it",
        "write it first, or say inout in --args if its content counts",
        "`out` in --args",
    ),
    Rule(
        found.WAIT_STATE,
        "wait state",
        ERROR,
        "two dependent instructions follow each other too closely; the hardware does not wait",
        "s_nop between them",
        _STATES,
    ),
    Rule(
        "schedule-dependent",
        "suspicious",
        WARNING,
        "outputs differ when waves run in another order, or when loads arrive late",
        "order what outputs depend on; float sums by atomics differ by rounding",
        "the runs compared",
    ),
    Rule(
        "not-finite",
        "suspicious",
        WARNING,
        "an output is NaN or infinite, and every input is finite",
        "look for overflow, 0/0 or a value that was never set",
        "the outputs",
    ),
    Rule(
        "rounding-order",
        "suspicious",
        NOTE,
        "as schedule-dependent, but floats differ by roundings alone",
        "none is needed: sums by atomics have no order",
        "the runs compared",
    ),
    Rule(
        found.BOOK_WAIT_STATE,
        "wait state",
        NOTE,
        "as wait-state, where AMD's own kernels leave as few states and are right",
        "s_nop between them",
        _STATES,
    ),
    Rule(
        found.COUNTER_FULL,
        "missing wait",
        NOTE,
        "as missing-wait, but more operations follow than the counter holds: issue has waited",
        "an s_waitcnt that covers it",
        _COUNTERS,
    ),
    Rule(
        found.FLAT_BY_VMCNT,
        "missing wait",
        NOTE,
        "a flat load is waited for by vmcnt alone; by the book it counts in lgkmcnt too",
        "s_waitcnt vmcnt(0) lgkmcnt(0)",
        _COUNTERS,
    ),
    Rule(
        found.UNALIGNED_LDS,
        "out of bounds",
        NOTE,
        "an LDS address is no multiple of the access's bytes: right as ROCm sets the mode, but slow",
        "another index or padding, or a narrower access",
        _UNALIGNED,
    ),
    Rule(
        found.EQUAL_WRITES,
        "race",
        NOTE,
        "two waves write the same values to one place, and nothing orders the two",
        "none is needed; let one wave write",
        "the values written",
    ),
)

RULES = {rule.name: rule for rule in _ALL}


def rank(rule: Rule, level: str) -> tuple[int, int]:
    """What to sort by: errors first, then the groups, worst first."""
    return (ERROR, WARNING, NOTE).index(level), GROUPS.index(rule.group)
