"""trials.csv as it was before algorithms of the vendor's libraries had rows: such a row's cells in format 4.

Every row was of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from hktune.store.format_4 import COLUMNS as COLUMNS_4
from hktune.store.rows import CellError, of_another_format

_FORMAT_CELL = "3"
_NEW = ("library",)

COLUMNS = tuple(column for column in COLUMNS_4 if column not in _NEW)

_cells_of_format_4 = itemgetter(*map((*COLUMNS, *_NEW).index, COLUMNS_4))


def cells_of_format_4(cells: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row of format 3 as one of format 4. Raises CellError."""
    if len(cells) != len(COLUMNS):
        raise CellError(None, f"{len(cells)} cells, not {len(COLUMNS)}")
    if cells[0] != _FORMAT_CELL:
        raise of_another_format(cells[0], int(_FORMAT_CELL))
    found: tuple[str, ...] = _cells_of_format_4(("4", *cells[1:], ""))
    return found
