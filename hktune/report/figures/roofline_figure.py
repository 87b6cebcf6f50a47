"""Every shape's best kernel under what the device can do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hktune.core.outcome import Source
from hktune.report.figures.figure import BLUE, GREEN, INK, SOURCE_SYMBOLS, Figure, Spec, log_axis, shown_text
from hktune.report.results.peak_rates import PeakRates
from hktune.report.results.roofline import Roofline, RooflinePoint

_SOURCE_COLOURS = {Source.MEASURED: BLUE, Source.MODELLED: GREEN}


def roofline_figure(roofline: Roofline) -> Figure:
    """TFLOP/s over the operations for each byte, both logarithmic, with the device's limits where they are known."""
    traces = [trace for source in Source if (trace := _points(source, roofline.points))]
    if roofline.peak and roofline.points:
        traces += [_limit(roofline.peak, bits, roofline.points) for bits in roofline.bits]
    words = " and ".join(source for source in Source if any(each.shape.source is source for each in roofline.points))
    layout = {
        "xaxis": log_axis(
            "FLOP for each byte that must be touched once", [each.flops_per_byte for each in roofline.points]
        ),
        "yaxis": log_axis(f"TFLOP/s, {words}", [each.tflops for each in roofline.points]),
    }
    shares = [point.share for point in roofline.points if point.share]
    reach = f", from {min(shares):.0%} to {max(shares):.0%} of what the device can do" if shares else ""
    alt = f"{len(roofline.points)} shapes by FLOP for each byte and TFLOP/s, {words}{reach}."
    return Figure(f"Roofline, {words}", alt, traces, layout, 420)


def _points(source: Source, points: Sequence[RooflinePoint]) -> Spec | None:
    own = [point for point in points if point.shape.source is source]
    if not own:
        return None
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"best kernels, {source}",
        "x": [round(point.flops_per_byte, 3) for point in own],
        "y": [round(point.tflops, 3) for point in own],
        "hovertext": [_hover(point) for point in own],
        "hoverinfo": "text",
        "marker": {"color": _SOURCE_COLOURS[source], "size": 7, "symbol": SOURCE_SYMBOLS[source]},
    }


def _hover(point: RooflinePoint) -> str:
    share = f"<br>{point.share:.0%} of the limit there" if point.share else ""
    return f"{shown_text(point.shape.label)}<br>{point.tflops:.1f} TFLOP/s, {point.shape.source}{share}"


def _limit(peak: PeakRates, bits: int, points: Sequence[RooflinePoint]) -> Spec:
    """The limit for factors of so many bits: what memory delivers, then what the matrix units do."""
    most, corner = peak.tflops[bits], peak.tflops[bits] / peak.tb_per_s
    seen = [point.flops_per_byte for point in points]
    x = sorted({*(each for each in (min(seen) / 1.5, corner, max(seen) * 1.5) if not math.isinf(each))})
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"limit of {peak.product}: {peak.tb_per_s:g} TB/s, {most:.0f} TFLOP/s of {bits} bits",
        "x": x,
        "y": [min(most, peak.tb_per_s * each) for each in x],
        "line": {"color": INK, "width": 1.5, "dash": "solid" if bits == 16 else "dash"},
        "hoverinfo": "name",
        "hoverlabel": {"namelength": -1},
    }
