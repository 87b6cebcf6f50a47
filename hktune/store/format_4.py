"""trials.csv as it was before rows had energies: such a row's cells in the format of today."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from hktune.store.rows import COLUMNS as COLUMNS_TODAY
from hktune.store.rows import FORMAT, CellError, of_another_format

_FORMAT_CELL = "4"
_NEW = ("energy_j", "energy_j_low", "energy_j_high", "baseline_energy_j")

COLUMNS = tuple(column for column in COLUMNS_TODAY if column not in _NEW)

_cells_of_today = itemgetter(*map((*COLUMNS, *_NEW).index, COLUMNS_TODAY))


def cells_of_today(cells: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row of format 4 as one of today's. Raises CellError."""
    if len(cells) != len(COLUMNS):
        raise CellError(None, f"{len(cells)} cells, not {len(COLUMNS)}")
    if cells[0] != _FORMAT_CELL:
        raise of_another_format(cells[0], int(_FORMAT_CELL))
    today: tuple[str, ...] = _cells_of_today((str(FORMAT), *cells[1:], *("" for _ in _NEW)))
    return today
