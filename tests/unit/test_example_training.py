"""The training example: one step recorded, and 200 steps served by a table, whose losses are compared with torch's."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch_device import TorchDevice

import hktune
from hktune.core.shapes import load_shapes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRODUCTS = 3 * 5  # of five layers: forward, for the input, for the weight
STEPS = 200


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # products this small are slower in threads, which other tests need
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("training_example", EXAMPLES / "training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "training_example", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_losses_of_200_steps_are_as_near_to_torch_s_as_rounding_leaves_them(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """And those of a kernel that is 2 % wrong are not."""
    job = replace(example.SMALL, width=32, vocabulary=64, tokens=16, learning_rate=1e-2)
    example.record(job, tmp_path / "shapes.yaml")
    shapes = load_shapes(tmp_path / "shapes.yaml")
    assert sum(shape.weight for shape in shapes) == PRODUCTS
    layouts = Counter[str]()
    for shape in shapes:
        layouts[shape.problem.operation.layout] += int(shape.weight)
    assert layouts == {"nt": 5, "nn": 5, "tn": 5}

    published(tmp_path, *(trial(shape.problem, object_sha256=LAYOUTS_SHA256) for shape in shapes))
    device = TorchDevice(factor)
    monkeypatch.setattr(hktune, "load", partial(hktune.load, device=device))
    outcome = example.train(job, STEPS, tmp_path)
    assert len(device.launched) == outcome.stats.hits == PRODUCTS * STEPS
    assert not outcome.stats.fallbacks
    assert len(outcome.by_hktune) == STEPS
    assert outcome.by_torch[-1] < outcome.by_torch[0] / 4
    assert (outcome.apart < 2 * outcome.apart_by_rounding) == (factor == 1)


@pytest.mark.slow  # to compile, prove and emulate
def test_all_of_it_on_the_emulated_device(example: ModuleType, tmp_path: Path) -> None:
    outcome = example.run(replace(example.SMALL, trials=1), 10, tmp_path)
    assert outcome.stats.hits == PRODUCTS * 10
    assert outcome.apart < 2 * outcome.apart_by_rounding
