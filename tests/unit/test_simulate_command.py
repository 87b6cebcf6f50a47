"""`hktune simulate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from hktune.cli import main

RECORDED = Path(__file__).resolve().parents[2] / "results/sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs"


def space_of(count: int) -> dict[str, object]:
    cache = {f"{a},{b}": {"a": a, "b": b, "time": 1.0 + abs(a - 3) + b / 8} for a in range(count) for b in range(8)}
    return {"tune_params_keys": ["a", "b"], "cache": cache}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(space_of(30)))
    return path


def printed_json(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    assert main(["simulate", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_is_one_object_a_line(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed_json(capsys, str(small), "--strategy", "random,hillclimb", "--seeds", "3", "--in-flight", "4")
    assert [(each["recording"], each["strategy"], each["seed"], each["in_flight"]) for each in found] == [
        (str(small), strategy, seed, 4) for strategy in ("random", "hillclimb") for seed in range(3)
    ]
    for each in found:
        shares = each["share"]
        assert isinstance(shares, dict)
        assert list(shares) == ["25", "50", "100", "150"]
        assert all(0 < share <= 1 for share in shares.values())
        assert list(shares.values()) == sorted(shares.values())
        assert isinstance(each["ms_per_ask"], float)
        assert each["configs"] == 240
        assert each["optimum"] == 1000.0  # 1 ms, in us


def test_what_is_found_is_what_the_recording_says(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many trials as configs, all of them are tried, in the list's order."""
    [found] = printed_json(capsys, str(small), "--strategy", "exhaustive", "--seeds", "1", "--trials", "240")
    assert found["share"] == {"25": 1 / 1.0, "50": 1.0, "100": 1.0, "150": 1.0, "240": 1.0}
    assert found["trials_to"] == {"0.01": 25, "0.02": 25}  # a = 3, b = 0 is the 25th


def test_a_person_gets_a_line_for_each_recording_and_the_mean(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(space_of(50)))
    words = [str(small), str(other), "--strategy", "random", "--seeds", "4", "--trials", "60"]
    found = printed_json(capsys, *words)
    assert main(["simulate", *words]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {" ".join(words[: words.index("random")]): words for words in lines if "random" in words}
    assert list(rows) == ["small", "other", "mean of 2"]
    for name, own in {
        "small": found[:4],
        "other": found[4:],
        "mean of 2": found,
    }.items():
        shares = [each["share"]["60"] for each in own]  # type: ignore[index]
        mean, worst = rows[name][rows[name].index("random") + 5 :][:2]
        assert float(mean) == pytest.approx(fmean(shares), abs=5e-4)
        assert float(worst) == pytest.approx(min(shares), abs=5e-4)


def test_of_a_results_directory_each_problem_is_a_recording(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed_json(capsys, str(RECORDED), "--strategy", "random", "--seeds", "1")
    assert [str(each["recording"]).removeprefix(str(RECORDED)) for each in found] == [
        ":16x4096x4096:bf16.nt",
        ":1024x4096x4096:bf16.nt",
    ]
    assert all(each["configs"] == 1100 for each in found)


def test_a_space_gives_its_seeds_and_its_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    """Which were fitted to this GPU: with them the first ten trials are nearly as good as it gets."""
    words = [str(RECORDED), "--strategy", "random", "--seeds", "1", "--trials", "10"]
    without = printed_json(capsys, *words)
    with_space = printed_json(capsys, *words, "--space", "sm90a_gemm_bf16")
    for blind, told in zip(without, with_space, strict=True):
        assert told["share"]["10"] > max(0.98, blind["share"]["10"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.json"], "cannot be read"),
        (["."], "trials.csv: cannot be read"),
        (["small.json", "--strategy", "tpw"], "unknown strategy 'tpw'"),
        (["small.json", "--strategy", "random,"], "unknown strategy ''"),
        (["small.json", "--trials", "0"], "must be an integer from 1"),
        (["small.json", "--seeds", "0"], "must be an integer from 1"),
        (["small.json", "--in-flight", "0"], "must be an integer from 1"),
        (["small.json", "bad.json"], "bad.json: is no JSON"),
        (["small.json", "--space", "sm90a_gemm_bf16"], "none of its configs is legal in sm90a_gemm_bf16"),
        ([], "RECORDING"),
    ],
)
def test_bad_input_is_one_line(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(small.parent)
    (small.parent / "bad.json").write_text("{'cache'")
    assert main(["simulate", *words]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err
    assert len(found.err.splitlines()) == 1
