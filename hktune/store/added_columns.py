"""Older formats of trials.csv that lack columns of the next one, and differ in nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from hktune.store.cells import CellError
from hktune.store.rows import COLUMNS, of_another_format


@dataclass(frozen=True)
class AddedColumns:
    """Format `number`. The next one has `next_columns`, of which `new` are those that this one lacks. `made` gives
    their cells for a row of this format: empty ones, where it is None.
    """

    number: int
    next_columns: tuple[str, ...]
    new: tuple[str, ...]
    made: Callable[[Sequence[str]], tuple[str, ...]] | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Those of this format, in order. The first cell of a row says its format."""
        return tuple(column for column in self.next_columns if column not in self.new)

    def cells_of_next(self, cells: Sequence[str]) -> tuple[str, ...]:
        """The cells of a row of this format as one of the next. Raises CellError."""
        if len(cells) != len(self.columns):
            raise CellError(None, f"{len(cells)} cells, not {len(self.columns)}")
        if cells[0] != str(self.number):
            raise of_another_format(cells[0], self.number)
        added = self.made(cells) if self.made else ("",) * len(self.new)
        return self._in_order((str(self.number + 1), *cells[1:], *added))

    @cached_property
    def _in_order(self) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
        return itemgetter(*map((*self.columns, *self.new).index, self.next_columns))


FORMAT_4 = AddedColumns(4, COLUMNS, ("energy_j", "energy_j_low", "energy_j_high", "baseline_energy_j"))
"""Before rows had energies."""
FORMAT_3 = AddedColumns(3, FORMAT_4.columns, ("library",))
"""Before algorithms of the vendor's library had rows: every row was of a kernel."""
