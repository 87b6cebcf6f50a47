"""Which parameters mattered, to all shapes and to those of few and of many rows."""

from __future__ import annotations

from hktune.report.figures.figure import INK, Figure, axis, shown_text
from hktune.report.results.importance import Importances


def importance_figure(found: Importances) -> Figure:
    """A line for each parameter, a column for each group of shapes; the darker, the greater its share."""
    names = list(found.groups[0].shares)
    columns = [group.name for group in found.groups]
    shares = [[group.shares.get(name) for group in found.groups] for name in names]
    heat = {
        "type": "heatmap",
        "x": columns,
        "y": [shown_text(name) for name in names],
        "z": shares,
        "zmin": 0,
        "zmax": max((share for row in shares for share in row if share is not None), default=1.0),
        "texttemplate": "%{z:.0%}",
        "textfont": {"color": INK},
        "hovertemplate": "%{y}, %{x}: %{z:.1%}<extra></extra>",
        "colorscale": [[0, "rgba(53,119,193,0.04)"], [1, "rgba(53,119,193,0.55)"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = {
        "xaxis": axis("", type="category", side="top", showgrid=False),
        "yaxis": axis("", type="category", autorange="reversed", showgrid=False),
    }
    first = ", ".join(f"{name} {share:.0%}" for name, share in list(found.groups[0].shares.items())[:3])
    alt = f"Shares of importance of {len(names)} parameters of {found.template}; greatest of all shapes: {first}."
    return Figure(f"What mattered in {found.template}", alt, [heat], layout, 60 + 24 * len(names))
