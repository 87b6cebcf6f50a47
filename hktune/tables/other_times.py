"""A table compared with the times that another tool measured of the same problems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hktune.core.identity import Identity
from hktune.core.outcome import Source
from hktune.dispatch.table import Entry, Table
from hktune.exchange import ForeignFile, Product
from hktune.tables.span import Span, expected


@dataclass(frozen=True)
class Compared:
    """One problem that both have. `same_board`: whether theirs was timed on a board like the table's; None where the
    file says too little to tell."""

    entry: Entry
    theirs: Product
    same_board: bool | None

    @property
    def their_us(self) -> float:
        assert self.theirs.time_us is not None, "only products with a time are compared"
        return self.theirs.time_us

    @property
    def ratio(self) -> float:
        """Their time over the table's: above 1, the table is faster."""
        return self.their_us / self.entry.time_us

    @property
    def faster(self) -> str:
        """Which of the two: ours or theirs; nothing where their time is within the interval of the table's."""
        ours, theirs = expected(self.entry), Span(self.their_us, self.their_us)
        return "ours" if ours.is_below(theirs) else "theirs" if theirs.is_below(ours) else ""


@dataclass(frozen=True)
class Group:
    """The problems whose times may be spoken of together: one source of the table's, one board of theirs."""

    source: Source
    board: str
    same_board: bool | None
    members: tuple[Compared, ...]

    @property
    def mean_ratio(self) -> float:
        """The geometric mean of their times over the table's."""
        return math.exp(sum(math.log(each.ratio) for each in self.members) / len(self.members))

    def count(self, which: str) -> int:
        """How many of them `which` is faster in, as `Compared.faster` says it."""
        return sum(each.faster == which for each in self.members)


@dataclass(frozen=True)
class OtherTimes:
    """What was compared, in the table's order, and what could not be. `untimed` are products without a time, which a
    table could serve; `unserved` are those that it could not."""

    both: tuple[Compared, ...]
    only_ours: tuple[Entry, ...]
    only_theirs: tuple[Product, ...]
    untimed: tuple[Product, ...]
    unserved: tuple[Product, ...]

    @property
    def groups(self) -> list[Group]:
        """By source and board; the table's own board first."""
        found: dict[tuple[Source, str, bool | None], list[Compared]] = {}
        for each in self.both:
            found.setdefault((each.entry.source, each.theirs.board, each.same_board), []).append(each)
        groups = [Group(*key, tuple(members)) for key, members in found.items()]
        return sorted(groups, key=lambda group: (not group.same_board, group.board))


def compare_times(table: Table, file: ForeignFile) -> OtherTimes:
    """The entries of `table` and the times of `file`, problem by problem. Of several times of one problem the fastest
    counts: of those on the table's own board where there are some."""
    timed = [each for each in file.products if each.problem and each.time_us is not None]
    by_problem: dict[object, list[Product]] = {}
    for each in timed:
        assert each.problem is not None
        by_problem.setdefault(each.problem.key, []).append(each)
    entries = {entry.problem.key: entry for entry in table.entries}
    found = [_compared(entry, by_problem[key], table.identity) for key, entry in entries.items() if key in by_problem]
    return OtherTimes(
        both=tuple(found),
        only_ours=tuple(entry for key, entry in entries.items() if key not in by_problem),
        only_theirs=tuple(_fastest(products) for key, products in by_problem.items() if key not in entries),
        untimed=tuple(each for each in file.products if each.problem and each.time_us is None),
        unserved=tuple(each for each in file.products if each.problem is None),
    )


def _compared(entry: Entry, products: Sequence[Product], identity: Identity) -> Compared:
    here = [each for each in products if is_board_of(each, identity)]
    chosen = _fastest(here or products)
    return Compared(entry, chosen, is_board_of(chosen, identity))


def is_board_of(product: Product, identity: Identity) -> bool | None:
    """Whether `product` was timed on a board like `identity`, by its architecture and its compute units; None where the
    file says too little to tell."""
    arch, units = product.arch, product.compute_units
    if (arch and arch != identity.arch) or (units and units != identity.compute_units):
        return False
    return True if arch and units else None


def _fastest(products: Iterable[Product]) -> Product:
    return min(products, key=lambda each: each.time_us or math.inf)
