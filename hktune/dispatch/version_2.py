"""Entries of table.json of version 2, from before there were operations: they say `dtype` and `epilogue`.

What such a file says is hashed and signed in its own words, so an entry can be put back into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from hktune.core.bounded_text import Text, Word
from hktune.core.errors import InputError
from hktune.core.operation import legacy_operation, legacy_words, operation_of
from hktune.core.outcome import Source
from hktune.dispatch.table import TIES_MAX, ConfigId, Dimension, Entry, Kernel, Micros, Name, Strict


class Version2Entry(Strict, frozen=True):
    """As `Entry`; `dtype` is of the operands and of C, `epilogue` is none or bias."""

    m: Dimension
    n: Dimension
    k: Dimension
    dtype: Word
    epilogue: Word
    choice: Literal["kernel", "vendor"]
    source: Source
    time_us: Micros
    time_us_low: Micros | None = None
    time_us_high: Micros | None = None
    baseline: Text | None = None
    baseline_us: Micros | None = None
    ties: Annotated[tuple[ConfigId, ...], Meta(max_length=TIES_MAX)] = ()
    kernel: Kernel | None = None
    m_from: Dimension | None = None
    m_to: Dimension | None = None
    name: Name | None = None

    def current(self) -> Entry:
        """This entry as `Entry`. Raises ValueError for what makes none."""
        try:
            operation = legacy_operation(self.dtype, self.epilogue)
        except InputError as unknown:
            raise ValueError(str(unknown)) from None
        return Entry(operation=str(operation), **{name: getattr(self, name) for name in _ALIKE})


def current_entries(entries: Sequence[Version2Entry]) -> tuple[Entry, ...]:
    """`entries` as today's, in their order. Raises ValueError, which names the place, for one that makes none."""
    made: list[Entry] = []
    try:
        made.extend(entry.current() for entry in entries)
    except ValueError as wrong:
        raise ValueError(f"{wrong} - at `$.entries[{len(made)}]`") from None
    return tuple(made)


_ALIKE = tuple(name for name in Entry.__struct_fields__ if name in Version2Entry.__struct_fields__)


def as_version_2(entry: Entry) -> Version2Entry:
    """`entry` in the words of version 2. Raises InputError for an operation that it had no words for."""
    dtype, epilogue = legacy_words(operation_of(entry.operation))
    return Version2Entry(dtype=dtype, epilogue=epilogue, **{name: getattr(entry, name) for name in _ALIKE})
