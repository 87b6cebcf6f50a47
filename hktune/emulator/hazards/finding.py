"""What the checker finds: one rule broken at one instruction, with both sides of it and what may make it go away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hktune.core.errors import KernelFault
from hktune.emulator.hazards.content import Content
from hktune.emulator.hazards.journal import Journal
from hktune.emulator.instructions.decode import Instruction

Locate = Callable[[int], str]
"""Where in the kernel an instruction's address is, in words."""
PLACES_MAX = 1000
"""Places that are remembered of one launch: a kernel that is wrong in more is wrong everywhere."""

LDS_RACE, MEMORY_RACE, MISSING_WAIT = "lds-race", "memory-race", "missing-wait"
LDS_BOUNDS, LDS_ALIGNMENT, MEMORY_BOUNDS = "lds-bounds", "lds-alignment", "memory-bounds"
UNSET_REGISTER, UNSET_LDS, UNSET_MEMORY = "uninitialised-register", "uninitialised-lds", "uninitialised-memory"
WAIT_STATE = "wait-state"
BOOK_WAIT_STATE, COUNTER_FULL, FLAT_BY_VMCNT, EQUAL_WRITES, UNALIGNED_LDS = (
    "wait-state-by-the-book",
    "counter-full",
    "flat-by-vmcnt",
    "equal-writes",
    "unaligned-lds",
)


@dataclass(frozen=True)
class Side:
    """One of the two accesses: by which wave of which workgroup, in which lane where one is known, and the how-manyth
    time (`iteration`, from 1) that the wave executed the instruction; 0 where that is not known."""

    instruction: Instruction
    workgroup: tuple[int, int, int]
    wave: int
    lane: int | None = None
    iteration: int = 0

    def __str__(self) -> str:
        return f"wave {self.wave} of workgroup {self.workgroup}"


@dataclass(frozen=True)
class Insertion:
    """Instructions that are executed before the one at `address`: their words."""

    address: int
    words: tuple[int, ...]


Change = tuple[Insertion, ...]
"""Of a program, in one or several places."""


@dataclass(frozen=True)
class Remedy:
    """A change that may make a finding go away."""

    text: str
    insertions: Change


Key = tuple[str, int, int]
"""A place: the rule, and the addresses of the instructions of both sides."""


@dataclass(frozen=True)
class Finding:
    """A rule broken: `what` says how. `note`: the book forbids it, and AMD's own kernels do it. `address` is a byte of
    LDS (`in_lds`) or of global memory. `counters` are those of the wave, in words. `left` is how many younger
    operations of the queue the needed wait may leave outstanding."""

    rule: str
    here: Side
    what: str
    note: bool = False
    other: Side | None = None
    address: int | None = None
    in_lds: bool = False
    counters: str = ""
    remedies: tuple[Remedy, ...] = ()
    left: int = 0

    @property
    def key(self) -> Key:
        return self.rule, self.here.instruction.address, self.other.instruction.address if self.other else 0

    def line(self, locate: Locate) -> str:
        """In one line, with where `locate` says that it is."""
        instruction = self.here.instruction
        return f"{instruction}{locate(instruction.address)}, {self.here}: {self.what}"


@dataclass
class Watch:
    """How a launch is looked at. `strict`: what is wrong by the book only is a hazard too, not a note. `gather`: the
    launch goes on after a hazard, and `found` is all of them; otherwise the first one is a KernelFault. `content`: of
    regions whose content means nothing before the launch stores to it."""

    locate: Locate = lambda _address: ""
    strict: bool = False
    gather: bool = False
    content: Content | None = None
    found: dict[Key, Finding] = field(default_factory=dict)
    journal: Journal = field(default_factory=Journal)

    def report(self, finding: Finding) -> None:
        """Remember `finding`, once for each place. Raises KernelFault for a hazard that ends the launch."""
        if not finding.note and not self.gather:
            raise KernelFault("hazard", finding.line(self.locate))
        before = self.found.get(finding.key)
        if before is None:
            if len(self.found) < PLACES_MAX:
                self.found[finding.key] = finding
        elif finding.left < before.left:
            self.found[finding.key] = replace(before, remedies=finding.remedies, left=finding.left)
