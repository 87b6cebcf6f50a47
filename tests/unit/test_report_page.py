"""Pages and Markdown hold what the results say; and no word of a file is ever markup in them."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hktune.cli import main
from hktune.core.errors import StoreError
from hktune.core.escaped import escaped
from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.report.pages import html_page
from hktune.report.pages.comparison_page import comparison_page
from hktune.report.pages.markdown import quoted
from hktune.report.pages.markdown_summary import summary_of, summary_of_two
from hktune.report.pages.report_page import report_page
from hktune.report.results import importance
from hktune.report.results.directory_comparison import compare
from hktune.report.results.of_directory import read_results
from hktune.report.results.results import Results
from tests.made_results import HOSTILE, confirmed, hostile_results, made_trial, many_shapes, measured, stored

pytest.importorskip("plotly", reason="pip install 'hktune[report]'")
pytest.importorskip("jinja2", reason="pip install 'hktune[report]'")

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results"
PROBLEM = Problem(64, 512, 256)


class Seen(HTMLParser):
    """The elements, attributes and text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open[-1:]:
            self.scripts.append(data)
        elif {"td", "th"} & set(self._open):
            self.cells[-1] += data


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotly itself is 5 MB and the same in each page: these have its name alone. And Optuna looks at few trials."""
    monkeypatch.setattr(html_page, "_plotly_js", lambda: "plotly")
    monkeypatch.setattr(importance, "TRIALS_MAX", 100)


def structure(page: bytes) -> tuple[list[str], list[str]]:
    seen = Seen(page.decode())
    return [tag for tag in seen.elements if tag not in ("span", "br")], [name for name, _ in seen.attributes]


def test_hostile_words_are_text() -> None:
    """A page of them has the same elements and attributes as one of plain words; each is in a cell as it was."""
    plain = tuple(f"plain {i}" for i in range(len(HOSTILE)))
    hostile_page, plain_page = report_page(hostile_results()), report_page(hostile_results(plain))
    assert structure(hostile_page)[0] == structure(plain_page)[0]
    assert sorted(structure(hostile_page)[1]) == sorted(structure(plain_page)[1])
    seen = Seen(hostile_page.decode())
    assert {escaped(word) for word in HOSTILE} <= {cell.strip(" ") for cell in seen.cells} | set(seen.cells)
    assert len(seen.scripts) == 3
    figures = json.loads(seen.scripts[0])
    assert "window.broken" in json.dumps(figures)  # they are there, as text
    for text in strings(figures):
        assert "<" not in text.replace("<br>", "").replace("<extra></extra>", "")


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in strings(part)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=3, unique=True))
def test_any_words_are_text(words: list[str]) -> None:
    clean = [word.encode("utf-8", "replace").decode() for word in words]
    page = report_page(hostile_results(clean)).decode()
    seen = Seen(page)
    assert not {"img", "iframe", "object", "embed", "form", "b", "i"} & set(seen.elements)
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert {escaped(word) for word in clean} <= set(seen.cells)
    assert page.isprintable() or not [c for c in page if not c.isprintable() and c != "\n"]


def test_hostile_words_are_text_in_markdown() -> None:
    """As a reader of GitHub's Markdown sees them: markdown-it, whose rules are CommonMark's and tables GitHub's."""
    from markdown_it import MarkdownIt

    read = MarkdownIt("commonmark").enable("table")
    for text in (summary_of(hostile_results()), summary_of_two(compare(hostile_results(), hostile_results()))):
        seen = Seen(read.render(text))
        allowed = {"h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "strong", "details", "summary"}
        assert set(seen.elements) <= allowed
        assert {escaped(word) for word in HOSTILE} <= set(seen.cells)
        assert "@somebody" not in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert rows
    for word in HOSTILE:
        assert "\n" not in quoted(word)


def test_a_page_says_what_the_results_do() -> None:
    results = read_results(SHIPPED / "sm90a-nvidia-h100-80gb-hbm3", ROOT / "shapes-llm.yaml")
    seen = Seen(report_page(results).decode())
    text = " ".join(seen.cells)
    for shape in results.solved:
        assert shape.best is not None
        assert f"{shape.problem.m} x {shape.problem.n} x {shape.problem.k}" in text
        assert shape.best.config_id[:8] in text
        assert shape.name in text
    reference = results.references(Source.MEASURED)[0]
    for shape in results.solved:
        gain = reference.gain(shape)
        assert gain is not None
        assert any(f"{gain.ratio:.3f}" in cell for cell in seen.cells)
    assert "2026-11-23T00:32" in text  # when the environment says that it began
    assert any(cell == "NVIDIA H100 80GB HBM3" for cell in seen.cells)


def test_a_shape_that_was_not_searched_has_no_picture_of_it() -> None:
    """No kernel for sm90a read rows that are no multiple of 16 bytes: 1500 x 1200 x 1100 has algorithms alone."""
    results = read_results(SHIPPED / "sm90a-nvidia-h200")
    page = report_page(results).decode()
    unsearched = [str(shape.problem) for shape in results.shapes if not shape.searched]
    assert unsearched == ["1500x1200x1100 bf16.nt"]
    assert page.count("Search of 1500x1200x1100") == 0
    assert page.count("Search of 1x4096x14336") > 0


def test_measured_and_modelled_shapes_are_apart() -> None:
    """A directory with both: two parts, each with its own figures, and no picture of both but the roofline."""
    modelled = [made_trial(i, PROBLEM, {"block": i}, 10.0 + i) for i in range(5)]
    other = Problem(128, 512, 256)
    both = [*modelled, *(measured(made_trial(5 + i, other, {"block": i}, 20.0 + i), 30.0) for i in range(5))]
    results = Results("both", both)
    assert results.sources == [Source.MEASURED, Source.MODELLED]
    page = report_page(results).decode()
    assert "1 shape whose times are measured" in page
    assert "every time is modelled" in page
    text = summary_of(results)
    assert "| measured, against |" in text
    assert "| modelled, against |" in text


def test_a_time_that_is_modelled_too_is_in_no_measured_curve() -> None:
    rows = [made_trial(i, PROBLEM, {"block": i}, 1.0 + i) for i in range(4)]
    rows += [measured(made_trial(4 + i, PROBLEM, {"block": i}, 50.0 + i), 60.0) for i in range(4)]
    (shape,) = Results("both", rows).shapes
    assert shape.source is Source.MEASURED
    assert [row.source for row in shape.searched] == [Source.MEASURED] * 4


@pytest.mark.parametrize(
    "rows", ["one trial", "all failed", "one confirmed", "all left early", "no shape has a vendor's time"]
)
def test_odd_directories_have_a_report(rows: str, tmp_path: Path) -> None:
    one = made_trial(0, PROBLEM, {"block": 16}, 10.0)
    made = {
        "one trial": [one],
        "all failed": [made_trial(i, PROBLEM, {"block": i}, None, detail="element 0 is wrong") for i in range(3)],
        "one confirmed": [confirmed(measured(one, 12.0))],
        "all left early": [replace(measured(one, 5.0), left_early=True)],
        "no shape has a vendor's time": [one, replace(one, trial=1, time_us=11.0, config_id=one.config_id)],
    }[rows]
    directory = stored(Results("x", made), tmp_path / "run")
    assert main(["report", str(directory), "-o", str(tmp_path / "a.html")]) == 0
    assert main(["report", str(directory), str(directory), "-o", str(tmp_path / "b.html")]) == 0
    assert main(["summary", str(directory), "-o", str(tmp_path / "a.md")]) == 0
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert ("wrong" in page) == (rows == "all failed")


def test_without_trials_there_is_one_line_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(Results("x", []), tmp_path / "none")
    for directory in (tmp_path / "none", tmp_path / "absent"):
        assert main(["report", str(directory), "-o", str(tmp_path / "r.html")]) == 2
        assert main(["summary", str(directory)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 2)
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(StoreError, match="no trials to report"):
        read_results(tmp_path / "none")


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(many_shapes(2), tmp_path / "run")
    assert main(["report", str(directory), "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert main(["report", str(directory), "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_names_and_calls_are_those_of_the_shapes_file(tmp_path: Path) -> None:
    directory = stored(Results("x", [made_trial(0, PROBLEM, {"block": 16}, 10.0)]), tmp_path / "run")
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(
        "shapes:\n- {name: mine, m: 64, n: 512, k: 256, weight: 7}\n- {name: untried, m: 1, n: 1, k: 8}\n"
    )
    results = read_results(directory, shapes)
    assert [(shape.name, shape.weight, len(shape.rows)) for shape in results.shapes] == [
        ("mine", 7.0, 1),
        ("untried", 1.0, 0),
    ]
    assert "nothing was tried" in report_page(results).decode()


def test_two_directories_say_what_is_slower_and_what_it_costs() -> None:
    def run(times_us: list[float], vendor_us: float = 100.0) -> Results:
        problems = [Problem(16 << i, 512, 256) for i in range(len(times_us))]
        rows = [
            measured(made_trial(i, p, {"b": i}, t), vendor_us)
            for i, (p, t) in enumerate(zip(problems, times_us, strict=True))
        ]
        return Results("run", rows, weights={p: 10.0**i for i, p in enumerate(problems)})

    found = compare(run([10.0, 10.0, 10.0, 10.0]), run([20.0, 10.05, 11.0, 5.0]))
    assert [change.after.problem.m for change in found.regressions] == [64, 16]  # 100 calls at 1 us, 1 call at 10
    assert [round(change.lost_us, 3) for change in found.regressions] == [100.0, 10.0]
    assert found.totals is not None
    assert found.totals.geometric_mean == pytest.approx((0.5 * (10 / 10.05) * (10 / 11) * 2) ** 0.25)
    before_us, after_us = 10 * 1111.0, 20 + 100.5 + 1100 + 5000
    assert found.totals.all_calls == pytest.approx(before_us / after_us)
    # Rounds at another clock: the vendor's library took twice as long too, so nothing changed.
    assert compare(run([10.0]), run([20.0], vendor_us=200.0)).regressions == []
    page = comparison_page(found).decode()
    assert page.index("64x512x256") < page.index("16x512x256")


def test_measured_and_modelled_are_not_compared() -> None:
    modelled = Results("a", [made_trial(0, PROBLEM, {"b": 1}, 10.0)])
    timed = Results("b", [measured(made_trial(0, PROBLEM, {"b": 1}, 30.0), 40.0)])
    found = compare(modelled, timed)
    assert (found.totals, found.regressions, len(found.differing_sources)) == (None, [], 1)
    assert "not compared" in comparison_page(found).decode()
    assert "not compared" in summary_of_two(found)


def test_two_devices_are_said() -> None:
    two = compare(read_results(SHIPPED / "gfx950-emulated"), read_results(SHIPPED / "gfx950-emulated-mi350x"))
    assert two.of_unlike_devices
    assert "The devices differ (emulated MI355X, then emulated MI350X)" in comparison_page(two).decode()
    assert two.totals is not None
    assert two.totals.geometric_mean == pytest.approx(1 / 1.12, abs=0.005)  # results/gfx950-emulated/README.md


def test_a_page_is_small_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page = report_page(many_shapes(60, trials_each=240))
    assert len(page) < 6e6
    seen = Seen(page.decode())
    assert [
        value for name, value in seen.attributes if name in ("src", "href") and not value.startswith(("#", "data:"))
    ] == []
