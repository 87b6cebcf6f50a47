"""Each of the results that come with hktune has a report of what its rows say today, and is reached from a README."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path

import pytest
from results_reports import PICTURE, REPORT, ROOT, SHAPES, directories, report

from hktune.report.results.of_directory import read_results

AGAIN = "python scripts/results_reports.py"


@pytest.mark.parametrize("directory", directories(), ids=str)
def test_a_report_says_what_the_rows_do(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (directory / REPORT).read_text() == report(directory), AGAIN


@pytest.mark.parametrize("directory", [path for path in directories() if str(path) in SHAPES], ids=str)
def test_a_picture_has_every_gain(directory: Path) -> None:
    results = read_results(ROOT / directory)
    (source,) = results.sources
    reference = results.references(source)[0]
    gains = Counter(f"{gain.ratio:.2f}" for shape in results.solved if (gain := reference.gain(shape)))
    svg = (ROOT / directory / PICTURE).read_text()
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]+)</text>", svg)]
    assert Counter(text for text in texts if re.fullmatch(r"\d+\.\d\d", text)) == gains, AGAIN
    assert any(str(source) in text for text in texts)
    assert len(svg) < 100_000


def test_readme_links_to_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for directory in SHAPES:
        assert f"{directory}/{REPORT}" in readme
        own = (ROOT / directory / "README.md").read_text()
        assert f"]({REPORT})" in own
        below = [
            path.relative_to(directory)
            for path in directories()
            if path != Path(directory) and path.is_relative_to(directory)
        ]
        assert all(f"]({path}/{REPORT})" in own for path in below)
    assert re.search(rf"\]: results/\S+/{PICTURE}", readme)
