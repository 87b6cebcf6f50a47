"""Text of a file as a terminal gets it."""

from __future__ import annotations

from rich.text import Text

from hktune.escaped import escaped


def plain(text: str) -> Text:
    """`text` as rich prints it as it stands: nothing in it is markup, and nothing acts on the terminal."""
    return Text(escaped(text))
