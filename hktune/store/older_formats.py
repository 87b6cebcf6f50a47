"""Every older format of trials.csv, by its number: its columns, and how its rows are those of today."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hktune.store import format_1, format_2


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


OLDER_FORMATS = {
    1: OlderFormat(format_1.COLUMNS, lambda cells: format_2.cells_of_today(format_1.cells_of_format_2(cells))),
    2: OlderFormat(format_2.COLUMNS, format_2.cells_of_today),
}
