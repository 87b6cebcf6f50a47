"""The clock and the power that a GPU had while it was measured."""

from __future__ import annotations

from hktune.report.figures.figure import BLUE, ORANGE, Figure, Spec, axis, shown_text
from hktune.report.results.clocks import Clocks, ShapeClock


def clocks_figure(found: Clocks) -> Figure:
    """Each shape's median clock over its median power; apart, those of which most rows held their clock down."""
    shapes = [each for each in found.shapes if each.power_w is not None]
    held = [each for each in shapes if each.throttled > 0.5]
    free = [each for each in shapes if each.throttled <= 0.5]
    traces = [
        _trace("most rows held their clock down", ORANGE, "square", held),
        _trace("most rows ran at full clock", BLUE, "circle", free),
    ]
    layout = {"xaxis": axis("power, W"), "yaxis": axis("clock, MHz, measured")}
    alt = f"The median clock and power of {len(shapes)} shapes; {len(held)} mostly held their clock down."
    return Figure("Clock and power, measured", alt, [trace for trace in traces if trace["x"]], layout, 340)


def _trace(name: str, colour: str, symbol: str, shapes: list[ShapeClock]) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [each.power_w for each in shapes],
        "y": [each.clock_mhz for each in shapes],
        "hovertext": [_hover(each) for each in shapes],
        "hoverinfo": "text",
        "marker": {"color": colour, "symbol": symbol, "size": 7},
    }


def _hover(each: ShapeClock) -> str:
    held = f", {each.throttled:.0%} held down" if each.throttled else ""
    return (
        f"{shown_text(each.shape.label)}<br>{each.clock_mhz:.0f} MHz, {each.power_w:.0f} W"
        f"<br>medians of {each.rows} rows{held}"
    )
