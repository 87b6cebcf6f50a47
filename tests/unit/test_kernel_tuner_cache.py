"""Rows as Kernel Tuner's cache: it comes back as the same configs, times and failures, and Kernel Tuner opens it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.operation import BF16_NT
from hktune.core.outcome import Source, Status
from hktune.core.trial import Trial
from hktune.store import TrialStore
from hktune.store.recordings import load_recordings

RECORDED = Path(__file__).resolve().parents[2] / "results/sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs"


def row(number: int, status: Status, time_us: float | None = None, m: int = 64, **more: Any) -> Trial:
    config = Config({"block": number, "order": "rows", "eager": number % 2 == 0})
    source = Source.MEASURED if time_us else None
    ends = {"source": source, "time_us": time_us, "device": "a GPU", "template": "toy"}
    return Trial(number, m, 128, 256, BF16_NT, config.id, config.json, status, **ends, **more)


ROWS = [
    row(0, Status.OK, 300.0, compile_s=1.5, started_at="2026-11-29T20:57:25+00:00"),
    row(1, Status.OK, 250.0),
    row(2, Status.COMPILE_ERROR),
    row(3, Status.OVER_BUDGET),
    row(4, Status.WRONG),
    row(5, Status.TIMEOUT),
]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    TrialStore(tmp_path / "out").extend(ROWS)
    path = tmp_path / "cache.json"
    assert main(["export", str(tmp_path / "out"), "--format", "kernel-tuner", "-o", str(path)]) == 0
    return path


def test_a_cache_says_what_kernel_tuner_asks_of_one(cache: Path) -> None:
    """Header, keys of values as Python writes them, times in ms, failures by name, and the end that it looks for."""
    document = json.loads(cache.read_text())
    assert cache.read_text().endswith("}\n}")
    assert (document["device_name"], document["kernel_name"]) == ("a GPU", "toy")
    assert (document["problem_size"], document["objective"]) == ([64, 128, 256], "time")
    assert document["tune_params_keys"] == ["block", "eager", "order"]
    assert document["tune_params"] == {"block": [0, 1, 2, 3, 4, 5], "eager": [True, False], "order": ["rows"]}
    first = document["cache"]["0,True,rows"]
    assert (first["time"], first["times"], first["compile_time"]) == (0.3, [0.3], 1500.0)
    assert {key: entry.get("__error__") for key, entry in document["cache"].items()} == {
        "0,True,rows": None,
        "1,False,rows": None,
        "2,True,rows": "CompilationFailedConfig",
        "3,False,rows": "InvalidConfig",
        "4,True,rows": "RuntimeFailedConfig",
        "5,False,rows": "RuntimeFailedConfig",
    }


def test_a_cache_comes_back(tmp_path: Path) -> None:
    of_rows = load_recordings(RECORDED)
    for name, recording in zip(("16x4096x4096", "1024x4096x4096"), of_rows, strict=True):
        path = tmp_path / f"{name}.json.gz"
        words = ["--format", "kernel-tuner", "--problem", name, "-o", str(path)]
        assert main(["export", str(RECORDED), *words]) == 0
        assert gzip.decompress(path.read_bytes()).endswith(b"}\n}")
        [back] = load_recordings(path)
        assert {config: each.status for config, each in zip(back.configs, back.rows, strict=True)} == {
            config: each.status for config, each in zip(recording.configs, recording.rows, strict=True)
        }
        times = {config: each.time_us for config, each in zip(back.configs, back.rows, strict=True)}
        assert all(
            times[config] == pytest.approx(each.time_us, rel=1e-12)
            for config, each in zip(recording.configs, recording.rows, strict=True)
        )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS, row(6, Status.OK, 1.0, m=128)], "this has 64x128x256:bf16.nt; 128x128x256:bf16.nt: choose one with"),
        ([*ROWS, row(6, Status.OK, 1.0, template_sha256="1" * 64)], "a cache file is of one problem and one template"),
        (ROWS[2:], "this has none with a time"),
    ],
)
def test_what_is_no_one_cache_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Trial], said: str
) -> None:
    TrialStore(tmp_path / "out").extend(rows)
    assert main(["export", str(tmp_path / "out"), "--format", "kernel-tuner", "-o", str(tmp_path / "x")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert not (tmp_path / "x").exists()


def test_kernel_tuner_itself_reads_it_and_goes_on_from_it(tmp_path: Path, cache: Path) -> None:
    util = pytest.importorskip("kernel_tuner.util", reason="pip install kernel-tuner")
    read = util.read_cache(str(cache), open_cache=False)
    assert sum("__error__" in entry for entry in read["cache"].values()) == 4
    opened = shutil.copy(cache, tmp_path / "opened.json")
    util.read_cache(str(opened), open_cache=True)
    util.store_cache("9,True,rows", {"block": 9, "eager": True, "order": "rows", "time": 0.1}, str(opened), {})
    assert len(util.read_cache(str(opened), open_cache=False)["cache"]) == 7
    assert min(row.time_us or 1e9 for row in load_recordings(Path(opened))[0].rows) == pytest.approx(100.0)
