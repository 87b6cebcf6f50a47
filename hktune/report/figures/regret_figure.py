"""What is lost where a kernel serves a neighbour of the shape that it is best at."""

from __future__ import annotations

from collections.abc import Sequence

from hktune.core.outcome import Source
from hktune.report.figures.figure import BLUE, Figure, axis, log_axis, shown_text
from hktune.tables.breakpoints import Regret

_TICKS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def regret_figure(regrets: Sequence[Regret], source: Source) -> Figure:
    """The time lost over how far away in m the kernel is best; all times are of `source`."""
    shares = [each.problem.m / each.winner_of.m for each in regrets]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": shares,
        "y": [round(1 + each.regret, 4) for each in regrets],
        "hovertext": [shown_text(each) for each in regrets],
        "hoverinfo": "text",
        "marker": {"color": BLUE, "size": 7},
    }
    layout = {
        "showlegend": False,
        "xaxis": log_axis("m that is served / m that the kernel is best at", shares),
        "yaxis": axis(f"time / own choice, {source}", type="log", tickvals=_TICKS),
    }
    worst = max(each.regret for each in regrets)
    alt = f"{len(regrets)} neighbours served by each other's kernels; at worst one takes {1 + worst:.2f} times as long."
    return Figure(f"What serving neighbours loses, {source}", alt, [trace], layout, 320)
