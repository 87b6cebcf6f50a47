"""The report on two directories beside each other, as one HTML page."""

from __future__ import annotations

from hktune.report.figures.comparison_figure import comparison_figure
from hktune.report.pages.compared import compared_sources, findings, warnings
from hktune.report.pages.grids_of_two import changes_grid, differences_grid, only_grid
from hktune.report.pages.headlines import calls_line, counts_line, device_line, parts
from hktune.report.pages.html_page import Drawing, page
from hktune.report.results.directory_comparison import Comparison

_SECTIONS = (("changes", "What changed"), ("gains", "What each gained"), ("environment", "Environment"))


def comparison_page(comparison: Comparison) -> bytes:
    """The page. Raises InputError where a package that it needs is not here."""
    drawing = Drawing()
    both, weighted = (comparison.before, comparison.after), bool(comparison.after.weights)
    known = comparison.differences is not None
    return page(
        "comparison.html.j2",
        drawing,
        title=f"hktune report: {comparison.before.label} and {comparison.after.label}",
        lines=[
            f"The first is {comparison.before.label}, the second {comparison.after.label}.",
            calls_line(comparison.after),
        ],
        sections=_SECTIONS,
        warnings=warnings(comparison),
        findings=findings(comparison),
        regressions=changes_grid("Slower in the second, what costs most first", comparison.regressions, weighted),
        change_figures=[drawing.add(comparison_figure(comparison, each)) for each in compared_sources(comparison)],
        changes=changes_grid("Every shape of both, what loses most time first", comparison.changes, weighted),
        only=only_grid(comparison),
        each=[(f"{own.label}: {device_line(own)}; {counts_line(own)}", parts(own)) for own in both],
        differences=differences_grid(comparison),
        no_difference="Nothing that is written down." if known else "It is not known of both directories.",
    )
