"""A run's figures as plotly has them. Needs plotly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hktune.core.errors import InputError, ToolchainError
from hktune.core.near import meant
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.shapes import Shape
from hktune.report.figures.figure import Figure, shown_text
from hktune.report.figures.gains_figure import gains_figure
from hktune.report.figures.importance_figure import importance_figure
from hktune.report.figures.roofline_figure import roofline_figure
from hktune.report.figures.search_curve_figure import search_curve_figure
from hktune.report.results.curves import curve_of
from hktune.report.results.importance import TRIALS_MIN, importances
from hktune.report.results.results import Reference, Results
from hktune.report.results.roofline import roofline
from hktune.store import read_environment
from hktune.tuning.run_summary import RunSummary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as PlotlyFigure

_SEARCH_PX, _LEAST_PX = 320, 240
_TITLE_PX = 60


def results_of(summary: RunSummary, shapes: Iterable[Shape]) -> Results:
    """A run's shapes and no others, for figures. Weights count where they differ."""
    weights = {shape.problem: shape.weight for shape in shapes}
    return Results(
        str(summary.directory),
        [trial for rows in summary.rows.values() for trial in rows],
        names=summary.names,
        weights=weights if len(set(weights.values())) > 1 else {},
        asked=tuple(summary.names),
        environment=read_environment(summary.directory),
    )


def search_plot(results: Results, problem: Problem) -> PlotlyFigure:
    """Every trial of the search of `problem`, and the best so far."""
    [shape] = [each for each in results.shapes if each.problem == problem]
    return _drawn(search_curve_figure(curve_of(shape), _SEARCH_PX))


def gain_plot(results: Results, over: str | None) -> PlotlyFigure:
    """How many times as fast each shape's best is as `over`, the short name of a reference; without one, as what
    matters most of those there are."""
    known = {each.name: (each, source) for source in reversed(results.sources) for each in results.references(source)}
    if not known:
        raise InputError("no shape has a kernel and something to compare it with: tune more trials")
    if over is not None and over not in known:
        raise InputError(f"over: {over!r} is not known{meant(over, known)}: known are {', '.join(known)}")
    reference, source = known[over] if over else _first(results)
    return _drawn(gains_figure(results, reference, source))


def _first(results: Results) -> tuple[Reference, Source]:
    return next((each, source) for source in results.sources for each in results.references(source))


def roofline_plot(results: Results) -> PlotlyFigure:
    """Each shape's best kernel under what the device can do."""
    return _drawn(roofline_figure(roofline(results)))


def importance_plot(results: Results) -> PlotlyFigure:
    """Which parameters mattered to the template that has most trials."""
    found = importances(results)
    if not found:
        raise InputError(f"fewer than {TRIALS_MIN} trials have a time: with so few nothing is said of parameters")
    return _drawn(importance_figure(max(found, key=lambda each: each.groups[0].trials)))


def _drawn(figure: Figure) -> PlotlyFigure:
    """`figure` with its title. Raises ToolchainError without plotly."""
    try:
        from plotly.graph_objects import Figure as PlotlyFigure
    except ImportError:
        raise ToolchainError("pictures need plotly: pip install 'hktune[report]'") from None
    drawn = PlotlyFigure(figure.spec)
    title = {"text": shown_text(figure.title), "yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 14}}
    height_px = max(figure.height_px, _LEAST_PX) + _TITLE_PX
    return drawn.update_layout(title=title, margin_t=_TITLE_PX + 40, height=height_px)
