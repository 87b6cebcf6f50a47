"""Every command that reads results knows rows and entries of algorithms of the vendor's library."""

from __future__ import annotations

from pathlib import Path

import pytest
from naive_gemm import algorithm_trial, published, trial

from hktune.cli import main
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.store import TrialStore, read_trials
from hktune.store.recordings import load_recordings
from hktune.tables.differences import differences

KERNEL, BOTH = Problem(8, 128, 64), Problem(64, 128, 64)
ALGORITHM = VendorAlgorithm("cublasLt", "130100", "0a" * 64, "id=66 tile=20", 1 << 25)
NAME = "cublasLt 130100 id=66 tile=20"
ID = ALGORITHM.config.id


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two shapes, one of which an algorithm is best at."""
    made = tmp_path / "run"
    vendor = {"baseline": "cuBLAS of CUDA 13", "baseline_us": 9.0}
    rows = [trial(KERNEL, 4.0, **vendor), trial(BOTH, 4.0, **vendor), algorithm_trial(BOTH, ALGORITHM, 2.0, **vendor)]
    TrialStore(made).extend(rows)
    published(made, *rows)
    return made


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out + err


def test_show(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "table", "show", directory)
    [row] = [line for line in text.splitlines() if NAME in line]
    assert "64" in row
    assert "4.50" in row, "the vendor's default over it"


def test_doctor(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 wrong" in said(capsys, "table", "doctor", directory, "--allow-modelled")


def test_diff(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    newer = VendorAlgorithm("cublasLt", "130200", "0b" * 64, "id=66 tile=24", 1 << 25)
    first = published(directory, trial(KERNEL, 4.0), algorithm_trial(BOTH, ALGORITHM, 2.0))
    second = published(other, trial(KERNEL, 4.0), algorithm_trial(BOTH, newer, 2.0))
    assert [each.choice for each in differences(first, second, {}, 1.1).changed] == [False, True]
    text = said(capsys, "table", "diff", directory, other)
    assert f"cublasLt {ID[:8]}" in text
    assert f"cublasLt {newer.config.id[:8]}" in text


def test_summary_and_report(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ID[:8] in said(capsys, "summary", directory)
    said(capsys, "report", directory, "-o", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert NAME in text
    assert "0a" * 64 not in text, "whose bytes nobody reads"


def test_merge_and_t4(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "merge", directory, "-o", tmp_path / "merged")
    merged = read_trials(tmp_path / "merged" / "trials.csv")
    assert sorted(row.library or "" for row in merged) == ["", "", "cublasLt"]
    said(capsys, "export", directory, "--format", "t4", "-o", tmp_path / "t4.json")
    said(capsys, "merge", tmp_path / "t4.json", "-o", tmp_path / "again")
    again = read_trials(tmp_path / "again" / "trials.csv")
    assert [row.config for row in again if row.library] == [ALGORITHM.config.json]


def test_a_search_is_replayed_without_them(directory: Path) -> None:
    recordings = load_recordings(directory)
    assert {row.config_id for each in recordings for row in each.rows} == {trial(KERNEL).config_id}


def test_an_algorithm_is_no_config_of_a_space(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "explain", f"{directory}:{ID[:8]}", code=2)
    assert f"no config of {directory} begins with" in text


def test_vendor_only_without_a_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text("shapes:\n  - {m: 16, n: 512, k: 1024}\n")
    text = said(capsys, "tune", "--shapes", shapes, "--device", "emulated", "--vendor-only", code=2)
    assert text.count("\n") == 1
    assert "--vendor-only: the emulated device has no vendor library" in text
