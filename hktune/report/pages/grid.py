"""A table of a report, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hktune.report.results.gains import Gain, Verdict

MARKS = {Verdict.WIN: "▲", Verdict.TIE: "●", Verdict.LOSS: "▼"}
"""What stands before a gain, so that no colour is needed to see it."""


@dataclass(frozen=True)
class Heading:
    """Of one column. `right`: its cells are numbers. `foreign`: they are words from a file."""

    text: str
    right: bool = False
    foreign: bool = False


@dataclass(frozen=True)
class Cell:
    """Text, and whether that is a gain, and what it says. `foreign`: it has words from a file."""

    text: str
    verdict: Verdict | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: what it shows, its columns, and its rows of as many cells each. `note` explains it."""

    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def only(self, *texts: str) -> Grid:
        """Those of the columns `texts` that there are."""
        return self._of([i for i, heading in enumerate(self.headings) if heading.text in texts])

    def without_empty(self) -> Grid:
        """Without the columns in which no row says anything."""
        return self._of([i for i in range(len(self.headings)) if any(row[i].text for row in self.rows)])

    def _of(self, kept: Sequence[int]) -> Grid:
        rows = [[row[i] for i in kept] for row in self.rows]
        return Grid(self.caption, [self.headings[i] for i in kept], rows, self.note)


Column = tuple[Heading, Sequence["str | Cell"]]
"""A column and all of its cells."""


def grid_of_columns(caption: str, columns: Sequence[Column], note: str = "") -> Grid:
    """The table of `columns`, without those in which nothing is said."""
    made = [[each if isinstance(each, Cell) else Cell(each) for each in own] for _, own in columns]
    return Grid(caption, [heading for heading, _ in columns], list(zip(*made, strict=True)), note).without_empty()


def cells(*texts: object) -> list[Cell]:
    """A row of plain text; None is an empty cell."""
    return [Cell("" if text is None else str(text)) for text in texts]


def gain_cell(gain: Gain | None) -> Cell:
    """How many times as fast, with its verdict."""
    return Cell(f"{gain.ratio:.3f}", gain.verdict) if gain else Cell("")


def microseconds(time_us: float | None) -> str:
    """A time with three digits or more; empty where there is none."""
    if time_us is None:
        return ""
    return f"{time_us:.2f}" if time_us < 10 else f"{time_us:.1f}"
