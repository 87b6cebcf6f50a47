"""The main job, for real and small: compile, prove, model, search, table, runtime."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import hktune
from hktune.cli import main
from hktune.core.shipped import SPACE_OF

SHAPES = """
shapes:
  - {name: square, m: 256, n: 256, k: 512}
  - {name: wide, m: 128, n: 512, k: 256}
"""
UNSERVABLE = "  - {name: odd, m: 33, n: 77, k: 19}\n"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for every column of what is printed."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    file = tmp_path / "shapes.yaml"
    file.write_text(SHAPES)
    return file


def tune(shapes: Path, out: Path, *more: str) -> int:
    return main(("tune", "--shapes", str(shapes), "--out", str(out), "--strategy", "random", *more))


def served(out: Path) -> set[str]:
    """The m of every shape that has a proved kernel so far."""
    return {row["m"] for row in rows(out) if row["status"] == "ok"} if (out / "trials.csv").exists() else set()


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_table_whose_kernels_match_torch(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert tune(shapes, out, "--trials", "3") == 0
    assert "square" in capsys.readouterr().out

    frame = pd.read_csv(out / "trials.csv")
    assert len(frame) == 6
    done = frame[frame.status == "ok"]
    assert set(done.source) == {"modelled"}
    assert (done.relative_error < 2.0**-8).all()
    assert done.baseline_us.isna().all()
    entries = json.loads((out / "table.json").read_text())["entries"]
    assert {(entry["m"], entry["n"], entry["k"]) for entry in entries} == {(256, 256, 512), (128, 512, 256)}
    assert {entry["name"] for entry in entries} == {"square", "wide"}
    for entry in entries:
        times = done[(done.m == entry["m"]) & (done.n == entry["n"])].time_us
        assert entry["time_us"] == times.min()

    hktune.load(out, allow_modelled=True)
    generator = torch.Generator().manual_seed(5)
    for m, n, k in ((256, 256, 512), (128, 512, 256)):
        a = torch.randn(m, k, generator=generator).bfloat16()
        bt = torch.randn(n, k, generator=generator).bfloat16()
        torch.testing.assert_close(hktune.matmul(a, bt.T), a @ bt.T, rtol=2.0**-7, atol=2.0**-10 * k**0.5)
    assert hktune.stats().hits == 2


def test_a_checkout_runs_with_its_dependencies_alone(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python tune.py` where hktune itself was never installed, so that no metadata names it."""
    installed = importlib.metadata.distribution

    def without_hktune(name: str) -> importlib.metadata.Distribution:
        if name == "hktune":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_hktune)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("hktune")
    out, built = tmp_path / "out", tmp_path / "built"
    assert tune(shapes, out, "--trials", "1") == 0
    assert main(("table", "build", str(out), "-o", str(built))) == 0
    for folder in (out, built):
        assert json.loads((folder / "table.json").read_text())["hktune"] == hktune.__version__
    assert json.loads((out / "environment.json").read_text())["versions"]["hktune"] == hktune.__version__


def test_a_second_run_goes_on_where_the_first_stopped(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(shapes, out, "--trials", "2")
    before = rows(out)
    tune(shapes, out, "--trials", "2")
    assert rows(out) == before
    tune(shapes, out, "--trials", "4", "--resume")
    after = rows(out)
    assert after[: len(before)] == before
    assert len(after) == 8
    assert len({(row["m"], row["n"], row["k"], row["config_id"]) for row in after}) == 8


def test_equal_seeds_try_equal_configs(shapes: Path, tmp_path: Path) -> None:
    def tried(out: Path, seed: str) -> list[str]:
        tune(shapes, out, "--space", str(space), "--trials", "2", "--workers", "1", "--seed", seed)
        return [row["config_id"] for row in rows(out)]

    # The shipped space without its seeds, which come first in every run: all is the strategy's own.
    space = tmp_path / "unseeded.yaml"
    space.write_text(yaml.safe_dump(yaml.safe_load(SPACE_OF["gfx950"].read_text()) | {"seeds": []}, sort_keys=False))
    shapes.write_text("shapes:\n  - {name: odd, m: 96, n: 96, k: 96}\n")
    first, again, other = tried(tmp_path / "1", "3"), tried(tmp_path / "2", "3"), tried(tmp_path / "3", "4")
    assert first == again
    assert first != other


def test_fresh_sets_the_old_trials_aside(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(shapes, out, "--trials", "1")
    before = (out / "trials.csv").read_bytes()
    tune(shapes, out, "--trials", "1", "--fresh")
    kept = list(out.glob("trials-*.csv"))
    assert [file.read_bytes() for file in kept] == [before]


def test_a_shape_no_config_can_serve_is_a_trial_with_its_reason(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_text(SHAPES + UNSERVABLE)
    assert tune(shapes, tmp_path / "out", "--trials", "1") == 1
    invalid = [row for row in rows(tmp_path / "out") if row["status"] == "invalid"]
    assert [(row["m"], row["time_us"], row["source"]) for row in invalid] == [("33", "", "")]
    assert "no kernel for odd" in capsys.readouterr().out


def test_the_emulated_device_is_one(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(shapes, tmp_path / "out", "--device", "emulated", "--gpus", "2") == 2
    assert capsys.readouterr().err == "hktune: --gpus 2: the emulated device is one; leave it out\n"
