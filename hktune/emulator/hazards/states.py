"""What a block of code does to a track, worked out once: loops, later workgroups and later launches meet it again.

A track between two blocks is a state. Two of them are the same where everything that matters later is: registers
written, operations under way, what each of them still holds back, and how many states ago something wants to be left
alone. So from a state a block always leads to the same state, with the same events on the way.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from hktune.emulator.hazards.footprint import FLAT, WAIT, Footprint, Set, footprints_of
from hktune.emulator.hazards.order import ON_LDS, ON_VECTOR
from hktune.emulator.hazards.track import Objection, Track
from hktune.emulator.instructions.program import Block

_STATES_MAX = 1 << 13


@dataclass(frozen=True, slots=True)
class Event:
    """What happens at one instruction: what is wrong with it, and the state of the counters then, in words; and what is
    complete behind a wait, as (queue, how many of its youngest operations are not)."""

    objections: tuple[Objection, ...]
    outstanding: str
    completed: tuple[tuple[int, int], ...]


@dataclass(eq=False)
class State:
    """A track that never changes, and where blocks lead from it."""

    track: Track
    passages: WeakKeyDictionary[Block, Passage] = field(default_factory=WeakKeyDictionary)

    @property
    def settled(self) -> bool:
        return self.track.settled

    def like(self, other: State) -> bool:
        """Whether both, which are settled, are the same from now on."""
        return self is other or self.track.written == other.track.written


@dataclass(frozen=True, eq=False, slots=True)
class Passage:
    """Through one block: what happens at each instruction, None for nothing, and the state behind it."""

    events: tuple[Event | None, ...]
    after: State


class States:
    """All that are known of one kernel. `written`: the registers that hold something when a wave starts."""

    def __init__(self, written: Set) -> None:
        self._known: dict[Hashable, State] = {}
        self._written: dict[Set, Set] = {}
        self.first = self._state_of(Track(set(written)))

    def passage(self, state: State, block: Block) -> Passage:
        """What `block` does from `state`."""
        found = state.passages.get(block)
        if found is None:
            track = state.track.copy()
            events = tuple(_event(track, footprint) for footprint in footprints_of(block))
            found = state.passages[block] = Passage(events, self._state_of(track))
        return found

    def _state_of(self, track: Track) -> State:
        written = frozenset(track.written)
        track.written = self._written.setdefault(written, written)
        key = track.form()
        state = self._known.get(key)
        if state is None:
            if len(self._known) >= _STATES_MAX:
                self._known.clear()
            state = self._known[key] = State(track)
        return state


_of_kernels: WeakKeyDictionary[Block, dict[Set, States]] = WeakKeyDictionary()


def states_of(entry: Block, written: Set) -> States:
    """Those of the kernel that begins with a block. Every launch of it shares them."""
    known = _of_kernels.setdefault(entry, {})
    return known.get(written) or known.setdefault(written, States(written))


def _event(track: Track, footprint: Footprint) -> Event | None:
    """Issue one instruction."""
    track.issue(footprint)
    objections, outstanding = tuple(track.objections), track.outstanding() if track.objections else ""
    track.objections.clear()
    completed: list[tuple[int, int]] = []
    if footprint.kind == WAIT:
        for queue, count, left in (
            (ON_VECTOR, footprint.vmcnt, track.vector),
            (ON_LDS, footprint.lgkmcnt, track.lds),
        ):
            if count is not None and not any(each.footprint.kind == FLAT for each in left):
                completed.append((queue, len(left)))
    return Event(objections, outstanding, tuple(completed)) if objections or completed else None
