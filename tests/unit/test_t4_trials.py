"""Trials as T4: nothing is lost on the way, and other tools find what they look for."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.store import TrialStore, read_trials
from hktune.store.recordings import load_recordings
from hktune.store.recordings.t4_trials import read_t4_trials, t4_json

RESULTS = Path(__file__).resolve().parents[2] / "results"
RECORDED = RESULTS / "sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs"
SMALL = Problem(64, 128, 256)


def row(number: int, status: Status, time_us: float | None = None, problem: Problem = SMALL, **more: Any) -> Trial:
    config = Config({"block": number, "order": "rows", "eager": number % 2 == 0})
    return Trial(
        number,
        problem.m,
        problem.n,
        problem.k,
        problem.operation,
        config.id,
        config.json,
        status,
        source=Source.MODELLED if time_us else None,
        time_us=time_us,
        **more,
    )


def rows() -> list[Trial]:
    """One of every status."""
    timed = [row(0, Status.OK, 0.1 + 0.2, compile_s=1.1, started_at="2026-11-29T20:57:25+00:00", cache="cold")]
    other = Problem(1, 2, 3)
    failed = [
        row(number, status, detail="two\nlines", quarantined=status is Status.CRASHED, problem=other)
        for number, status in enumerate(Status, start=1)
        if status is not Status.OK
    ]
    return timed + failed


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    TrialStore(tmp_path / "out").extend(rows())
    return tmp_path / "out"


@pytest.mark.parametrize("folder", [RESULTS / "sm90a-nvidia-h200", RESULTS / "gfx950-emulated", RECORDED])
def test_shipped_trials_come_back(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "t4.json"
    trials = read_trials(folder / "trials.csv")
    path.write_bytes(t4_json(trials))
    assert read_t4_trials(path) == trials


def test_others_find_time_validity_and_configuration(directory: Path) -> None:
    """By the words of the schema, version 1.0.0."""
    trials = read_trials(directory / "trials.csv")
    document = json.loads(t4_json(trials))
    assert document["schema_version"] == "1.0.0"
    first, *others = document["results"]
    assert first["configuration"] == {"block": 0, "order": "rows", "eager": True}
    assert first["objectives"] == ["time"]
    assert first["times"]["runtimes"] == [pytest.approx(0.0003)]
    assert first["times"]["compilation"] == pytest.approx(1100)
    [time] = [each for each in first["measurements"] if each["name"] == "time"]
    assert time == {"name": "time", "value": pytest.approx(0.0003), "unit": "ms"}
    assert [(each["invalidity"], each["correctness"]) for each in document["results"]] == [
        ("correct", 1),
        ("constraints", 0),
        ("compile", 0),
        ("constraints", 0),
        ("correctness", 0),
        ("correctness", 0),
        ("timeout", 0),
        ("runtime", 0),
    ]
    assert not any(each["name"] == "time" for result in others for each in result["measurements"])


@pytest.mark.parametrize("name", ["t4.json", "t4.json.gz"])
def test_the_command_writes_what_merge_and_simulate_read(
    tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    assert main(["export", str(directory), "--format", "t4", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 8 trials\n"
    assert path.read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert main(["merge", str(path), "-o", str(tmp_path / "merged")]) == 0
    merged = read_trials(tmp_path / "merged/trials.csv")
    assert {replace(each, trial=0, origin=None) for each in merged} == {each.numbered(0) for each in rows()}
    [recording] = load_recordings(path)
    assert recording.rows == (rows()[0],)
    assert recording.name == f"{path}:64x128x256:bf16.nt"


def test_one_problem_is_what_other_tools_take(tmp_path: Path, directory: Path) -> None:
    path = tmp_path / "one.json"
    assert main(["export", str(directory), "--format", "t4", "--problem", "64x128x256", "-o", str(path)]) == 0
    assert read_t4_trials(path) == rows()[:1]


def test_recordings_are_the_same_as_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "t4.json.gz"
    path.write_bytes(gzip.compress(t4_json(read_trials(RECORDED / "trials.csv"))))
    assert [each.rows for each in load_recordings(path)] == [each.rows for each in load_recordings(RECORDED)]


def changed(name: str, value: object) -> bytes:
    document = json.loads(t4_json(rows()))
    for each in document["results"][0]["measurements"]:
        if each["name"] == name:
            each["value"] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("m", "64", "m is '64', not a whole number"),
        ("m", 0, "m, n and k are at least 1"),
        ("time_us", "fast", "time_us is 'fast', not a number"),
        ("time_us", -1.0, "time_us must be above 0"),
        ("time_us", float("nan"), "time_us"),
        ("operation", "f9.nt", "f9.nt"),
        ("status", "fine", "fine"),
        ("quarantined", 2, "quarantined is 2, not 0 or 1"),
        ("config_id", "0123456789abcdef", "is not the id of the row's config"),
        ("source", None, "source is None, not text"),
    ],
)
def test_what_breaks_a_rule_of_rows_is_one_line(tmp_path: Path, name: str, value: object, rule: str) -> None:
    path = tmp_path / "t4.json"
    path.write_bytes(changed(name, value))
    with pytest.raises(StoreError) as refused:
        read_t4_trials(path)
    assert str(refused.value).startswith(f"{path}: result 0 is no trial (")
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "t4", "--problem", "1x1x1"], "has no trials of 1x1x1 bf16.nt"),
        (["--format", "t4", "--operation", "f16.nt"], "trials are exported whole"),
        (["--problem", "64x128x256"], "a table is exported whole"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["export", str(directory), *words, "-o", str(tmp_path / "x")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_another_tuners_t4_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t4.json"
    path.write_text(json.dumps({"results": [{"configuration": {"a": 1}, "times": {"runtimes": [1.0]}}]}))
    assert main(["merge", str(path), "-o", str(tmp_path / "merged")]) == 2
    assert "is no T4 file of hktune's trials" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()
