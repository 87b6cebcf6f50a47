"""Batched and grouped products by a table. The truth is torch's own product, and float64."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import FallbackWarning, LoadedTable, operators

M, N, K, GROUPS = 24, 64, 32, 4
ENDS = [5, 5, 20, 24]
TEXTS = ["grouped4.bf16.nt", "grouped4.bf16.nn", "batched4.bf16.nt", "batched4.bf16.nn"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[LoadedTable]:
    monkeypatch.setattr(operators, "_current", None)
    backward = Problem(M, K, N, operation_of("grouped4.bf16.nn"))
    published(tmp_path, *(trial(Problem(M, N, K, operation_of(text))) for text in TEXTS), trial(backward))
    yield hktune.load(tmp_path, allow_modelled=True)
    hktune.disable()
    torch._dynamo.reset()


def operands(layout: str = "nt", batched: bool = False, m: int = M) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(m)
    a = torch.randn((GROUPS, m, K) if batched else (m, K), generator=random).bfloat16()
    b = torch.randn((GROUPS, N, K) if layout == "nt" else (GROUPS, K, N), generator=random).bfloat16()
    return a, b.mT if layout == "nt" else b, torch.tensor(ENDS, dtype=torch.int32)


def exact(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    firsts = [0, *offsets.tolist()]
    parts = [a[firsts[i] : firsts[i + 1]].double() @ b[i].double() for i in range(GROUPS)]
    return torch.cat(parts)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), expected.double(), rtol=2**-7, atol=2**-4)


@pytest.mark.parametrize("layout", ["nt", "nn"])
def test_a_grouped_product_is_torchs_and_is_the_kernels(table: LoadedTable, layout: str) -> None:
    a, b, offsets = operands(layout)
    found = hktune.grouped_mm(a, b, offsets)
    close(found, exact(a, b, offsets))
    close(found, torch._grouped_mm(a, b, offs=offsets))
    assert table.stats().hits == 1
    all_in_one = torch.tensor([0, 24, 24, 24], dtype=torch.int32)
    close(hktune.grouped_mm(a, b, all_in_one), a.double() @ b[1].double())
    assert table.stats().hits == 2, "one row serves all divisions of M"


def test_gradients_are_torchs(table: LoadedTable) -> None:
    def made() -> tuple[Tensor, Tensor, Tensor]:
        a, b, offsets = operands()
        return a.requires_grad_(), b.mT.contiguous().requires_grad_(), offsets

    (a, weights, offsets), (plain_a, plain_weights, _) = made(), made()
    hktune.grouped_mm(a, weights.mT, offsets).square().sum().backward()
    torch._grouped_mm(plain_a, plain_weights.mT, offs=offsets).square().sum().backward()
    assert table.stats().hits == 2, "the product, and the gradient of a"
    for one, other in ((a, plain_a), (weights, plain_weights)):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad.double(), rtol=2**-5, atol=1.0)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_the_table_does_not_serve_is_torchs(table: LoadedTable) -> None:
    a, b, offsets = operands()
    close(hktune.grouped_mm(a[:20], b, offsets.clamp(max=20)), exact(a[:20], b, offsets.clamp(max=20)))
    strided = torch.cat([a, a], 1)[:, :K]
    close(hktune.grouped_mm(strided, b, offsets), exact(a, b, offsets))
    assert table.stats().hits == 0
    assert table.stats().fallbacks == {"no entry for the shape": 1, "strides": 1}


def test_torchs_own_calls_are_served_while_enabled(table: LoadedTable) -> None:
    a, b, offsets = operands()
    batch, matrices, _ = operands("nn", batched=True)
    expected = torch.bmm(batch, matrices)
    with hktune.enable(table):
        close(torch._grouped_mm(a, b, offs=offsets), exact(a, b, offsets))
        close(torch.bmm(batch, matrices), expected)
        out = torch.empty_like(expected)
        assert torch.bmm(batch, matrices, out=out) is out
        close(out, expected)
        close(
            batch @ operands("nt", batched=True)[1],
            torch.matmul(batch.float(), operands("nt", True)[1].float()).bfloat16(),
        )
        assert table.stats().hits == 4
        torch.bmm(batch[:2], matrices[:2])
    assert table.stats().hits == 4
    torch._grouped_mm(a, b, offs=offsets)
    assert table.stats().hits == 4, "what was there before is there again"


def test_a_compiled_model_is_served_while_enabled(table: LoadedTable) -> None:
    a, b, offsets = operands()

    def model(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
        return hktune.grouped_mm(a, b, offsets) * 2

    with hktune.enable(table):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        close(compiled(a, b, offsets), 2 * exact(a, b, offsets))
    assert table.stats().hits == 1


def test_without_a_table_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.grouped_mm(*operands())


def test_what_is_wrong_is_torchs_to_refuse(table: LoadedTable) -> None:
    a, b, offsets = operands()
    with pytest.raises(RuntimeError), pytest.warns(FallbackWarning, match="operand shapes"):
        hktune.grouped_mm(a, b[:, :16], offsets)


def test_a_recording_has_experts_and_tokens(tmp_path: Path) -> None:
    a, b, offsets = operands()
    batch, matrices, _ = operands("nn", batched=True)
    with hktune.record(tmp_path / "shapes.yaml"):
        for _ in range(3):
            torch._grouped_mm(a, b, offs=offsets)
        torch.bmm(batch, matrices)
    shapes = load_shapes(tmp_path / "shapes.yaml")
    weights = {str(shape.problem): shape.weight for shape in shapes}
    assert weights == {"24x64x32 grouped4.bf16.nt": 3, "24x64x32 batched4.bf16.nn": 1}
