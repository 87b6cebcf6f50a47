"""Changes of a program that make what was found go away, each of them tried: one for a finding, and one for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hktune.core.attended import attended_s
from hktune.emulator.hazards.finding import Change, Finding, Insertion, Key, Remedy
from hktune.verify.diagnosis import Diagnosis
from hktune.verify.finding_rules import ERROR

NO_FIX = "no single fix found"
_ROUNDS_MAX = 8  # of what is added where a change of several places leaves something
_NOT_TRIED = "not tried: the time for trials is over"

FoundWith = Callable[[Sequence[Change]], Iterable[Sequence[Finding] | None]]
"""What is found with each of the changes, notes left out; None where the kernel does not end then. Fewer where the time
for trials is over."""


@dataclass(frozen=True)
class Fixed:
    """Findings, each with what was tried against it; and the change that leaves none, in words, where several changes
    are needed."""

    found: list[Diagnosis]
    all_at_once: str = ""


class Fixes:
    """Of one kernel. Trials end at `until`, in attended seconds."""

    def __init__(self, found_with: FoundWith, until: float) -> None:
        self._found_with, self._until = found_with, until
        self._outcomes: dict[Change, Sequence[Finding] | None] = {}
        self._working: list[Remedy] = []
        self._waived: set[Key] = set()
        self._enough = False

    def of(self, found: Iterable[Diagnosis]) -> Fixed:
        """The findings, the errors among them with the first of their remedies that works."""
        findings = list(found)
        before = {each.finding.key for each in findings if each.finding is not None}
        self._waived = {each.finding.key for each in findings if each.finding is not None and each.waived}
        self._try_ahead([each.finding for each in findings if each.finding is not None and _is_fault(each)], before)
        fixed = [self._with_fix(each, before) for each in findings]
        faults = [each.finding for each in findings if each.finding is not None and _is_fault(each)]
        if len(faults) < 2 or self._enough or len(faults) < sum(map(_is_fault, findings)):
            return Fixed(fixed)
        return Fixed(fixed, self._all_at_once(faults))

    def _with_fix(self, diagnosis: Diagnosis, before: set[Key]) -> Diagnosis:
        finding = diagnosis.finding
        if finding is None or not _is_fault(diagnosis):
            return diagnosis
        for remedy in finding.remedies:
            if remedy.insertions not in self._outcomes:
                return replace(diagnosis, fix=f"{remedy.text} ({_NOT_TRIED})")
            keys = self._keys_left(remedy, finding, before)
            if keys is not None:
                self._working.append(remedy)
                self._enough = self._enough or not keys
                rest = f"others remain: {len(keys)}" if keys else "nothing is found then"
                return replace(diagnosis, fix=f"{remedy.text} (tried: it is gone, {rest})")
        return replace(diagnosis, fix=f"{NO_FIX}; {diagnosis.rule.cure}")

    def _try_ahead(self, faults: Sequence[Finding], before: set[Key]) -> None:
        """Try the first remedy of each fault, then the second one of those that have no fix yet, and so on: as many at
        once as there are."""
        number = 0
        while faults := [each for each in faults if len(each.remedies) > number]:
            changes = list(dict.fromkeys(each.remedies[number].insertions for each in faults))
            if not self._try(changes):
                return
            faults = [each for each in faults if self._keys_left(each.remedies[number], each, before) is None]
            number += 1

    def _keys_left(self, remedy: Remedy, finding: Finding, before: set[Key]) -> set[Key] | None:
        """What is left with a remedy that was tried; None where it does not help."""
        left = self._outcomes[remedy.insertions]
        keys = None if left is None else {each.key for each in left}
        return keys if keys is not None and finding.key not in keys and keys <= before else None

    def _left(self, insertions: Change) -> Sequence[Finding] | None:
        """What is left with `insertions`, and not waived."""
        return self._outcomes[insertions] if self._try([insertions]) else None

    def _try(self, changes: Sequence[Change]) -> bool:
        """Learn what is left with each change, and not waived. Findings of one cause share their remedies, so some are
        known. False where the time is over before all are."""
        new = [each for each in changes if each not in self._outcomes]
        for change, found in zip(new, self._found_with(new), strict=False):
            kept = None if found is None else [each for each in found if each.key not in self._waived]
            self._outcomes[change] = kept
        return all(each in self._outcomes for each in changes)

    def _all_at_once(self, faults: Sequence[Finding]) -> str:
        """The smallest change of several places, in words, with which nothing is found; empty if there is none."""
        chosen = list(dict.fromkeys(self._working or _next_remedies(faults, ())))
        for _ in range(_ROUNDS_MAX):
            if attended_s() > self._until:
                return ""
            left = self._left(joined(chosen))
            if left is None:
                return ""
            if not left:
                return _said(self._without_spare(chosen))
            more = list(_next_remedies(left, chosen))
            if not more:
                return ""
            chosen += more
        return ""

    def _without_spare(self, chosen: Sequence[Remedy]) -> list[Remedy]:
        """Of remedies with which nothing is found, those that are needed for it."""
        kept = list(chosen)
        for each in chosen:
            rest = [other for other in kept if other is not each]
            if attended_s() > self._until:
                break
            if rest and self._left(joined(rest)) == []:
                kept = rest
        return kept


def joined(remedies: Iterable[Remedy]) -> Change:
    """All of them as one change: at each address every instruction once, in the order of the remedies."""
    words: dict[int, dict[int, None]] = {}
    for remedy in remedies:
        for one in remedy.insertions:
            words.setdefault(one.address, {}).update(dict.fromkeys(one.words))
    return tuple(Insertion(address, tuple(each)) for address, each in sorted(words.items()))


def _next_remedies(found: Iterable[Finding], chosen: Sequence[Remedy]) -> Iterator[Remedy]:
    """The first remedy of each finding that is not among those chosen."""
    seen = set(chosen)
    for each in found:
        remedy = next((one for one in each.remedies if one not in seen), None)
        if remedy is not None:
            seen.add(remedy)
            yield remedy


def _said(remedies: Sequence[Remedy]) -> str:
    texts = Counter(each.text for each in remedies)
    parts = [text if count == 1 else f"{text} ({count} places)" for text, count in texts.items()]
    return f"{'; '.join(parts)} (tried together: nothing is found then)"


def _is_fault(diagnosis: Diagnosis) -> bool:
    return diagnosis.level == ERROR and not diagnosis.waived
