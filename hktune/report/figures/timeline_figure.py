"""The waves of a workgroup over modelled cycles: what each does, and where in the source."""

from __future__ import annotations

from collections.abc import Mapping

from hktune.emulator.clock.wave_timeline import ACTIVITIES, MEMORY_CLK, Span, Timeline
from hktune.report.figures.figure import BLUE, GREEN, GREY, ORANGE, Figure, Spec, axis, shown_text

_COLOURS = {
    "MFMA": BLUE, "LDS": GREEN, "load": ORANGE, "store": "#9a5fb0", "wait": "rgba(127,127,127,0.35)",
    "barrier": "#c23b4e", "other": GREY,
}  # fmt: skip
_SPANS_MAX = 20_000  # more bars than that no browser draws at ease
_WAVE_PX = 34


def timeline_figure(timeline: Timeline, words: Mapping[int, str]) -> Figure:
    """`words` says of each address what is there: shown where the pointer rests."""
    waves = [_joined(spans) for spans in timeline.waves]
    left = max(1, _SPANS_MAX // max(len(waves), 1))
    cut = any(len(spans) > left for spans in waves)
    waves = [spans[:left] for spans in waves]
    data = [_trace(activity, waves, words) for activity in ACTIVITIES]
    title = f"{len(waves)} waves over {timeline.end_clk} modelled cycles"
    part = f", the first {left} spans of each" if cut else ""
    alt = f"{title}{part}: MFMA, LDS, loads, stores, waits and barriers of each wave. Memory takes {MEMORY_CLK} cycles."
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "xaxis": axis("modelled cycles"),
        "yaxis": axis("", autorange="reversed", type="category"),
    }
    return Figure(f"{title}{part}", alt, [trace for trace in data if trace["x"]], layout, 140 + _WAVE_PX * len(waves))


def _joined(spans: tuple[Span, ...]) -> list[Span]:
    """Neighbours of one kind that touch, as one: they are too short to be seen alone. MFMAs stay apart."""
    joined: list[Span] = []
    for each in spans:
        last = joined[-1] if joined else None
        if last and each.activity == last.activity == "other" and each.start_clk <= last.end_clk:
            joined[-1] = Span("other", last.start_clk, max(last.end_clk, each.end_clk), last.address)
        elif each.end_clk > each.start_clk:
            joined.append(each)
    return joined


def _trace(activity: str, waves: list[list[Span]], words: Mapping[int, str]) -> Spec:
    own = [(number, span) for number, spans in enumerate(waves) for span in spans if span.activity == activity]
    return {
        "type": "bar",
        "orientation": "h",
        "name": activity,
        "marker": {"color": _COLOURS[activity], "line": {"width": 0}},
        "base": [span.start_clk for _, span in own],
        "x": [span.end_clk - span.start_clk for _, span in own],
        "y": [f"wave {number}" for number, _ in own],
        "text": [shown_text(words.get(span.address, "")) for _, span in own],
        "textposition": "none",
        "hovertemplate": "%{y}, cycle %{base}, %{x} cycles<br>%{text}<extra>" + activity + "</extra>",
    }
