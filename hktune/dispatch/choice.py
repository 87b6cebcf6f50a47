"""Which entry of a table serves a call: found by its sizes alone, without I/O, text or a lock."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from hktune.core.launch import Launch
from hktune.core.problem import Key
from hktune.dispatch.table import Entry, Family
from hktune.dispatch.validate import Validated

# Row counts whose near choice is remembered; others are worked out at every call, which costs microseconds.
NEAR_REMEMBERED_MAX: Final = 65536


@dataclass(frozen=True, slots=True)
class Choice:
    """What serves one (m, n, k): an entry and the launch of its kernel for that m, or no launch where the vendor won.
    `near`: the entry was tuned at another m. `sibling`: it was made on a sibling of this device."""

    entry: Entry
    launch: Launch | None
    near: bool
    sibling: bool = False


class Choices:
    """The usable entries of a table, ready to be looked up. May be shared by threads."""

    def __init__(self, validated: Validated) -> None:
        self._known: dict[Key, Choice] = {}
        self._entries: dict[Key, Entry] = {}
        self._families: dict[Family, _Rows] = {}
        families: dict[Family, list[Entry]] = {}
        for entry in validated.usable:
            self._entries[entry.problem.key] = entry
            if entry.rows != (entry.m, entry.m):
                families.setdefault(entry.family, []).append(entry)
        self._of_sibling = validated.of_sibling
        for family, entries in families.items():
            self._families[family] = _Rows(sorted(entries, key=lambda entry: entry.rows), self._of_sibling)
        self._near: dict[Key, Choice | None] = {}

    def find(self, m: int, n: int, k: int, operation: str) -> Choice | None:
        """The entry tuned for these sizes of the operation (its text), else the one whose range of rows holds m; None
        where there is neither."""
        key = (m, n, k, operation)
        known = self._known.get(key)
        return known if known is not None else self._find(key)

    def _find(self, key: Key) -> Choice | None:
        """Of a key that is asked for the first time, or has no entry of its own."""
        entry = self._entries.get(key)
        if entry is not None:
            launch = entry.kernel.launch.rule.at(entry.m, entry.problem.operation) if entry.kernel else None
            exact = self._known[key] = Choice(entry, launch, near=False, sibling=key in self._of_sibling)
            return exact
        rows = self._families.get((key[1], key[2], key[3]))
        if rows is None:
            return None
        if key in self._near:
            return self._near[key]
        near = rows.choice(key[0])
        if len(self._near) < NEAR_REMEMBERED_MAX:
            self._near[key] = near
        return near


class _Rows:
    """The entries of one (n, k, operation) that serve more rows than they were tuned at, in order."""

    def __init__(self, entries: list[Entry], of_sibling: frozenset[Key]) -> None:
        self._of_sibling = of_sibling
        self._first = [entry.rows[0] for entry in entries]
        self._entries = entries

    def choice(self, m: int) -> Choice | None:
        at = bisect_right(self._first, m) - 1
        if at < 0:
            return None
        entry = self._entries[at]
        if m > entry.rows[1]:
            return None
        launch = entry.kernel.launch.rule.at(m, entry.problem.operation) if entry.kernel else None
        if entry.kernel and launch is None:
            return None
        return Choice(entry, launch, near=True, sibling=entry.problem.key in self._of_sibling)
