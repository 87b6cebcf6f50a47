"""A finding as its reader needs it: in the words of the source, with the code around it and the fix that was tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hktune.device.emulated import EmulatedKernel
from hktune.emulator.hazards.finding import Finding, Remedy, Side
from hktune.emulator.instructions.assembly import assembly
from hktune.objects.source_lines import SourcePlace, source_places
from hktune.verify.finding_rules import ERROR, RULES, WARNING, Rule, rank

_LINES_BEFORE, _LINES_AFTER = 6, 3
_NEAR_BYTES = 1 << 16


@dataclass(frozen=True)
class Witness:
    """One side of a finding: `text` is the instruction, `offset` where it is in the kernel `symbol`."""

    text: str
    symbol: str
    offset: int
    source: SourcePlace | None
    side: Side

    @property
    def code_place(self) -> str:
        return f"{self.symbol}+{self.offset:#x}"

    @property
    def place(self) -> str:
        """The user's own line, or else the place in the code."""
        return str(self.source.own) if self.source else self.code_place

    def __str__(self) -> str:
        side = self.side
        lane = "" if side.lane is None else f", lane {side.lane}"
        time = f", execution {side.iteration}" if side.iteration else ""
        line = f"{self.source.own}, " if self.source else ""
        return f"{self.text} [{line}{self.code_place}], {side}{lane}{time}"


@dataclass(frozen=True)
class Diagnosis:
    """One finding. `memory` is the place touched, as object and offset; `listing` the code around it; `fix` what was
    tried against it, and with what outcome."""

    rule: Rule
    level: str
    what: str
    here: Witness | None = None
    other: Witness | None = None
    memory: str = ""
    counters: str = ""
    listing: tuple[str, ...] = ()
    fix: str = ""
    waived: bool = False
    finding: Finding | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """All names of its place."""
        if self.here is None:
            return ()
        frames = self.here.source.frames if self.here.source else ()
        return (*map(str, frames), self.here.code_place, f"+{self.here.offset:#x}")

    @property
    def counts(self) -> bool:
        """Whether it is a fault that nobody waives."""
        return not self.waived and self.level in (ERROR, WARNING)


def of_outputs(name: str, what: str) -> Diagnosis:
    """A finding about what a kernel has left."""
    return Diagnosis(RULES[name], RULES[name].level, what)


def diagnoses(
    found: Iterable[Finding], kernel: EmulatedKernel, name: str, regions: Mapping[str, tuple[int, int]]
) -> list[Diagnosis]:
    """What was found in `kernel`, called `name`, whose buffers are `regions`: address and bytes of each."""
    findings = list(found)
    base = kernel.code.region.base
    sides = [side for each in findings for side in (each.here, each.other) if side is not None]
    repaired = [one.address for each in findings for remedy in each.remedies for one in remedy.insertions]
    wanted = {side.instruction.address - base for side in sides} | {address - base for address in repaired}
    sources = source_places(kernel.data, sorted(wanted))

    def witness(side: Side | None) -> Witness | None:
        if side is None:
            return None
        address = side.instruction.address
        offset, source = address - kernel.program.entry, sources.get(address - base)
        return Witness(assembly(side.instruction), name, offset, source, side)

    made = []
    for each in findings:
        rule = RULES[each.rule]
        level = rule.level if each.note else ERROR
        made.append(
            Diagnosis(
                rule,
                level,
                _in_words(each, regions),
                witness(each.here),
                witness(each.other),
                _memory(each, regions),
                each.counters,
                _listing(kernel, each.here.instruction.address),
                finding=replace(each, remedies=tuple(_with_line(one, base, sources) for one in each.remedies)),
            )
        )
    return made


def worst_first(found: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """By level and group, then by place."""
    return tuple(sorted(found, key=lambda each: (*rank(each.rule, each.level), each.here.offset if each.here else 0)))


def _in_words(finding: Finding, regions: Mapping[str, tuple[int, int]]) -> str:
    """What was found, with instructions as an assembler writes them, and addresses as object and offset."""
    text = finding.what
    for side in (finding.here, finding.other):
        if side is not None:
            text = text.replace(str(side.instruction), f"`{assembly(side.instruction)}`")
    held = None if finding.in_lds or finding.address is None else _held(finding.address, regions)
    return text.replace(f"{finding.address:#x}", held[0]) if held else text


def _with_line(remedy: Remedy, base: int, sources: Mapping[int, SourcePlace]) -> Remedy:
    places = {str(sources[one.address - base].own) for one in remedy.insertions if one.address - base in sources}
    return replace(remedy, text=f"{remedy.text} at {', '.join(sorted(places))}") if places else remedy


def _listing(kernel: EmulatedKernel, address: int) -> tuple[str, ...]:
    lines = []
    for each in kernel.program.around(address, _LINES_BEFORE, _LINES_AFTER):
        mark = ">" if each.address == address else " "
        lines.append(f"{mark} +{each.address - kernel.program.entry:#x}  {assembly(each, kernel.program.entry)}")
    return tuple(lines)


def _held(address: int, regions: Mapping[str, tuple[int, int]]) -> tuple[str, int] | None:
    """The object that holds an address, with the offset in it; and its bytes."""
    for name, (base, size) in regions.items():
        if base <= address < base + size:
            return f"{name}+{address - base:#x}", size
    return None


def _memory(finding: Finding, regions: Mapping[str, tuple[int, int]]) -> str:
    """An address as object and offset."""
    address = finding.address
    if address is None:
        return ""
    if finding.in_lds:
        return f"LDS+{address:#x}"
    held = _held(address, regions)
    if held:
        return f"{held[0]} of {held[1]:#x} bytes"
    before = [(address - base - size, name) for name, (base, size) in regions.items() if address >= base + size]
    behind = [(base - address, name) for name, (base, _) in regions.items() if address < base]
    for near, word in ((before, "behind the end of"), (behind, "in front of")):
        if near and min(near)[0] < _NEAR_BYTES:
            distance, name = min(near)
            return f"{distance} bytes {word} {name}"
    return f"{address:#x}, near no buffer"
