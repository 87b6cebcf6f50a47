"""What becomes of scaled products of torch's in a graph that Inductor compiles, and of what is behind them.

The pass runs on graphs as Inductor gets them, which then run as they are, on kernels of the emulator. The truth is
float64, of the numbers in float8 that the model multiplies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from naive_gemm import published, trial
from test_runtime_activations import hits
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch.nn import functional

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable
from hktune.runtime.fusing import scaled_fusion

M, K = 16, 64
FLOAT8 = torch.float8_e4m3fn
TEXTS = [f"e4m3.nt.rows->bf16{steps}" for steps in ("", "+residual", "+silu", "+silu+gated")]
TEXTS += [f"e4m3.nt.tensor->bf16{steps}" for steps in ("", "+residual", "+silu+gated")]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> Iterator[LoadedTable]:
    wide = [Problem(M, 2 * K, K, operation_of("e4m3.nt.rows->bf16"))]
    published(tmp_path, *map(trial, [*wide, *(Problem(M, K, K, operation_of(text)) for text in TEXTS)]))
    torch._dynamo.reset()
    yield hktune.load(tmp_path, allow_modelled=True)
    torch._dynamo.reset()


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(-1, keepdim=True).float() / 448
    return (rows / scale).to(FLOAT8), scale


def by_operator(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=torch.bfloat16)


def by_function(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    row: Any = functional.ScalingType.RowWise  # type: ignore[attr-defined]
    return functional.scaled_mm(a, b, scale_a, row, scale_b, row, bias=bias)  # type: ignore[attr-defined,no-any-return]


def by_hktune(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    return hktune.scaled_mm(a, b, scale_a, scale_b, bias)


class Float8Linear(nn.Module):
    """A weight in float8 with a scale for each row, or one; its input gets such a scale for each row too, or one."""

    product: Callable[..., Tensor] = staticmethod(by_operator)
    is_exact = False

    def __init__(self, out: int = K, has_bias: bool = False, scales: str = "rows") -> None:
        super().__init__()
        weight, scale = quantised(torch.randn(out, K) / 8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Buffer(scale.t().contiguous() if scales == "rows" else torch.tensor(0.003))
        self.bias = nn.Parameter(torch.randn(out).bfloat16(), requires_grad=False) if has_bias else None
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantised(x.reshape(-1, K))
        scale = scale if self.scales == "rows" else torch.tensor(0.01)
        if self.is_exact:
            out = (rows.double() * scale) @ (self.weight.double().t() * self.scale)
            out = out if self.bias is None else out + self.bias.double()
        else:
            out = self.product(rows, self.weight.t(), scale, self.scale, self.bias)
        return out.reshape(*x.shape[:-1], -1)


class Gated(nn.Module):
    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.gate, self.up = Float8Linear(K, *given), Float8Linear(K, *given)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.gate(x)) * self.up(x)


class Whole(nn.Module):
    """Gates and what they gate are one weight, and its halves views of one kind or another."""

    def __init__(self, way: str, scales: str = "rows") -> None:
        super().__init__()
        self.both, self.way = Float8Linear(2 * K, False, scales), way

    def forward(self, x: Tensor) -> Tensor:
        out = self.both(x)
        if self.way == "slices":
            return functional.silu(out[..., :K]) * out[..., K:]
        gate, up = out.chunk(2, -1) if self.way == "chunk" else out.split([K, K], -1)
        return up * functional.silu(gate)


class Residual(nn.Module):
    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.one = Float8Linear(K, *given)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one(functional.rms_norm(x, (K,)))


class Activated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Float8Linear()

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.one(x))


def given() -> Tensor:
    return torch.randn(2, M // 2, K, generator=torch.Generator().manual_seed(4)).bfloat16()


def made(kind: Callable[..., nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(3)
    return kind(*args)


def compiled(model: nn.Module, counts: list[int], takes_apart: bool = True) -> Any:
    """The graph as Inductor gets it, after the pass; `counts` gets how many it made one."""

    def run(module: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        del inputs
        counts.append(scaled_fusion.fuse(module.graph))
        module.recompile()
        return make_boxed_func(module.forward)

    decompositions: Any = select_decomp_table() if takes_apart else {}
    backend = aot_autograd(fw_compiler=run, decompositions=decompositions)
    return torch.compile(model, backend=backend, fullgraph=True, dynamic=False)


def assert_right(out: Tensor, model: nn.Module, x: Tensor) -> None:
    """Once rounded: by half a step of bf16, and what the sums of float32 lose."""
    twin = copy.deepcopy(model)
    for each in twin.modules():
        if isinstance(each, Float8Linear):
            each.is_exact = True
    exact = twin(x)
    assert (out.dtype, exact.dtype) == (torch.bfloat16, torch.float64)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("takes_apart", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: made(Gated), lambda: made(Whole, "chunk"), lambda: made(Whole, "split"), lambda: made(Whole, "slices"),
        lambda: made(Whole, "chunk", "tensor"), lambda: made(Residual), lambda: made(Residual, False, "tensor"),
        lambda: made(Activated),
    ],
    ids=["two", "chunk", "split", "slices", "tensor", "residual", "residual-tensor", "activation"],
)  # fmt: skip
@torch.no_grad()
def test_one_kernel_does_all(table: LoadedTable, make: Callable[[], nn.Module], takes_apart: bool) -> None:
    model, counts = make(), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    with hktune.enable():
        step = compiled(model, counts, takes_apart)
        for _ in range(2):
            out, count = hits(table, lambda: step(given()))
            assert (counts, count) == ([1], 1)
            assert_right(out, model, given())
    assert not table.stats().fallbacks
