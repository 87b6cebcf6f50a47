"""What differs between two tables: choices, times, and what only one of them serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hktune.core.problem import Problem
from hktune.dispatch.files import content_sha256
from hktune.dispatch.table import Entry, Table
from hktune.tables.span import ranked


@dataclass(frozen=True)
class Changed:
    """One problem that both tables have. `weight` is how often it is called. `choice`: what each runs differs. The
    times are `comparable` where both are of one board and one source; then `gain` says which is shorter: "gain" where
    that of the second is, "loss" where that of the first is, and nothing where they tie."""

    before: Entry
    after: Entry
    weight: float
    comparable: bool
    gain: str

    @property
    def problem(self) -> Problem:
        return self.before.problem

    @property
    def choice(self) -> bool:
        return _choice(self.before) != _choice(self.after)

    @property
    def object(self) -> bool:
        """Whether one config is another code object in the second: its template or its compiler has changed."""
        before, after = self.before.kernel, self.after.kernel
        return bool(before and after and not self.choice and before.object_sha256 != after.object_sha256)

    @property
    def rows(self) -> bool:
        """Whether they serve other m."""
        return self.before.rows != self.after.rows

    @property
    def saved_us(self) -> float:
        """What the calls of one step take less time in the second."""
        return self.weight * (self.before.time_us - self.after.time_us)


@dataclass(frozen=True)
class Differences:
    """`equal`: both tables say the same. `boards` and `compilers` are those of both, where they differ."""

    equal: bool
    boards: tuple[str, str] | None
    compilers: tuple[str, str] | None
    changed: tuple[Changed, ...]
    only_first: tuple[Entry, ...]
    only_second: tuple[Entry, ...]
    unlike_objects: tuple[int, int] = field(default=(0, 0))

    @property
    def comparable(self) -> list[Changed]:
        return [each for each in self.changed if each.comparable]

    def step_us(self) -> tuple[float, float]:
        """What the calls of one step take in either, over the problems whose times are comparable."""
        members = self.comparable
        before = sum(each.weight * each.before.time_us for each in members)
        return before, sum(each.weight * each.after.time_us for each in members)


def differences(first: Table, second: Table, weights: Mapping[Problem, float], model_tie: float) -> Differences:
    """How `second` differs from `first`, problem by problem in the order of the first. `weights` are calls of a step, 1
    for a problem that has none there. Modelled times within a factor of `model_tie` are a tie."""
    of_first, of_second = ({entry.problem: entry for entry in table.entries} for table in (first, second))
    same_board = first.identity.comparable == second.identity.comparable
    changed = [
        _changed(entry, of_second[problem], weights.get(problem, 1.0), same_board, model_tie)
        for problem, entry in of_first.items()
        if problem in of_second
    ]
    objects = first.object_sha256s, second.object_sha256s
    return Differences(
        equal=content_sha256(first) == content_sha256(second),
        boards=None if same_board else (str(first.identity), str(second.identity)),
        compilers=None if first.compiler == second.compiler else (first.compiler, second.compiler),
        changed=tuple(changed),
        only_first=tuple(entry for problem, entry in of_first.items() if problem not in of_second),
        only_second=tuple(entry for problem, entry in of_second.items() if problem not in of_first),
        unlike_objects=(len(objects[0] - objects[1]), len(objects[1] - objects[0])),
    )


def _changed(before: Entry, after: Entry, weight: float, same_board: bool, model_tie: float) -> Changed:
    comparable = same_board and before.source is after.source
    gain = ""
    if comparable and before.time_us != after.time_us:
        old, new = ranked(before, model_tie), ranked(after, model_tie)
        gain = "gain" if new.is_below(old) else "loss" if old.is_below(new) else ""
    return Changed(before, after, weight, comparable, gain)


def _choice(entry: Entry) -> tuple[str | None, str | None]:
    """What it runs: a kernel by its template and its config, an algorithm by its library and its config, or the vendor
    library's own choice."""
    if entry.vendor_algorithm:
        return (entry.vendor_algorithm.library, entry.vendor_algorithm.known.config.id)
    return (entry.kernel.template, entry.kernel.config_id) if entry.kernel else (None, None)
