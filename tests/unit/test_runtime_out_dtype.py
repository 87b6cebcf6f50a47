"""The dtype that a linear is asked for, where autocast or a residual would make it another. The truth is torch's linear
under the same autocast, cast to what was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.errors import InputError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

M, N, K = 4, 64, 32
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture(params=[True, False], ids=["served", "left"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedTable:
    m = M if request.param else 2 * M
    published(tmp_path, *(trial(Problem(m, n, K, operation_of("bf16.nt"))) for n in (N, 2 * N)))
    return hktune.load(tmp_path, allow_modelled=True)


def operands(dtype: torch.dtype = F32, n: int = N) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(2)
    return torch.randn(M, K, generator=chance).to(dtype), torch.randn(n, K, generator=chance).to(dtype) / 8


pytestmark = pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")


def alike(found: Tensor, expected: Tensor) -> None:
    assert found.dtype is expected.dtype
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("out_dtype", [None, F32, BF16])
@pytest.mark.parametrize("where", ["hktune", "table", "record", "compiled"])
def test_what_was_asked_for_holds_under_autocast(
    table: LoadedTable, tmp_path: Path, where: str, out_dtype: torch.dtype | None
) -> None:
    x, weight = operands()
    added = torch.randn(M, N)

    def calls(linear: Any, gated: Any) -> list[Tensor]:
        return [
            linear(x, weight, out_dtype=out_dtype), linear(x, weight, activation="silu", out_dtype=out_dtype),
            linear(x, weight, alpha=0.5, out_dtype=out_dtype), gated(x, weight, out_dtype=out_dtype),
            linear(x, weight, residual=added, out_dtype=out_dtype),
        ]  # fmt: skip

    with torch.autocast("cpu", BF16):
        if where == "record":
            hktune.unload()
            with hktune.record(tmp_path / "shapes.yaml"):
                found = calls(hktune.linear, hktune.gated_linear)
        elif where == "compiled":
            found = torch.compile(calls, backend="eager")(hktune.linear, hktune.gated_linear)
        else:
            on: Any = hktune if where == "hktune" else table
            found = calls(on.linear, on.gated_linear)
        product = functional.linear(x, weight)
        gate, up = product.chunk(2, -1)
        expected = [product, functional.silu(product), product * 0.5, functional.silu(gate) * up, product + added]
    assert [each.dtype for each in expected] == [BF16, BF16, BF16, BF16, F32], "torch's own, with no word"
    for one, other in zip(found, expected, strict=True):
        alike(one, other if out_dtype is None else other.to(out_dtype))


def test_it_holds_without_autocast_and_has_a_gradient(table: LoadedTable) -> None:
    x, weight = operands(BF16)
    out = hktune.linear(x, weight, residual=torch.ones(M, N), out_dtype=BF16)
    alike(out, (functional.linear(x, weight) + torch.ones(M, N)).bfloat16())
    leaf, other = operands()[1].requires_grad_(), operands()[1].requires_grad_()
    with torch.autocast("cpu", BF16):
        out = hktune.linear(operands()[0], leaf, out_dtype=F32)
        functional.linear(operands()[0], other).float().sum().backward()
    assert out.dtype is F32
    out.sum().backward()
    assert leaf.grad is not None
    assert other.grad is not None
    alike(leaf.grad, other.grad)


def test_another_is_refused_under_autocast_too(table: LoadedTable) -> None:
    del table
    x, weight = operands()
    with torch.autocast("cpu", BF16), pytest.raises(InputError, match=r"out_dtype is torch\.float16: it must be"):
        hktune.linear(x, weight, out_dtype=F16)
    with pytest.raises(InputError, match=r"out_dtype is torch\.bfloat16: it must be that of x"):
        hktune.gated_linear(x, weight, out_dtype=BF16)
