"""Where kernels are faster, and where not: every shape by its m and its n and k."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hktune.core.outcome import Source
from hktune.report.figures.figure import COLOURS, SYMBOLS, Figure, Spec, axis, shown_text
from hktune.report.results.gains import Gain, Verdict
from hktune.report.results.results import Reference, Results, ShapeResult

_ROW_PX = 26
_LABELLED_MAX = 120  # more numbers than that are not read
_SIZES_PX = (10, 24)  # of the least and the greatest weight

# What the labels of rows are, at the height of those of columns: a title would be next to the longest of them.
_CORNER: Spec = {
    **{"text": "n x k", "showarrow": False, "xref": "paper", "x": 0, "xanchor": "right", "xshift": -6},
    **{"yref": "paper", "y": 1, "yanchor": "bottom"},
}

Gained = tuple[ShapeResult, Gain]


def gains_figure(results: Results, reference: Reference, source: Source) -> Figure:
    """Every shape whose time is of `source` and that can be compared with `reference`, by its m and its n and k: a
    triangle that points up where the kernel is faster, larger the more often the model calls it."""
    gained = [(shape, gain) for shape in results.solved_by(source) if (gain := reference.gain(shape))]
    families = _families([shape for shape, _ in gained])
    several = len({shape.problem.operation for shape, _ in gained}) > 1
    rows = [_family_name(family, several) for family in families]
    columns = [str(m) for m in sorted({shape.problem.m for shape, _ in gained})]
    traces = [_trace(verdict, gained, results, several) for verdict in Verdict]
    layout = {
        "xaxis": axis("m", type="category", categoryorder="array", categoryarray=columns, side="top"),
        "yaxis": axis("", type="category", categoryorder="array", categoryarray=rows, autorange="reversed"),
        "legend": {"orientation": "h", "y": 0, "yanchor": "top", "x": 0},
        "annotations": [_CORNER],
    }
    counts = ", ".join(f"{len(trace['x'])} {trace['name']}" for trace in traces)
    against = f"{len(gained)} shapes by m and by n and k, against {reference.meaning}, {source}"
    alt = f"{against}: {counts}. The table has the figures."
    height_px = 110 + _ROW_PX * len(rows)
    title = f"Times as fast as {reference.meaning}, {source}"
    return Figure(title, alt, [trace for trace in traces if trace["x"]], layout, height_px)


def _trace(verdict: Verdict, gained: Sequence[Gained], results: Results, several: bool) -> Spec:
    own = [(shape, gain) for shape, gain in gained if gain.verdict is verdict]
    most = max((shape.weight for shape, _ in gained), default=1.0)
    labelled = len(gained) <= _LABELLED_MAX
    return {
        "type": "scatter",
        "name": {Verdict.WIN: "faster", Verdict.TIE: "no difference beyond doubt", Verdict.LOSS: "slower"}[verdict],
        "mode": "markers+text" if labelled else "markers",
        "x": [str(shape.problem.m) for shape, _ in own],
        "y": [_family_name(_family(shape), several) for shape, _ in own],
        "text": [f"{gain.ratio:.2f}" for _, gain in own] if labelled else None,
        "textposition": "middle right",
        "textfont": {"size": 11},
        "hovertext": [_hover(shape, gain, bool(results.weights)) for shape, gain in own],
        "hoverinfo": "text",
        "cliponaxis": False,
        "marker": {
            "color": COLOURS[verdict],
            "symbol": SYMBOLS[verdict],
            "opacity": 1,
            "line": {"width": 0},
            "size": [_size_px(shape.weight / most if results.weights else 0.1) for shape, _ in own],
        },
    }


def _size_px(share: float) -> float:
    """By area, since that is what an eye compares."""
    least, most = _SIZES_PX
    return round(least + (most - least) * math.sqrt(share), 1)


def _hover(shape: ShapeResult, gain: Gain, weighted: bool) -> str:
    assert shape.best is not None
    calls = f"<br>{shape.weight:g} calls a step" if weighted else ""
    return (
        f"{shown_text(shape.label)}<br>{gain.ratio:.3f} times as fast ({gain.low:.3f}..{gain.high:.3f})"
        f"<br>{shape.best.time_us:.1f} us, {shape.source}{calls}"
    )


def _family(shape: ShapeResult) -> tuple[int, int, str]:
    return (shape.problem.n, shape.problem.k, str(shape.problem.operation))


def _families(shapes: Sequence[ShapeResult]) -> list[tuple[int, int, str]]:
    """The n and k there are, the smallest matrix first."""
    return sorted({_family(shape) for shape in shapes}, key=lambda each: (each[0] * each[1], each))


def _family_name(family: tuple[int, int, str], several: bool) -> str:
    n, k, operation = family
    return f"{n} x {k}{f' {operation}' if several else ''}"
