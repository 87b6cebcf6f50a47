"""Findings as lines of text, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hktune.core.outcome import Failure
from hktune.verify.diagnosis import Diagnosis
from hktune.verify.finding_rules import ERROR, NOTE, WARNING

_NOTES_OF_A_RULE_MAX = 3


def verdict_lines(
    kernel: str, failures: Sequence[Failure], found: Sequence[Diagnosis], values: str, fix: str = ""
) -> Iterator[str]:
    """What was found in `kernel`; `values` says what its outputs were compared with, `fix` what leaves no finding."""
    counted = counts_text(found)
    for failure in failures:
        yield f"{failure.status}: {failure.detail}"
    if failures or any(each.counts for each in found):
        yield from [f"{kernel}: {counted}"] if counted else []
    else:
        yield f"{kernel}: no hazard found{f' ({counted})' if counted else ''}; {values}"
    if fix:
        yield f"fix of all: {fix}"
    yield from finding_lines(found)


def finding_lines(found: Sequence[Diagnosis]) -> Iterator[str]:
    """Faults with all that is known of them, and then notes, a line each and a few of each rule."""
    faults = [each for each in found if each.counts]
    for each in faults:
        yield from _fault(each)
    notes = [each for each in found if each.level == NOTE and not each.waived]
    shown: Counter[str] = Counter()
    for each in notes:
        shown[each.rule.name] += 1
        if shown[each.rule.name] <= _NOTES_OF_A_RULE_MAX:
            yield f"note: {_headline(each)}"
    for name, count in shown.items():
        if count > _NOTES_OF_A_RULE_MAX:
            yield f"note: {name} at {count - _NOTES_OF_A_RULE_MAX} more places; --json has all"


def counts_text(found: Sequence[Diagnosis]) -> str:
    """Such as "2 errors, 1 warning, 3 waived"; empty where there is none of these."""
    levels = Counter("waived" if each.waived else each.level for each in found)
    words = [_counted(levels[level], level) for level in (ERROR, WARNING) if levels[level]]
    return ", ".join(words + ([f"{levels['waived']} waived"] if levels["waived"] else []))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _headline(each: Diagnosis) -> str:
    place = f" at {each.here.place}" if each.here else ""
    return f"{each.rule.name}{place}: {each.what}"


def _fault(each: Diagnosis) -> Iterator[str]:
    yield f"{each.level}: {_headline(each)}"
    for name, witness in (("here", each.here), ("other", each.other)):
        if witness is not None:
            yield f"  {name}: {witness}"
    if each.memory:
        yield f"  at: {each.memory}"
    if each.counters:
        yield f"  counters: {each.counters}"
    source = each.here.source if each.here else None
    if source is not None and len(source.frames) > 1:
        yield f"  calls: {' < '.join(f'{frame.function} ({frame})' for frame in source.frames)}"
    if each.listing:
        yield "  code:"
        for line in each.listing:
            yield f"    {line}"
    if each.fix:
        yield f"  fix: {each.fix}"
