"""Two results directories: how many times as fast the second is, shape by shape."""

from __future__ import annotations

from hktune.core.outcome import Source
from hktune.report.figures.figure import COLOURS, SYMBOLS, Figure, Spec, axis, log_axis, shown_text
from hktune.report.results.directory_comparison import Change, Comparison
from hktune.report.results.gains import Verdict

_NAMES = {Verdict.WIN: "faster", Verdict.TIE: "no difference beyond doubt", Verdict.LOSS: "slower"}


def comparison_figure(comparison: Comparison, source: Source) -> Figure:
    """How many times as fast the second's kernels are as the first's, over the first's time; all of `source`."""
    own = [change for change in comparison.changes if change.gain and change.after.source is source]
    traces = [trace for verdict in Verdict if (trace := _trace(verdict, own))["x"]]
    layout = {
        "xaxis": log_axis(f"time in the first, us, {source}", [time_us for trace in traces for time_us in trace["x"]]),
        "yaxis": axis(f"times as fast in the second, {source}"),
    }
    counts = ", ".join(f"{len(trace['x'])} {trace['name']}" for trace in traces)
    alt = f"{len(own)} shapes by their time in the first directory and the change in the second: {counts}."
    return Figure(f"The second against the first, {source}", alt, traces, layout, 380)


def _trace(verdict: Verdict, changes: list[Change]) -> Spec:
    own = [(change, change.gain) for change in changes if change.gain and change.gain.verdict is verdict]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _NAMES[verdict],
        "x": [change.before.best.time_us for change, _ in own if change.before.best],
        "y": [round(gain.ratio, 4) for _, gain in own],
        "hovertext": [
            f"{shown_text(change.after.label)}<br>{gain.ratio:.3f} ({gain.low:.3f}..{gain.high:.3f})"
            for change, gain in own
        ],
        "hoverinfo": "text",
        "marker": {"color": COLOURS[verdict], "symbol": SYMBOLS[verdict], "size": 9},
    }
