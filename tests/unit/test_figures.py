"""Figures are what plotly takes, and hold what the results say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hktune.core.outcome import Source
from hktune.report.figures.clocks_figure import clocks_figure
from hktune.report.figures.comparison_figure import comparison_figure
from hktune.report.figures.figure import Figure
from hktune.report.figures.gains_figure import gains_figure
from hktune.report.figures.importance_figure import importance_figure
from hktune.report.figures.regret_figure import regret_figure
from hktune.report.figures.roofline_figure import roofline_figure
from hktune.report.figures.search_curve_figure import search_curve_figure
from hktune.report.results.clocks import clocks
from hktune.report.results.curves import curve_of
from hktune.report.results.directory_comparison import compare
from hktune.report.results.importance import Importance, Importances
from hktune.report.results.results import Results
from hktune.report.results.roofline import roofline
from hktune.store import read_environment, read_trials
from hktune.tables import regrets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def h200() -> Results:
    folder = ROOT / "results" / "sm90a-nvidia-h200"
    return Results("h200", read_trials(folder / "trials.csv"), environment=read_environment(folder))


def figures(found: Results) -> list[Figure]:
    seen = clocks(found)
    assert seen is not None
    return [
        *(gains_figure(found, each, Source.MEASURED) for each in found.references(Source.MEASURED)),
        *(search_curve_figure(curve_of(shape)) for shape in found.shapes if shape.searched),
        importance_figure(Importances("t", [Importance("all shapes", 1, 9, {"a": 0.75, "b": 0.25})])),
        roofline_figure(roofline(found)),
        clocks_figure(seen),
        regret_figure(regrets(found.deciding), Source.MEASURED),
        comparison_figure(compare(found, found), Source.MEASURED),
    ]


def test_plotly_takes_them(h200: Results) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="pip install 'hktune[report]'")
    for figure in figures(h200):
        graph_objects.Figure(figure.spec)  # refuses what it does not know
        assert json.loads(json.dumps(figure.spec, allow_nan=False)) is not None
        assert figure.alt
        assert any(len(trace["y"]) for trace in figure.data)


def test_every_axis_of_times_says_what_they_are(h200: Results) -> None:
    for figure in figures(h200):
        axes = [axis["title"]["text"] for axis in (figure.layout["xaxis"], figure.layout["yaxis"])]
        of_times = [text for text in axes if re.search(r"\b(us|TFLOP/s|times? .*|MHz)", text)]
        assert all("measured" in text for text in of_times)
        if not of_times and "mattered" not in figure.title:
            assert "measured" in figure.title


def test_each_shape_is_in_the_picture_once_with_its_gain(h200: Results) -> None:
    reference = h200.references(Source.MEASURED)[0]
    figure = gains_figure(h200, reference, Source.MEASURED)
    drawn = {
        (x, y): text for trace in figure.data for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)
    }
    said = {}
    for shape in h200.solved:
        gain = reference.gain(shape)
        assert gain is not None
        problem = shape.problem
        family = f"{problem.n} x {problem.k}"  # all are of one operation
        said[str(problem.m), family] = f"{gain.ratio:.2f}"
    assert drawn == said


def test_the_curve_ends_at_the_best(h200: Results) -> None:
    for shape in (each for each in h200.shapes if each.searched):
        _, best, *_ = search_curve_figure(curve_of(shape)).data
        assert (best["x"][-1], best["y"][-1]) == (curve_of(shape).trials, 1.0)
        assert best["y"] == sorted(best["y"], reverse=True)
