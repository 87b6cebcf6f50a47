"""Why a mutant that the checker passes is equivalent: judged from the trace of the right kernel, by other means.

The judgement uses no part of the checker. It replays the counters over each wave's executed instructions, once as the
kernel is and once as mutated, and compares from when on each operation is known to be complete. Loads to LDS, which
name no register, are judged by K-tiles, as the template's tests do (tests/unit/pipeline_order.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mutants import Mutant
from pipeline_order import Pipeline, disorders

from hktune.emulator.clock.trace import Step, Trace

_NEVER = 1 << 60


@dataclass
class _Operation:
    """A memory operation of one wave: its queue, where it was issued, from where on it is known complete, and what it
    writes. `shared`: other waves may meet it (LDS, memory), so the next barrier hands it on."""

    queue: str
    issued: int
    registers: frozenset[int]
    done: int = _NEVER


Scalars = Callable[[int], tuple[frozenset[int], frozenset[int]]]
"""The scalar registers that the instruction at an address reads, and those it writes: a trace does not name them."""


def reason(mutant: Mutant, trace: Trace, pipeline: Pipeline, scalars: Scalars) -> str | None:
    """The class of reasons why `mutant` never changes a result; None when none was found."""
    address = trace.program[mutant.index].address
    if not any((wave.steps == mutant.index).any() for wave in trace.waves):
        return None
    if mutant.kind == "s_barrier removed":
        return _barrier_reason(trace, address) or _tiles_in_order(mutant, trace, pipeline)
    if "cnt" not in mutant.kind:
        return None
    found: set[str] = set()
    for wave in trace.waves:
        steps = [trace.program[index] for index in wave.steps]
        before = _replay(steps, -1, ())
        after = _replay(steps, address, mutant.counts)
        for one, other in zip(before, after, strict=True):
            if other.done > one.done:
                why = _covered(steps, one, other, scalars)
                if why is None and _is_of_a_tile(steps[one.issued]):
                    why = _tiles_in_order(mutant, trace, pipeline)
                if why is None:
                    return None
                found.add(why)
    if not found:
        return "nothing left to wait for: the operations are complete before, or fewer are outstanding than it allows"
    return "; ".join(sorted(found))


def _is_of_a_tile(step: Step) -> bool:
    return step.to_lds or step.mnemonic.startswith("ds_read")


def _tiles_in_order(mutant: Mutant, trace: Trace, pipeline: Pipeline) -> str | None:
    """Whether every part of a K-tile still lands for all waves before any reads it, is read before it is overwritten,
    and is in its registers before they are used: by the barriers and waits that are left."""
    step = trace.program[mutant.index]
    if mutant.kind == "s_barrier removed":
        changed = replace(step, mnemonic="s_nop")
    else:
        counts = dict(mutant.counts)
        changed = replace(step, vmcnt=counts.get("vmcnt"), lgkmcnt=counts.get("lgkmcnt"))
    program = (*trace.program[: mutant.index], changed, *trace.program[mutant.index + 1 :])
    if disorders(Trace(program, trace.waves), pipeline):
        return None
    return "other waits and barriers order every part of every K-tile: landed before read, read before overwritten"


def _replay(steps: list[Step], address: int, counts: tuple[tuple[str, int], ...]) -> list[_Operation]:
    """Every vector memory, LDS and scalar operation, with the position of the wait that covers it."""
    queues: dict[str, list[_Operation]] = {"vmcnt": [], "lgkmcnt": [], "scalar": []}
    operations: list[_Operation] = []
    for position, step in enumerate(steps):
        if step.mnemonic == "s_waitcnt":
            limits = {"vmcnt": step.vmcnt, "lgkmcnt": step.lgkmcnt}
            if step.address == address:
                limits = {"vmcnt": None, "lgkmcnt": None, **dict(counts)}
            limits["scalar"] = 0 if limits["lgkmcnt"] == 0 else None
            for name, limit in limits.items():
                queue = queues[name]
                while limit is not None and len(queue) > limit:
                    queue.pop(0).done = position
            continue
        name = _queue(step)
        if name:
            operation = _Operation(name, position, frozenset() if step.to_lds else frozenset(step.writes))
            queues[name].append(operation)
            operations.append(operation)
    return operations


def _queue(step: Step) -> str | None:
    if step.mnemonic.startswith("ds_"):
        return "lgkmcnt"
    if step.mnemonic.startswith("s_load"):
        return "scalar"
    if step.mnemonic.startswith(("buffer_", "global_")) and step.bytes_per_lane:
        return "vmcnt"
    return None


def _covered(steps: list[Step], original: _Operation, mutated: _Operation, scalars: Scalars) -> str | None:
    """Why it does not matter that an operation is covered later."""
    first = steps[original.issued]
    end = min(mutated.done, len(steps))
    between = steps[original.done : end]
    if first.mnemonic.startswith("s_load"):
        _, loaded = scalars(first.address)
        touched = any(loaded & registers for step in between for registers in scalars(step.address))
        return None if touched else "another wait comes before the first use of what a scalar load brings"
    if any(original.registers.intersection((*step.reads, *step.writes)) for step in between):
        return None
    if "store" in first.mnemonic:
        return "only stores that nothing reads back are covered later"
    if any(step.mnemonic == "s_barrier" for step in between) and _handed_on(first, steps, end):
        return None
    if first.to_lds and any(step.mnemonic.startswith("ds_") for step in between):
        return None
    if not first.to_lds and any(step.to_lds for step in between) and _handed_on(first, steps, end):
        return None
    return "another wait comes before the first use and before the next barrier that tells of it"


def _handed_on(first: Step, steps: list[Step], position: int) -> bool:
    """Whether anything can still overwrite or read what `first` touches in LDS: later accesses of the other kind."""
    if first.to_lds:
        return any(step.mnemonic.startswith("ds_") for step in steps[position:]) or position == len(steps)
    return True


def _barrier_reason(trace: Trace, address: int) -> str | None:
    if len(trace.waves) == 1:
        return "one wave: a barrier waits for nobody"
    for wave in trace.waves:
        steps = [trace.program[index] for index in wave.steps]
        barriers = [-1, *(i for i, step in enumerate(steps) if step.mnemonic == "s_barrier"), len(steps)]
        for before, here, after in zip(barriers, barriers[1:], barriers[2:], strict=False):
            if steps[here].address != address:
                continue
            idle = [_idle(steps[start + 1 : stop]) for start, stop in ((before, here), (here, after))]
            if not (idle[0] and before >= 0) and not (idle[1] and after < len(steps)):
                return None
    return "the barrier beside it orders the same: nothing touches LDS between the two"


def _idle(steps: list[Step]) -> bool:
    return not any(step.mnemonic.startswith("ds_") or step.to_lds or step.mnemonic == "s_waitcnt" for step in steps)
