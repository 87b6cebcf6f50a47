"""trials.csv as it was before its rows said their format: what such a row's cells are in format 2.

A row held `dtype` and `epilogue` in place of an operation, and said only in its `detail`, in words, what has a column
of its own in format 2. This is the one place where those words are read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from operator import itemgetter

from hktune.core.escaped import shown
from hktune.core.operation import LEGACY_WORDS, legacy_operation
from hktune.core.outcome import Source, Stage, Status
from hktune.store.cells import CellError
from hktune.store.format_2 import FORMAT_2

COLUMNS = (
    *("trial", "m", "n", "k", "dtype", "epilogue", "config_id", "config", "status", "detail", "source"),
    *("time_us", "time_us_low", "time_us_high", "samples", "cache", "tflops", "baseline", "baseline_us"),
    *("relative_error", "vgprs", "agprs", "sgprs", "spills", "lds_bytes", "scratch_bytes", "waves_per_simd"),
    *("compile_s", "object_sha256", "template", "template_sha256", "compiler", "target", "device"),
    *("strategy", "seed", "started_at"),
)

_CONFIRMED = "confirmed"
_QUARANTINED = "quarantined, reproduce: "
_SEEN = {
    "gpu": re.compile(r"; GPU ([0-9]{1,9})(?:;|\Z)"),
    "clock_mhz": re.compile(r"; ([0-9]{1,9}) MHz(?:;|\Z)"),
    "power_w": re.compile(r"; ([0-9]{1,9}) W(?:;|\Z)"),
    "throttled": re.compile(r"; throttled: ([^;\\]{1,200})"),
}
_VENDOR_BEST = re.compile(r"; the vendor's best: ([^;\\]{1,200}) at ([0-9]{1,12}\.[0-9]{2}) us \([0-9.]+x\)\Z")

_NEW = ("format", "operation", "stage", "quarantined", "vendor_best", "vendor_best_us", *_SEEN)
_cells_of_format_2 = itemgetter(*map((*COLUMNS, *_NEW).index, FORMAT_2.columns))


def cells_of_format_2(cells: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row of format 1 as one of format 2. Raises CellError."""
    if len(cells) != len(COLUMNS):
        raise CellError(None, f"{len(cells)} cells, not {len(COLUMNS)}")
    operation = _operation(cells)
    said = _said(*_what_was_said(cells))
    found: tuple[str, ...] = _cells_of_format_2((*cells, "2", operation, *said))
    return found


_OPERATION_AT = {column: COLUMNS.index(column) for column in LEGACY_WORDS}
_what_was_said = itemgetter(*map(COLUMNS.index, ("status", "source", "detail")))


def _operation(cells: Sequence[str]) -> str:
    words = {column: cells[at] for column, at in _OPERATION_AT.items()}
    for column, word in words.items():
        if word not in LEGACY_WORDS[column]:
            known = ", ".join(LEGACY_WORDS[column])
            raise CellError(column, f"{shown(word)} is none of {known}" if word else "is empty")
    return _operation_text(**words)


@functools.cache
def _operation_text(dtype: str, epilogue: str) -> str:
    return str(legacy_operation(dtype, epilogue))


@functools.lru_cache(maxsize=4096)
def _said(status: str, source: str, detail: str) -> tuple[str, ...]:
    """What the detail of a row says, as the cells that format 2 has for that, from `stage` on. A confirmation began
    with that word; a failure that cost a GPU's process ended in the command that shows it again."""
    stage = Stage.CONFIRMED if detail.startswith(_CONFIRMED) else Stage.SCREENED
    lost = status in (Status.CRASHED, Status.TIMEOUT) and _QUARANTINED in detail
    state = (str(stage), "true" if lost else "false")
    if source != Source.MEASURED:
        return (*state, "", "", *("" for _ in _SEEN))
    seen = (match.group(1) if (match := pattern.search(detail)) else "" for pattern in _SEEN.values())
    best = _VENDOR_BEST.search(detail)
    return (*state, *(best.groups() if best else ("", "")), *seen)
