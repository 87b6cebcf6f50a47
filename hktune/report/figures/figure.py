"""What all figures share: their colours, and how a name from a file becomes text in one."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hktune.core.escaped import escaped
from hktune.core.outcome import Source
from hktune.report.results.gains import Verdict

Spec = Mapping[str, Any]
"""A trace or a layout, in the words of plotly's JSON."""

# Distinct to the colour-blind, and at least 3 to 1 against a white page and against a dark one.
BLUE, GREY, ORANGE, GREEN = "#3577c1", "#7d848d", "#cf5f1f", "#2f8f6b"
COLOURS = {Verdict.WIN: BLUE, Verdict.TIE: GREY, Verdict.LOSS: ORANGE}
SYMBOLS = {Verdict.WIN: "triangle-up", Verdict.TIE: "circle", Verdict.LOSS: "triangle-down"}
SOURCE_SYMBOLS = {Source.MEASURED: "circle", Source.MODELLED: "diamond-open"}

INK = "#57606a"
LINES = "rgba(127,127,127,0.25)"
AXIS: Spec = {"gridcolor": LINES, "zerolinecolor": LINES, "linecolor": LINES, "automargin": True}
_LAYOUT: Spec = {
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
    "hoverlabel": {"align": "left"},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
}


@dataclass(frozen=True)
class Figure:
    """One picture: its title and what it shows in words, for those who cannot see it; `height_px` as it is drawn."""

    title: str
    alt: str
    data: Sequence[Spec]
    layout: Spec
    height_px: int

    @property
    def spec(self) -> dict[str, Any]:
        """The whole of it, as `plotly.graph_objects.Figure` takes it."""
        font = {**_LAYOUT["font"], **self.layout.get("font", {})}
        layout = {**_LAYOUT, **self.layout, "font": font, "height": self.height_px}
        return {"data": list(self.data), "layout": layout}


def shown_text(text: object) -> str:
    """`text` as plotly shows it, and not as the markup that it may look like. It knows no name for a quote."""
    return html.escape(escaped(str(text)), quote=False)


def axis(title: str, **more: object) -> Spec:
    """An axis of that title."""
    return {**AXIS, "title": {"text": title}, **more}


def log_axis(title: str, values: Iterable[float]) -> Spec:
    """A logarithmic axis for `values`, with a tick at each power of ten, and at 2 and 5 times it where there are few of
    these."""
    logs = [math.log10(value) for value in values]
    least, most = math.floor(min(logs, default=0.0)) - 1, math.ceil(max(logs, default=0.0)) + 1
    steps = (1, 2, 5) if max(logs, default=0.0) - min(logs, default=0.0) < 2 else (1,)
    ticks = [step * 10.0**power for power in range(least, most + 1) for step in steps]
    return axis(title, type="log", tickvals=ticks)
