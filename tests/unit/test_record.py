"""hktune.record: the shapes a model calls, as `hktune tune` reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn import functional

import hktune
from hktune.errors import ShapesError
from hktune.model import Problem
from hktune.runtime import operators
from hktune.shapes import load_shapes


def bf16(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def recorded(path: Path) -> dict[Problem, float]:
    return {shape.problem: shape.weight for shape in load_shapes(path)}


def test_every_way_to_ask_for_a_product_is_counted_once(tmp_path: Path) -> None:
    x, weight, bias, b = bf16(2, 4, 64), bf16(32, 64), bf16(32), bf16(64, 16)
    path = tmp_path / "shapes.yaml"
    with hktune.record(path) as recorder:
        functional.linear(x, weight)
        functional.linear(input=x, weight=weight, bias=bias)
        functional.linear(x.transpose(0, 1), weight, bias)
        nn.Linear(64, 32, dtype=torch.bfloat16)(x)
        with torch.inference_mode():
            functional.linear(x, weight)
        x[0] @ b
        torch.mm(x[0], b)
        torch.addmm(bias, x[0], weight.T)
        functional.linear(x.float(), weight.float())
        functional.linear(x[:0], weight)
        torch.bmm(x, x.transpose(1, 2))
    assert recorded(path) == {
        Problem(8, 32, 64): 2,
        Problem(8, 32, 64, epilogue="bias"): 3,
        Problem(4, 16, 64): 2,
        Problem(4, 32, 64, epilogue="bias"): 1,
    }
    assert recorder.left_out == {"float32": 1}


def test_backward_passes_are_not_and_autocast_is_as_it_casts(tmp_path: Path) -> None:
    layer = nn.Linear(64, 32)
    with hktune.record(tmp_path / "shapes.yaml"):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.randn(4, 64, requires_grad=True))
        out.sum().backward()
    assert recorded(tmp_path / "shapes.yaml") == {Problem(4, 32, 64, epilogue="bias"): 1}


def test_inner_layers_of_torchs_own_modules_are_seen(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(32, 2, bias=False, batch_first=True, dtype=torch.bfloat16)
    x = bf16(2, 3, 32)
    with hktune.record(tmp_path / "shapes.yaml"):
        attention(x, x, x)
    assert recorded(tmp_path / "shapes.yaml") == {Problem(6, 96, 32): 1, Problem(6, 32, 32): 1}


def test_a_patched_model_is_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    published(tmp_path, trial(Problem(4, 32, 64, epilogue="bias")), trial(Problem(4, 32, 64)))
    table = hktune.load(tmp_path, allow_modelled=True)
    model = nn.Sequential(nn.Linear(64, 32, dtype=torch.bfloat16))
    hktune.patch(model)
    with hktune.record(tmp_path / "shapes.yaml"):
        model(bf16(4, 64))
        hktune.matmul(bf16(4, 64), bf16(32, 64).T)
    assert recorded(tmp_path / "shapes.yaml") == {Problem(4, 32, 64, epilogue="bias"): 1, Problem(4, 32, 64): 1}
    assert table.stats().hits == 2


def test_nothing_to_write_and_nowhere_to_write_it_are_said(tmp_path: Path) -> None:
    with pytest.raises(ShapesError, match=r"no bf16 GEMM was called \(float32: 1\): record a bf16 model"):
        record_float32(tmp_path / "shapes.yaml")
    with pytest.raises(ShapesError, match="there is no folder"):
        record_float32(tmp_path / "none" / "shapes.yaml")
    with pytest.raises(ZeroDivisionError), hktune.record(tmp_path / "shapes.yaml"):
        1 / 0  # noqa: B018
    assert not (tmp_path / "shapes.yaml").exists()


def record_float32(path: Path) -> None:
    with hktune.record(path):
        torch.randn(4, 64) @ torch.randn(64, 32)
