"""What everything for a person is printed on."""

from __future__ import annotations

from rich.console import Console


def make_console() -> Console:
    """Standard output, as wide as the terminal (COLUMNS, where that is set; 80 where there is no terminal at all)."""
    return Console()
