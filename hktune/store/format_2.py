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
from hktune.store.added_columns import FORMAT_3, AddedColumns

_LEFT_EARLY = re.compile(r"\Aone launch, left at less than |; left early, clearly slower(?:;|\Z)")


def _added(cells: Sequence[str]) -> tuple[str, str]:
    """Of a row of format 2: its `left_early` and its `origin`."""
    return _left_early(*_what_was_said(cells)), ""


@functools.lru_cache(maxsize=4096)
def _left_early(status: str, source: str, detail: str) -> str:
    timed = status == Status.OK and source == Source.MEASURED
    return "true" if timed and _LEFT_EARLY.search(detail) else "false"


FORMAT_2 = AddedColumns(2, FORMAT_3.columns, ("left_early", "origin"), _added)
_what_was_said = itemgetter(*map(FORMAT_2.columns.index, ("status", "source", "detail")))
