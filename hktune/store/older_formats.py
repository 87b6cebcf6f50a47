"""Every older format of trials.csv, by its number: its columns, and how its rows are those of today."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hktune.store import format_1
from hktune.store.added_columns import FORMAT_3, FORMAT_4
from hktune.store.format_2 import FORMAT_2


@dataclass(frozen=True)
class OlderFormat:
    """`cells_of_today` gives a row's cells in the format of today, or raises CellError."""

    columns: tuple[str, ...]
    cells_of_today: Callable[[Sequence[str]], tuple[str, ...]]

    @property
    def header(self) -> bytes:
        """The first line of a file."""
        return (",".join(self.columns) + "\n").encode()

    @property
    def number_at(self) -> int:
        """Which cell of a row is its number."""
        return self.columns.index("trial")


def _from_format_3(cells: Sequence[str]) -> tuple[str, ...]:
    return FORMAT_4.cells_of_next(FORMAT_3.cells_of_next(cells))


def _from_format_2(cells: Sequence[str]) -> tuple[str, ...]:
    return _from_format_3(FORMAT_2.cells_of_next(cells))


OLDER_FORMATS = {
    1: OlderFormat(format_1.COLUMNS, lambda cells: _from_format_2(format_1.cells_of_format_2(cells))),
    2: OlderFormat(FORMAT_2.columns, _from_format_2),
    3: OlderFormat(FORMAT_3.columns, _from_format_3),
    4: OlderFormat(FORMAT_4.columns, FORMAT_4.cells_of_next),
}
