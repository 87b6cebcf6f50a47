"""Markdown as GitHub reads it, in which words from a file stay words: no markup, no link, no mention."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from hktune.core.escaped import escaped
from hktune.report.pages.grid import MARKS, Cell, Grid, Heading

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,:;/+=()_-]*", re.ASCII)
_LETTERS = re.compile(r"[A-Za-z0-9 ]", re.ASCII)


def quoted(text: str) -> str:
    """`text` from a file: as code, in which nothing is markup, and nobody is mentioned. What could end the code, or a
    cell of a table, is written as a character reference."""
    shown = escaped(text)
    if not shown:
        return ""
    if _PLAIN.fullmatch(shown):
        return f"`{shown}`"
    characters = (each if _LETTERS.fullmatch(each) or not each.isascii() else f"&#{ord(each)};" for each in shown)
    return f"<code>{''.join(characters)}</code>"


def table(grid: Grid) -> list[str]:
    """The lines of a table, without its caption."""
    heads = [heading.text.replace("|", "&#124;") for heading in grid.headings]
    rules = ["--:" if heading.right else "---" for heading in grid.headings]
    return [_line(heads), f"|{'|'.join(rules)}|", *(_line(_cells(grid.headings, row)) for row in grid.rows)]


def folded(summary: str, lines: Sequence[str]) -> list[str]:
    """`lines` behind a line that opens them."""
    return [f"<details><summary>{html.escape(summary)}</summary>", "", *lines, "", "</details>"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(headings: Sequence[Heading], row: Sequence[Cell]) -> list[str]:
    return [_cell(heading, cell) for heading, cell in zip(headings, row, strict=True)]


def _cell(heading: Heading, cell: Cell) -> str:
    if heading.foreign or cell.foreign:
        return quoted(cell.text)
    text = html.escape(escaped(cell.text), quote=False).replace("|", "&#124;")
    return f"{MARKS[cell.verdict]} {text}" if cell.verdict else text
