"""The report on one directory, as one HTML page."""

from __future__ import annotations

from hktune.core.outcome import Source
from hktune.report.figures.clocks_figure import clocks_figure
from hktune.report.figures.gains_figure import gains_figure
from hktune.report.figures.importance_figure import importance_figure
from hktune.report.figures.regret_figure import regret_figure
from hktune.report.figures.roofline_figure import roofline_figure
from hktune.report.figures.search_curve_figure import search_curve_figure
from hktune.report.pages import grids
from hktune.report.pages.grid import Grid
from hktune.report.pages.headlines import calls_line, counts_line, device_line, parts
from hktune.report.pages.html_page import Drawing, page
from hktune.report.results.clocks import Clocks, clocks
from hktune.report.results.curves import curve_of
from hktune.report.results.importance import importances
from hktune.report.results.results import Results
from hktune.report.results.roofline import Roofline, roofline
from hktune.tables import regrets

_SECTIONS = (
    ("gains", "What was gained"),
    ("searches", "Searches"),
    ("parameters", "Parameters"),
    ("roofline", "Roofline"),
    ("ties", "Ties and neighbours"),
    ("failures", "Failures"),
    ("clocks", "Clocks and power"),
    ("environment", "Environment"),
)


def report_page(results: Results) -> bytes:
    """The page. Raises InputError where a package that it needs is not here."""
    drawing = Drawing()
    return page(
        "report.html.j2",
        drawing,
        title=f"hktune report: {results.label}",
        lines=[f"{device_line(results)}.", f"{counts_line(results)}.", calls_line(results)],
        sections=_SECTIONS,
        **_gains(results, drawing),
        # A shape that no kernel may serve was not searched: the vendor's algorithms alone were tried.
        curves=[
            (curve, drawing.add(search_curve_figure(curve))) for curve in map(curve_of, results.shapes) if curve.trials
        ],
        importance=[
            (drawing.add(importance_figure(found)), grids.importance_grid(found)) for found in importances(results)
        ],
        ties=grids.ties_grid(results),
        regrets=_regrets(results, drawing),
        failures=grids.failures_grid(results),
        **_clocks(results, drawing),
        environment=grids.environment_grid(results),
    )


def _gains(results: Results, drawing: Drawing) -> dict[str, object]:
    """What was gained, and how much the device leaves to gain."""
    limits = roofline(results)
    return {
        "parts": parts(results),
        "gain_figures": {source: _gain_figures(results, source, drawing) for source in results.sources},
        "shape_grids": {source: grids.shapes_grid(results, source, limits) for source in results.sources},
        "without_kernel": grids.without_kernel_grid(results),
        "configs": grids.configs_grid(results),
        "roofline_figure": drawing.add(roofline_figure(limits)) if limits.points else None,
        "roofline_source": _source_of(limits),
    }


def _gain_figures(results: Results, source: Source, drawing: Drawing) -> list[dict[str, object]]:
    """Against what matters most of what there is to compare with."""
    return [drawing.add(gains_figure(results, each, source)) for each in results.references(source)[:1]]


def _source_of(limits: Roofline) -> str:
    if limits.peak is None:
        return f"{limits.why_no_peak}." if limits.why_no_peak else ""
    return f"The limits are those of {limits.peak.source}."


def _regrets(results: Results, drawing: Drawing) -> list[tuple[dict[str, object], Grid]]:
    """Of each source what serving neighbours loses; neighbours of two sources are never compared."""
    found = regrets(results.deciding)
    source_of = {shape.problem: shape.source for shape in results.solved}
    own = {source: [each for each in found if source_of[each.problem] is source] for source in results.sources}
    return [
        (drawing.add(regret_figure(regrets, source)), grids.regrets_grid(regrets, source))
        for source, regrets in own.items()
        if regrets
    ]


def _clocks(results: Results, drawing: Drawing) -> dict[str, object]:
    found = clocks(results)
    figure = clocks_figure(found) if found else None
    return {
        "clocks": grids.clocks_grid(found) if found else None,
        "clocks_figure": drawing.add(figure) if figure and figure.data else None,
        "clocks_line": _held_down(found) if found else "",
        "modelled": results.sources == [Source.MODELLED],
    }


def _held_down(found: Clocks) -> str:
    said = f"{found.rows} of {found.of} rows say their clock"
    reasons = ", ".join(f"{count} for {reason}" for reason, count in found.reasons.most_common())
    return f"{said}; {sum(found.reasons.values())} held it down{f': {reasons}' if reasons else ''}."
