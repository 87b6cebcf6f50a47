"""A kernel's waves over modelled cycles, as one HTML page."""

from __future__ import annotations

from collections import defaultdict

from hktune.core.arch import Arch
from hktune.emulator.clock.wave_timeline import Timeline, timeline_of
from hktune.report.figures.timeline_figure import timeline_figure
from hktune.report.pages.grid import Cell, Grid, Heading
from hktune.report.pages.html_page import Drawing, page
from hktune.verify.execution_trace import ExecutionTrace

_SECTIONS = (("waves", "Waves"), ("lines", "Cycles by source line"))
_LINES_MAX = 200


def timeline_page(kernel: str, traced: ExecutionTrace, arch: Arch) -> bytes:
    """The page of workgroup 0. Raises InputError where a package that it needs is not here, or a wave did not end."""
    timeline, drawing = timeline_of(traced.trace, arch), Drawing()
    words = {address: f"{place.line} {place.text}".strip() for address, place in traced.places.items()}
    return page(
        "timeline.html.j2",
        drawing,
        title=f"hktune verify: {kernel}",
        lines=[
            "Workgroup 0, alone on one compute unit. Cycles are modelled, none is measured.",
            "A wait begins where the instruction before it was issued.",
        ],
        sections=_SECTIONS,
        figure=drawing.add(timeline_figure(timeline, words)),
        lines_table=lines_grid(timeline, traced),
    )


def lines_grid(timeline: Timeline, traced: ExecutionTrace) -> Grid:
    """What each source line costs a wave, the most first; of code without debug lines, each instruction."""
    clk = defaultdict[str, float](float)
    for address, own in timeline.clk_by_address.items():
        place = traced.places[address]
        clk[place.line or f"{place.offset} {place.text}"] += own
    total = sum(clk.values()) or 1.0
    rows = [
        [Cell(line, foreign=True), Cell(f"{own:.0f}"), Cell(f"{own / total:.1%}")]
        for line, own in sorted(clk.items(), key=lambda item: -item[1])[:_LINES_MAX]
    ]
    headings = [Heading("line", foreign=True), Heading("cycles", right=True), Heading("share", right=True)]
    note = "Cycles from the issue of the instruction before to that of the line's own, the mean of the waves"
    return Grid("Cycles of a wave by source line", headings, rows, note)
