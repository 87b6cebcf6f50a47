"""trials.csv as it was before its rows said which times are bounds: such a row's cells in format 3.

A row said only in its `detail`, in words, that its measuring was left early. This is the one place where those words
are read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from operator import itemgetter

from hktune.core.outcome import Source, Status
from hktune.store.format_3 import COLUMNS as COLUMNS_3
from hktune.store.rows import CellError, of_another_format

_FORMAT_CELL = "2"
_NEW = ("left_early", "origin")

COLUMNS = tuple(column for column in COLUMNS_3 if column not in _NEW)

_LEFT_EARLY = re.compile(r"\Aone launch, left at less than |; left early, clearly slower(?:;|\Z)")
_cells_of_format_3 = itemgetter(*map(("format", *COLUMNS[1:], *_NEW).index, COLUMNS_3))
_what_was_said = itemgetter(*map(COLUMNS.index, ("status", "source", "detail")))


def cells_of_format_3(cells: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row of format 2 as one of format 3. Raises CellError."""
    if len(cells) != len(COLUMNS):
        raise CellError(None, f"{len(cells)} cells, not {len(COLUMNS)}")
    if cells[0] != _FORMAT_CELL:
        raise of_another_format(cells[0], int(_FORMAT_CELL))
    found: tuple[str, ...] = _cells_of_format_3(("3", *cells[1:], _left_early(*_what_was_said(cells)), ""))
    return found


@functools.lru_cache(maxsize=4096)
def _left_early(status: str, source: str, detail: str) -> str:
    timed = status == Status.OK and source == Source.MEASURED
    return "true" if timed and _LEFT_EARLY.search(detail) else "false"
