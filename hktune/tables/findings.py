"""What is wrong with a table, said before a production process finds out: no GPU is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hktune.core.errors import TableError
from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.dispatch.calls import CALL_OPERATIONS, CALLS_SAID
from hktune.dispatch.choice import Choices
from hktune.dispatch.files import ANY, Trust, read_table
from hktune.dispatch.judge import Reason
from hktune.dispatch.table import Entry, Table
from hktune.dispatch.validate import Skipped, Validated, validate

_NEXT = {
    Reason.OTHER_ARCHITECTURE: "pass a table tuned for this architecture",
    Reason.OTHER_DEVICE: "tune on this device",
    Reason.SIBLING_DEVICE: "used all the same; tune on this device to be sure",
    Reason.OTHER_TEMPLATE: "tune again with the template as it is now",
    Reason.OBJECT_MISSING: "copy objects/ along with table.json",
    Reason.OBJECT_CHANGED: "copy it again, or `hktune table build`",
    Reason.OBJECT_UNREADABLE: "`hktune table build` it again",
    Reason.SYMBOL_MISSING: "`hktune table build` it again",
    Reason.ARGUMENTS: "`hktune table build` it again",
    Reason.OTHER_LIBRARY: "`hktune tune --vendor-only` with the library that is here",
    Reason.RESOURCES: "a driver would refuse it: tune that shape again",
}


@dataclass(frozen=True)
class Finding:
    """One line: the rule, the value, the next step. `wrong` is False for what is merely worth knowing."""

    rule: str
    value: str
    next_step: str
    wrong: bool = True

    def __str__(self) -> str:
        return f"{'wrong' if self.wrong else 'note'}: {self.rule}: {self.value}: {self.next_step}"


@dataclass(frozen=True)
class Call:
    """A problem that a model calls, what it is called there, and how often in one step."""

    problem: Problem
    name: str
    weight: float


def examine_table(
    directory: Path,
    calls: Sequence[Call],
    identity: Identity | None,
    templates: Mapping[str, str],
    trust: Trust = ANY,
    allow_modelled: bool = False,
    allow_sibling_board: bool = False,
    libraries: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Everything that is wrong with the table in `directory` for these calls on the device `identity` (None: the one it
    was made on). `templates` maps the names of templates known here to their sha256, and
    `libraries` those of the vendor's libraries that are here to their versions, where anybody looked. With
    `allow_modelled` and `allow_sibling_board`, as `hktune.load` takes them, modelled times and rows of another board of
    the architecture are no fault. Raises nothing for a bad table."""
    try:
        table = read_table(directory, trust)
        here = identity or table.identity
        validated = validate(table, directory, here, True, templates, allow_sibling_board, libraries)
    except TableError as error:
        return [Finding("table", str(error), "nothing of it can be used")]
    findings = [*_rows(validated.skipped, True), *_rows(validated.reported, False), *_unreachable(table)]
    findings += _modelled(table, calls, allow_modelled)
    findings += _coverage(validated, calls)
    if allow_sibling_board:
        findings += _sibling_hits(validated, calls)
    if not table.entries:
        findings.append(Finding("entries", "the table has none", "tune some shapes into it"))
    return sorted(findings, key=lambda finding: not finding.wrong)


def _rows(skipped: Sequence[Skipped], wrong: bool) -> list[Finding]:
    """One finding for all the rows that one thing is wrong with."""
    by_cause: dict[tuple[Reason, str], list[Entry]] = {}
    for each in skipped:
        by_cause.setdefault((each.reason, each.detail), []).append(each.entry)
    return [
        Finding(f"{reason} ({_first(entries)})", detail, _NEXT[reason], wrong)
        for (reason, detail), entries in by_cause.items()
    ]


def _first(entries: Sequence[Entry]) -> str:
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    return f"{entries[0].problem}{more}"


def _unreachable(table: Table) -> list[Finding]:
    """The rows of operations that no call asks for."""
    rows = [entry for entry in table.entries if entry.problem.operation.of_any_count not in CALL_OPERATIONS]
    return [
        Finding("unreachable row", f"{entry.problem}, but calls ask for {CALLS_SAID}", "leave it out of the trials")
        for entry in rows
    ]


def _modelled(table: Table, calls: Sequence[Call], allowed: bool) -> list[Finding]:
    rows = [entry for entry in table.entries if entry.source is Source.MODELLED]
    if not rows:
        return []
    choices = Choices(Validated(table.entries, {}, ()))
    found = [(call, choices.find(*call.problem.key)) for call in calls]
    share = _share([call for call, choice in found if choice and choice.entry.source is Source.MODELLED], calls)
    value = f"{len(rows)} of {len(table.entries)} rows ({_first(rows)}){share}"
    next_step = "measure them on the device, or load with allow_modelled=True"
    return [Finding("modelled rows", value, next_step, wrong=not allowed)]


def _coverage(validated: Validated, calls: Sequence[Call]) -> list[Finding]:
    choices = Choices(validated)
    found = [(call, choices.find(*call.problem.key)) for call in calls]
    uncovered = [call for call, choice in found if choice is None]
    near = [call for call, choice in found if choice and choice.near]
    findings = [_uncovered(call, _share([call], calls)) for call in uncovered]
    if len(uncovered) > 1:
        value = f"{len(uncovered)} of {len(calls)} shapes{_share(uncovered, calls)}"
        findings.append(Finding("uncovered in all", value, "tune them"))
    findings += [
        Finding("near shape", f"{_label(call)} is served by a neighbour", "tune it to be sure", False) for call in near
    ]
    used = {id(choice.entry) for _, choice in found if choice}
    idle = [entry for entry in validated.usable if calls and id(entry) not in used]
    if idle:
        value = f"{len(idle)} rows ({_first(idle)}) serve none of these shapes"
        findings.append(Finding("unused rows", value, "keep them, or build without", False))
    return findings


def _sibling_hits(validated: Validated, calls: Sequence[Call]) -> list[Finding]:
    """How many of the calls rows of a sibling board serve."""
    choices = Choices(validated)
    found = [(call, choices.find(*call.problem.key)) for call in calls]
    served = [call for call, choice in found if choice and choice.sibling]
    if not served:
        return []
    value = f"rows of a sibling board serve {len(served)} of {len(calls)} shapes{_share(served, calls)}"
    return [Finding("sibling hits", value, "tune them on this board to be sure", False)]


def _uncovered(call: Call, share: str) -> Finding:
    """To tune a shape helps only where a call can ask for it."""
    if call.problem.operation.of_any_count in CALL_OPERATIONS:
        return Finding("uncovered shape", f"{_label(call)}{share}", "tune it")
    value = f"{_label(call)}{share}, but calls ask for {CALLS_SAID}"
    return Finding("uncovered shape", value, "leave it out of the shapes")


def _label(call: Call) -> str:
    """The problem of `call`, and its name where that says more."""
    return str(call.problem) if call.name == str(call.problem) else f"{call.problem} ({call.name})"


def _share(some: Sequence[Call], calls: Sequence[Call]) -> str:
    total = sum(call.weight for call in calls)
    return f", {sum(call.weight for call in some) / total:.1%} of calls" if total else ""
