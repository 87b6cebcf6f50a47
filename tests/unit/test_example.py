"""The example runs as it stands: a model recorded, tuned, loaded, served, and its logits compared."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from hktune.core.shapes import load_shapes

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "transformer.py"


def test_a_transformer_is_recorded_tuned_and_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("transformer_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "transformer_example", example)  # dataclasses look their module up
    spec.loader.exec_module(example)
    outcome = example.run(tmp_path, trials=1)
    assert {shape.weight for shape in load_shapes(tmp_path / "shapes.yaml")} == {1, 2}
    assert (outcome.stats.hits, outcome.stats.fallbacks) == (9, {})
    assert outcome.hktune_error <= 2 * outcome.torch_error
