"""An option that would change nothing where it is given is refused in one line, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from made_up_gpus import H200, find_gpus

import hktune
from hktune.cli import main
from hktune.core.errors import InputError
from hktune.core.settings import Settings
from hktune.store import capture_environment, write_environment
from hktune.tuning.begun_run import begin
from hktune.tuning.callbacks import Callbacks
from hktune.tuning.run_options import RunOptions

SHAPES = "shapes:\n  - {m: 64, n: 256, k: 256}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shapes, and with what a run on an H200 left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes.yaml").write_text(SHAPES)
    (tmp_path / "h200").mkdir()
    write_environment(capture_environment(H200, "nvrtc", None, ["hktune"], 0, "2026-11-30T00:00:00Z"), Path("h200"))
    return tmp_path


EMULATED = ["tune", "--shapes", "shapes.yaml", "--device", "emulated", "--out", "out"]
EXPLAIN, VERIFY = ["explain", "block_m=256"], ["verify", "--kernel", "k.hip"]
COMMANDS: list[tuple[Sequence[str], str]] = [
    ([*EMULATED, "--cache", "warm"], "--cache warm: the emulated device models cold caches: leave it out"),
    ([*EMULATED, "--energy-budget", "5"], "--energy-budget 5: the emulated device takes none: leave it out"),
    ([*EMULATED, "--steady"], "--steady: the emulated device has no power limit: leave it out"),
    ([*EXPLAIN, "--board", "mi350x"], "--board mi350x: is of --time, which is not asked for: leave it out"),
    ([*EXPLAIN, "--calibration", "c"], "--calibration c: is of --time, which is not asked for: leave it out"),
    ([*EXPLAIN, "--hipkittens", "h"], "--hipkittens h: is of --time, which is not asked for: leave it out"),
    ([*EXPLAIN, "--aiter", "a"], "--aiter a: is of --time, which is not asked for: leave it out"),
    ([*VERIFY, "--aiter", "a"], "--aiter a: is for a config, and --kernel k.hip is none: leave it out"),
    (["bench", "--cache", "warm"], "--cache warm: nothing is timed without a problem: pass --problem MxNxK, or leave"),
    (
        ["build", "--space", "sm90a_gemm_bf16", "-o", "built", "--seed", "3"],
        "--seed 3: is of what --random N draws, which is not asked for: leave it out",
    ),
    (
        ["export", "h200", "--format", "t4", "--form", "linear", "-o", "t"],
        "--form linear: is of a module, --format inline, and t4 is none: leave it out",
    ),
    (["export", "h200", "--validators", "v", "-o", "m.py"], "--validators v: is for --format tunableop: leave it out"),
    (["calibrate", "h200", "--kernels", "9"], "--kernels 9: is for trials of an AMD GPU, these are of sm90a: leave it"),
    (["calibrate", "h200", "--board", "mi350x"], "--board mi350x: is for trials of an AMD GPU, these are of sm90a"),
]


@pytest.mark.parametrize(("words", "says"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_it_is_one_line(words: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().iterdir())
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"hktune: {says}")
    assert said.err.count("\n") == 1
    assert not said.out
    assert sorted(Path().iterdir()) == before, "nothing was done"


def test_so_it_is_in_python() -> None:
    for option, value in {"cache": "warm", "energy_budget": 5.0}.items():
        with pytest.raises(InputError, match=r"^--(cache|energy-budget) .*: the emulated device"):
            hktune.tune("shapes.yaml", device="emulated", progress=False, out="out", **{option: value})  # type: ignore[arg-type]


ON_A_GPU: dict[str, tuple[dict[str, Any], str]] = {
    "another vendor's headers": ({"hipkittens": Path("h")}, "--hipkittens h: is for kernels of AMD's GPUs: leave it"),
    "a modelled board": ({"board": "mi350x"}, "--board mi350x is for the emulated device"),
    **{
        f"{name} of no kernel": ({name: value, "vendor_only": True}, f"--vendor-only searches no kernel, and --{name}")
        for name, value in {
            "strategy": "random", "patience": 3, "rivals": ("aiter",), "prior": (Path("h200"),), "prebuilt": Path("b"),
            "candidates": ("triton",), "calibration": Path("c"),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("case", ON_A_GPU)
def test_so_is_what_changes_nothing_on_a_gpu(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
    find_gpus(monkeypatch, 1)
    given, says = ON_A_GPU[case]
    options = RunOptions(Path("shapes.yaml"), device="cuda", out=Path("out"), **given)
    with pytest.raises(InputError, match=f"^{says}"):
        begin(options, Settings(Path("cache")), [], Callbacks(), None)
    assert not Path("out").exists()


def test_what_is_usual_may_be_said_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scripts that pass all that they know: no energy is measured, and caches are cold."""
    options = RunOptions(Path("shapes.yaml"), device="emulated", cache="cold", energy_budget_s=0.0, gpus=1, rivals=())
    assert {"cache", "energy_budget_s"} <= {each.name for each in fields(options)}
    begin(options, Settings(Path("cache")), [], Callbacks(), None)
