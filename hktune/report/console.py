"""What everything for a person is printed on."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from hktune.core.escaped import escaped_lines


class PlainConsole(Console):
    """A console to which text is text: none of it is markup, and nothing in it acts on the terminal. Colours are those
    of `rich.text.Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped_lines(text), **{**options, "markup": False, "emoji": False})


def make_console(stream: TextIO | None = None) -> Console:
    """`stream`, else standard output, as wide as the terminal (COLUMNS, where that is set; 80 where there is no
    terminal at all)."""
    return PlainConsole(file=getattr(stream or sys.stdout, "unescaped", stream), highlight=False)
