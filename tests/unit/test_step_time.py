"""benchmarks/step_time.py on the emulated device: shapes of several passes in one file, and the same passes served."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from naive_gemm import published, trial

from hktune.core.shapes import load_shapes

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "step_time.py"
SMALL = ["--device", "cpu", "--width", "64", "--layers", "2", "--vocabulary", "96", "--tokens", "1", "8"]
LAYERS = 2 * 4 + 1


@pytest.fixture
def step_time(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("step_time", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.syspath_prepend(str(BENCHMARK.parents[1] / "examples"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_recorded_is_what_is_served(
    step_time: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = tmp_path / "shapes.yaml"
    step_time.main([*SMALL, "--record", str(recorded)])
    shapes = load_shapes(recorded)
    assert sorted({shape.problem.m for shape in shapes}) == [1, 8]
    assert sum(shape.weight for shape in shapes) == 2 * LAYERS
    published(tmp_path / "table", *(trial(shape.problem) for shape in shapes))
    capsys.readouterr()
    step_time.main([*SMALL, "--rounds", "2", str(tmp_path / "table")])
    said = capsys.readouterr().out
    for tokens in (1, 8):
        assert f"\n{tokens} tokens: {LAYERS} of {LAYERS} products by the table" in said
    assert len(re.findall(r"eager .*torch / hktune [\d.]+ \([\d.e+-]+\.\.[\d.e+-]+\)\n", said)) == 2
    assert "host-bound" not in said
    assert "graph" not in said


def test_either_a_directory_or_a_file_to_record_to(step_time: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        step_time.main(SMALL)
    assert "pass either" in capsys.readouterr().err
