"""A results directory, or two, as Markdown that fits a pull request."""

from __future__ import annotations

from hktune.report.pages.compared import findings, warnings
from hktune.report.pages.grid import Cell, Grid, Heading, cells
from hktune.report.pages.grids import environment_grid, failures_grid, shapes_grid, without_kernel_grid
from hktune.report.pages.grids_of_two import changes_grid, differences_grid, only_grid
from hktune.report.pages.headlines import Part, calls_line, counts_line, device_of, kinds_line, parts, shapes
from hktune.report.pages.markdown import folded, quoted, table
from hktune.report.results.directory_comparison import Comparison
from hktune.report.results.gains import Verdict
from hktune.report.results.results import Results
from hktune.report.results.roofline import roofline

_COLUMNS = (
    *("shape", "m x n x k", "operation", "calls", "time, us", "low..high", "vs vendor", "vs best other"),
    *("vs first trial", "table has", "of limit", "energy, mJ", "ties", "failed", "config", "template"),
)
_CHANGES = ("shape", "problem", "calls", "first, us", "second, us", "times as fast", "low..high", "config", "times are")
_OPEN_MAX = 12  # a table of more shapes is folded
_REGRESSIONS_MAX = 20
_ENVIRONMENT = (
    *("device", "compiler", "commit", "started at"),
    *("version of hktune", "version of torch", "environment.json"),
)


def summary_of(results: Results) -> str:
    """What was gained, what ties and what failed, and what it was made with."""
    limits = roofline(results)
    lines = [f"## hktune: {quoted(results.label)}", ""]
    lines += [f"{quoted(device_of(results))}; {kinds_line(results)}. {counts_line(results)}. {calls_line(results)}", ""]
    for part in parts(results):
        grid = shapes_grid(results, part.source, limits).only(*_COLUMNS)
        lines += [*_part(part), *_perhaps_folded(grid.caption, len(grid.rows), grid), f"{grid.note}.", ""]
    lines += _section(f"Shapes without a proved kernel: {_without(results)}", without_kernel_grid(results))
    lines += _section("Failed:", failures_grid(results))
    return "\n".join([*lines, *_environment(results), ""])


def summary_of_two(comparison: Comparison) -> str:
    """What the second does slower and faster than the first, and how their environments differ."""
    weighted = bool(comparison.after.weights)
    lines = [f"## hktune: {quoted(comparison.before.label)}, then {quoted(comparison.after.label)}", ""]
    lines += [line for warning in warnings(comparison, quoted) for line in (f"**{warning}**", "")]
    lines += [line for found in findings(comparison) for line in (found, "")]
    worst = changes_grid("", comparison.regressions[:_REGRESSIONS_MAX], weighted).only(*_CHANGES)
    lines += _section("Slower in the second, what costs most first:", worst)
    changes = changes_grid("", comparison.changes, weighted).only(*_CHANGES)
    lines += [*folded(f"{shapes(len(changes.rows))} of both", table(changes)), ""] if changes.rows else []
    lines += _section("Shapes of one directory:", only_grid(comparison))
    lines += _section("What differs in the environment:", differences_grid(comparison))
    return "\n".join(lines)


def _part(part: Part) -> list[str]:
    """The headlines of the shapes of one source, as a table."""
    headings = [Heading(f"{part.source}, against")]
    headings += [Heading(text, right=True) for text in ("shapes", "times as fast", "at worst", "all calls")]
    headings += [Heading(text, right=True) for text in ("faster", "no difference", "slower")]
    rows = []
    for each in part.headlines:
        found = each.totals
        counts = [found.counts[verdict] if each.counts else None for verdict in Verdict]
        ratios = (f"{ratio:.3f}" for ratio in (found.geometric_mean, found.worst, found.all_calls))
        against = Cell(each.reference.meaning, foreign=each.reference.name == "vendor")
        rows.append([against, *cells(found.shapes, *ratios, *counts)])
    lines = [*table(Grid("", headings, rows)), ""] if rows else []
    return [*lines, *([part.table, ""] if part.table else [])]


def _perhaps_folded(summary: str, number: int, grid: Grid) -> list[str]:
    lines = table(grid)
    return [*folded(f"{summary}: {shapes(number)}", lines), ""] if number > _OPEN_MAX else [*lines, ""]


def _section(title: str, grid: Grid) -> list[str]:
    return [title, "", *table(grid), ""] if grid.rows else []


def _without(results: Results) -> int:
    return sum(1 for shape in results.shapes if not shape.best)


def _environment(results: Results) -> list[str]:
    said = {row[0].text: row[1].text for row in environment_grid(results).rows}
    return [", ".join(f"{what}: {quoted(said[what])}" for what in _ENVIRONMENT if what in said)]
