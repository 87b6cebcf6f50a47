"""How one search went: every trial, and the best so far."""

from __future__ import annotations

from hktune.report.figures.figure import BLUE, GREY, ORANGE, Figure, Spec, axis
from hktune.report.results.curves import Curve, Tried

_TOP = 2.0  # times as long as the best: what is slower is drawn at the upper edge


def search_curve_figure(curve: Curve, height_px: int = 190) -> Figure:
    """The trials of one search over the time of its best, and the best so far; failed ones at the upper edge."""
    timed = [each for each in curve.tried if each.relative is not None]
    top = min(max((each.relative for each in timed if each.relative), default=_TOP), _TOP) * 1.04
    traces: list[Spec] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [each.number for each in timed],
            "y": [round(min(each.relative or top, top), 4) for each in timed],
            "text": [f"{each.config_id}: {_at_least(each)}{each.relative:.3f}" for each in timed],
            "hoverinfo": "text",
            "marker": {
                "color": GREY,
                "size": 4,
                "opacity": 1,
                "symbol": ["circle-open" if each.left_early else "circle" for each in timed],
            },
        },
        _best_so_far(curve),
    ]
    failed = [each.number for each in curve.tried if each.relative is None]
    if failed:
        marker = {"color": ORANGE, "size": 5, "symbol": "x-thin-open"}
        name = {"type": "scatter", "mode": "markers", "text": "failed", "hoverinfo": "text"}
        traces.append({**name, "x": failed, "y": [top] * len(failed), "marker": marker})
    layout = {
        "showlegend": False,
        "xaxis": axis("trial", range=[0, curve.trials + 1], rangemode="tozero", nticks=5),
        "yaxis": axis(f"over best, {curve.source or 'none timed'}", range=[0.96, top * 1.02], nticks=5),
        "font": {"size": 11},
        "margin": {"l": 6, "r": 6, "t": 6, "b": 6},
    }
    title = f"Search of {curve.shape.label}, {curve.source or 'no time'}"
    return Figure(title, _in_words(curve), traces, layout, height_px)


def _best_so_far(curve: Curve) -> Spec:
    ends = [*curve.best, *([curve.best[-1]] if curve.best else [])]
    numbers = [each.number for each in curve.best] + [curve.trials] * bool(curve.best)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers,
        "y": [round(min(each.relative or 1.0, _TOP * 1.04), 4) for each in ends],
        "line": {"color": BLUE, "width": 2, "shape": "hv"},
        "hoverinfo": "skip",
    }


def _at_least(tried: Tried) -> str:
    return "at least " if tried.left_early else ""


def _in_words(curve: Curve) -> str:
    if not curve.best or curve.first is None:
        return f"{curve.trials} trials, none of which has a time of its own"
    best = curve.best[-1]
    failed = f", {curve.failed} of them failed" if curve.failed else ""
    first = f"{_at_least(curve.first)}{curve.first.relative:.2f} times as long"
    return f"{curve.trials} trials{failed}; the best is trial {best.number}, the first took {first}"
