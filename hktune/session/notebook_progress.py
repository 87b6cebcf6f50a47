"""How far a run is, in a notebook: one output that is replaced. Needs IPython, which is there, and no widgets."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from hktune.report.heartbeat import repeated
from hktune.report.run_progress import RunProgress

UPDATE_EVERY_S = 0.5


def in_notebook() -> bool:
    """Whether what is displayed is shown by a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class NotebookProgress(RunProgress):
    """A bar and a line in the cell that runs. The line of the run's end stays."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    @contextmanager
    def shown(self) -> Iterator[None]:
        from IPython.display import HTML, display

        handle = display(HTML(self.markup()), display_id=True)
        try:
            with repeated(lambda: handle.update(HTML(self.markup())), UPDATE_EVERY_S):
                yield
        finally:
            self.phase("over")
            handle.update(HTML(self.markup()))

    def markup(self) -> str:
        """The bar and the line as HTML. What comes from a file is escaped."""
        share = self.share
        value = "" if share is None else f' value="{share:.4f}"'
        line = html.escape(self.line())
        return f'<progress max="1"{value} style="width: 20em"></progress> <code>{line}</code>'
