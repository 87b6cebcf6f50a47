"""Tables for a person that fit the width there is: what is empty is left out, then what matters least."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len, chop_cells
from rich.console import Console

from hktune.core.escaped import escaped

_WORD = re.compile(r"[^\s-]+-*|-+|\s+")
_GAP = 2  # spaces between two columns
_NARROW = 18  # a column that folds is made as narrow as this before another is left out


@dataclass(frozen=True)
class Column:
    """One column. Of those that do not fit, the one of the highest `rank` goes first; rank 0 stays. `folds`: its cells
    may be broken into several lines, at spaces and hyphens first."""

    header: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = False
    folds: bool = False

    @cached_property
    def texts(self) -> list[str]:
        """The cells as they may be shown."""
        return [escaped(cell) for cell in self.cells]

    @cached_property
    def width(self) -> int:
        """Terminal cells that it takes unbroken."""
        return max(map(cell_len, (*self.header.split("\n"), *self.texts)))

    @property
    def width_min(self) -> int:
        return min(self.width, _NARROW) if self.folds else self.width


def print_columns(console: Console, columns: Sequence[Column]) -> None:
    """Print `columns` side by side, as many as fit, and name those that did not. One without any text is left out."""
    told = [column for column in columns if any(column.cells)]
    shown = _fitting(told, console.width)
    spare = console.width - _total(shown)
    laid_out = []
    for column in shown:
        # Wider than the console where even the narrowest do not fit: a terminal then breaks the line.
        width = min(column.width, max(column.width_min + spare, _NARROW // 2)) if column.folds else column.width
        spare -= width - column.width_min
        laid_out.append(_Laid(column, width))
    heads = [column.header.split("\n") for column in shown]
    lines = _lines(laid_out, [[""] * (max(map(len, heads)) - len(head)) + head for head in heads])
    for row in zip(*(laid.cells for laid in laid_out), strict=True):
        lines += _lines(laid_out, row)
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    left_out = [column.header.replace("\n", " ") for column in told if column not in shown]
    if left_out:
        needed = sum(column.width + _GAP for column in told) - _GAP
        print_prose(console, f"({', '.join(left_out)}: no room in {console.width} columns; COLUMNS={needed} shows all)")


def print_prose(console: Console, text: str, indent: str = "") -> None:
    """Print one paragraph, broken between words only; lines after the first begin with `indent`."""
    for line in textwrap.wrap(
        escaped(text),
        max(console.width, len(indent) + 20),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        print_line(console, line)


def print_line(console: Console, text: str) -> None:
    """Print `text` as it is: to be copied, or searched for. A terminal breaks it where it must."""
    console.print(escaped(text), highlight=False, markup=False, soft_wrap=True)


class _Laid:
    """A column of one width, each of its cells in lines."""

    def __init__(self, column: Column, width: int) -> None:
        self._right = column.right
        self._width = width
        self.cells = [_folded(text, width) if cell_len(text) > width else [text] for text in column.texts]

    def line(self, cell: Sequence[str], number: int) -> str:
        """That line of `cell`, as wide as the column; blank where the cell has fewer."""
        text = cell[number] if number < len(cell) else ""
        blank = " " * (self._width - cell_len(text))
        return blank + text if self._right else text + blank


def _lines(columns: Sequence[_Laid], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of one row."""
    numbers = range(max(map(len, cells)))
    between = " " * _GAP
    return [
        between.join(column.line(cell, number) for column, cell in zip(columns, cells, strict=True)).rstrip()
        for number in numbers
    ]


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    shown = list(columns)
    while _total(shown) > width:
        least = max(shown, key=lambda column: column.rank)
        if least.rank == 0:
            break
        shown.remove(least)
    return shown


def _total(columns: Sequence[Column]) -> int:
    """The fewest terminal cells that `columns` take."""
    return sum(column.width_min + _GAP for column in columns) - _GAP


def _folded(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` terminal cells, of which some characters take two: at spaces and after hyphens
    first."""
    lines = [""]
    for word in _WORD.findall(text):
        if cell_len(lines[-1] + word.rstrip()) <= width:
            lines[-1] += word
        else:
            lines += chop_cells(word.lstrip(), width)
    return [line.strip() for line in lines if line.strip()] or [""]
