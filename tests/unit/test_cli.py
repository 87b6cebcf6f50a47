"""The command line as a user meets it: one clear line and exit code 2 for everything that is wrong with the input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from naive_gemm import reseal

import hktune
from hktune.cli import main

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results" / "gfx950-emulated"
GOOD_SHAPES = "shapes:\n  - {m: 256, n: 256, k: 512}\n"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command prints."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("hktune: ")
    return err


def tune(shapes: Path, out: Path, *more: str) -> tuple[str, ...]:
    return ("tune", "--shapes", str(shapes), "--out", str(out), *more)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shapes: [", "not YAML"),
        ("- 1\n", "must be a mapping"),
        ("shapes: []\n", "at least one entry"),
        ("shapes:\n  - {m: -256, n: 256, k: 256}\n", "-256"),
        ("shapes:\n  - {m: 0, n: 256, k: 256}\n", "m"),
        ("shapes:\n  - {m: 99999999999, n: 256, k: 256}\n", "99999999999"),
        ("shapes:\n  - {m: 256, n: 256}\n", "k"),
        ("shapes:\n  - {m: 256, n: 256, k: 256, colour: red}\n", "colour"),
        ("shape:\n  - {m: 256, n: 256, k: 256}\n", "shape"),
        ("dtype: int4\nshapes:\n  - {m: 256, n: 256, k: 256}\n", "int4"),
    ],
)
def test_bad_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(text)
    assert said in refused(capsys, *tune(shapes, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("summary", "PATH"),
        ("merge", "PATH", "-o", "merged"),
        ("simulate", "PATH"),
        ("table", "build", "PATH", "-o", "table"),
        ("table", "doctor", str(SHIPPED), "--device", "PATH"),
        ("explain", "--space", "PATH"),
        ("build", "--space", "gfx950_gemm_bf16", "-o", "PATH"),
    ],
)
def test_a_path_that_the_system_does_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """As a folder that this user may not enter, which root enters. A name has at most 255 bytes on Linux."""
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *(word.replace("PATH", "x" * 300) for word in words))
    assert f"{'x' * 300}" in said
    assert "(File name too long): " in said
    assert not list(tmp_path.iterdir())


def test_a_cache_that_the_system_does_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HKTUNE_CACHE", str(tmp_path / ("x" * 300)))
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(GOOD_SHAPES)
    said = refused(capsys, *tune(shapes, tmp_path / "out", "--device", "emulated"))
    assert "(File name too long): give a path that this user can reach" in said


def test_missing_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in refused(capsys, *tune(tmp_path / "nowhere.yaml", tmp_path / "out"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--strategy", "crystal-ball"), "crystal-ball"),
        (("--device", "hip"), "hip"),
        (("--device", "tpu"), "tpu"),
        (("--trials", "0"), "must be an integer from 1 to 1000000000, got '0'"),
        (("--trials", "many"), "many"),
        (("--time-budget", "-1"), "must be a number of seconds from 0.001"),
        (("--space", "nowhere.yaml"), "nowhere.yaml"),
        (("--wrokers", "2"), "--wrokers"),
        (("--resume", "--fresh"), "--fresh"),
        (("--hipkittens", "/nowhere"), "/nowhere"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(GOOD_SHAPES)
    assert said in refused(capsys, *tune(shapes, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_results_directory_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes, out = tmp_path / "shapes.yaml", tmp_path / "out"
    shapes.write_text(GOOD_SHAPES)
    out.write_text("mine")
    assert str(out) in refused(capsys, *tune(shapes, out))
    assert out.read_text() == "mine"


def test_trials_of_somebody_else_are_refused_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(GOOD_SHAPES)
    (tmp_path / "trials.csv").write_text("a,b\n1,2\n")
    assert "columns" in refused(capsys, *tune(shapes, tmp_path))
    assert (tmp_path / "trials.csv").read_text() == "a,b\n1,2\n"


def test_the_version_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hktune", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout == f"hktune {hktune.__version__}\n"


def test_a_parameter_or_value_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "known are" in refused(capsys, "explain", "block_x=256")
    assert "block_m" in refused(capsys, "explain", "block_m=257")


def test_explain_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("explain", "block_m=256", "block_n=256", "k_step=128", "stages=3")
    assert main(words) == 1
    assert "lds_fits: needs lds_bytes=393216, but gfx950 has 163840" in capsys.readouterr().out


def test_table_show_prints_every_shape(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert main(("table", "show", str(SHIPPED))) == 0
    printed = capsys.readouterr().out
    entries = json.loads((SHIPPED / "table.json").read_text())["entries"]
    assert entries
    for entry in entries:
        assert f"{entry['m']}x{entry['n']}x{entry['k']}" in printed
    assert "every time is modelled" in printed
    assert "time is measured" not in printed


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    directory = tmp_path / "table"
    shutil.copytree(SHIPPED, directory)
    return directory


def test_table_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path) in refused(capsys, "table", "show", str(tmp_path))


def test_table_truncated(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = copied / "table.json"
    table.write_bytes(table.read_bytes()[:-200])
    assert "table.json" in refused(capsys, "table", "show", str(copied))


def test_table_of_another_architecture(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reseal(copied, lambda text: text.replace('"gfx950"', '"gfx942"', 1))
    assert "gfx942" in refused(capsys, "table", "show", str(copied))


def test_object_whose_bytes_changed(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = sorted((copied / "objects").iterdir())[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert main(("table", "show", str(copied))) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert damaged.stem in err
