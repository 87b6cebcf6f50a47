"""Linears with factors, gates in turn, and outputs in float8: one kernel where the table has it, torch's own functions
of a served product elsewhere. The kernels are gfx950's own, on the emulator; the truth is torch in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import (
    K,
    M,
    N,
    built,
    close,
    finished_table,
    hits,
    launched,
    operands,
    residual,
    row,
    truth,
)
from naive_gemm import EMULATED
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import hktune
from hktune.core.errors import InputError
from hktune.dispatch import write_table
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.tables import build_table

FUSED = ("bf16.nt+silu+gated_interleaved", "bf16.nt+alpha+bias+gelu+beta_residual", "bf16.nt->e4m3+bias+silu")
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    return finished_table(tmp_path, FUSED, wide=True)


def interleaved_weight() -> Tensor:
    """[2N, K]: a row of gates, and one of what it gates, in turn."""
    return torch.randn(2 * N, K, generator=torch.Generator().manual_seed(8)).bfloat16() / 8


def interleaved_truth(x: Tensor, weight: Tensor) -> Tensor:
    return functional.silu(truth(x, weight[0::2], None, None)) * truth(x, weight[1::2], None, None)


def in_float8(exact: Tensor, scale: float) -> Tensor:
    return (exact * scale).float().clamp(-448, 448).to(FLOAT8)


def same_but_few(out: Tensor, right: Tensor) -> None:
    """Equal, but for what is near to halfway between two numbers, and then neighbours."""
    assert out.dtype is FLOAT8
    steps = (out.view(torch.int8).int() - right.view(torch.int8).int()).abs()
    assert steps.max() <= 1
    assert (steps != 0).double().mean() < 0.02


@pytest.mark.parametrize("call", ["hktune", "table"])
def test_one_kernel_does_all_where_the_table_has_it(table: LoadedTable, call: str) -> None:
    where: Any = hktune if call == "hktune" else table
    x, weight, bias = operands()
    wide, added, scale = interleaved_weight(), residual(), torch.tensor(37.5)
    out, count = hits(table, lambda: where.gated_linear(x, wide, interleaved=True))
    assert count == 1
    close(out, interleaved_truth(x, wide).bfloat16())
    ends = {"activation": "gelu", "residual": added, "alpha": -0.625, "beta": 1.75}
    out, count = hits(table, lambda: where.linear(x, weight, bias, **ends))
    assert count == 1
    total = functional.gelu(-0.625 * truth(x, weight, None, None) + bias.double()) + 1.75 * added.double()
    close(out, total.bfloat16())
    ends = {"activation": "silu", "out_dtype": FLOAT8, "out_scale": scale}
    out, count = hits(table, lambda: where.linear(x, weight, bias, **ends))
    assert count == 1
    same_but_few(out, in_float8(truth(x, weight, bias, "silu"), 37.5))


def test_float8_saturates_and_keeps_a_nan(table: LoadedTable) -> None:
    x, weight, bias = operands()
    x = x.clone()
    x[2] = torch.nan
    ends: dict[str, Any] = {"activation": "silu", "out_dtype": FLOAT8, "out_scale": torch.tensor(1e4)}
    out, count = hits(table, lambda: hktune.linear(x, weight, bias, **ends))
    assert count == 1
    assert out[2].float().isnan().all()
    exact = in_float8(truth(x, weight, bias, "silu"), 1e4)
    others = [row for row in range(M) if row != 2]
    assert (out[others].float().abs() == 448).sum() == (exact[others].float().abs() == 448).sum() > 0
    same_but_few(out[others], exact[others])


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_without_a_scale_it_is_1_whatever_torchs_default_dtype(table: LoadedTable, default: torch.dtype) -> None:
    x, weight, bias = operands()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        out, count = hits(table, lambda: hktune.linear(x, weight, bias, activation="silu", out_dtype=FLOAT8))
    finally:
        torch.set_default_dtype(usual)
    assert count == 1
    same_but_few(out, in_float8(truth(x, weight, bias, "silu"), 1.0))


def test_a_scale_of_1_is_made_once(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = operands()

    def call() -> Tensor:
        return hktune.linear(x, weight, bias, activation="silu", out_dtype=FLOAT8)

    def refused(*given: object, **named: object) -> Tensor:
        raise AssertionError(f"a tensor is made of {given} {named}")

    first = call()
    for maker in ("ones", "full", "tensor", "empty"):
        monkeypatch.setattr(torch, maker, refused)
    out, count = hits(table, call)
    assert count == 1
    assert torch.equal(out.view(torch.uint8), first.view(torch.uint8))


@pytest.mark.parametrize("beta", [0, 0.0])
def test_a_beta_of_0_needs_no_residual(table: LoadedTable, beta: float) -> None:
    del table
    x, weight, bias = operands()
    assert torch.equal(hktune.linear(x, weight, bias, beta=beta), hktune.linear(x, weight, bias))


class Seen(TorchDispatchMode):
    """The operators of this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[object] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        self.operators.append(func)
        return func(*args, **(kwargs or {}))


def test_a_factor_that_is_kept_is_not_of_a_pool_of_this_thread(table: LoadedTable) -> None:
    """torch's compiler allocates a thread's memory in a pool while it warms up a graph, and refuses what is left
    there."""
    [place] = [each.place for each in table._places.values() if each]
    with Seen() as seen:
        first, again = place.number(-0.625), place.number(-0.625)
    assert not seen.operators
    assert first is again
    assert (first.item(), first.dtype, first.shape) == (-0.625, torch.float32, ())


BY_PARTS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "alpha alone": lambda x, weight, bias: (
        hktune.linear(x, weight, bias, alpha=0.5), 0.5 * truth(x, weight, None, None) + bias.double(),
    ),
    "beta alone": lambda x, weight, bias: (
        hktune.linear(x, weight, bias, residual=residual(), beta=-2.0),
        truth(x, weight, bias, None) - 2 * residual().double(),
    ),
    "a beta of 0": lambda x, weight, bias: (
        hktune.linear(x, weight, bias, residual=residual() * torch.nan, beta=0.0), truth(x, weight, bias, None),
    ),
    "the usual factors": lambda x, weight, bias: (
        hktune.linear(x, weight, bias, alpha=1.0, beta=1.0), truth(x, weight, bias, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_PARTS)
def test_another_end_is_torchs_of_a_served_product(table: LoadedTable, kind: str) -> None:
    (out, right), count = hits(table, lambda: BY_PARTS[kind](*operands()))
    assert count == 1
    torch.testing.assert_close(out.double(), right, rtol=2e-2, atol=2e-2)


def test_gradients_are_torchs(table: LoadedTable) -> None:
    x, wide = (each.requires_grad_() for each in (operands()[0], interleaved_weight()))
    added = residual().requires_grad_()
    weight, bias = operands()[1:]
    out = hktune.gated_linear(x, wide, interleaved=True)
    out = out + hktune.linear(x, weight, bias, activation="gelu", residual=added, alpha=0.5, beta=3.0)
    out.sum().backward()
    right = [each.detach().double().requires_grad_() for each in (x, wide, added)]
    total = interleaved_truth(right[0], right[1]) + 3.0 * right[2]
    total = total + functional.gelu(0.5 * truth(right[0], weight, None, None) + bias.double())
    total.sum().backward()
    for found, expected in zip((x, wide, added), right, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=0.05, atol=0.1)


def test_a_compiled_call_is_one_operator(table: LoadedTable) -> None:
    x, weight, bias = operands()
    wide, scale = interleaved_weight(), torch.tensor(20.0)
    graphs: list[str] = []

    def kept(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        del inputs
        graphs.append(graph.code)
        return graph

    def call() -> tuple[Tensor, Tensor, Tensor]:
        first = hktune.gated_linear(x, wide, interleaved=True)
        second = hktune.linear(x, weight, bias, activation="gelu", residual=first, alpha=0.5, beta=2.0)
        return first, second, hktune.linear(x, weight, bias, activation="silu", out_dtype=FLOAT8, out_scale=scale)

    compiled = torch.compile(call, backend=kept, fullgraph=True)
    out, count = hits(table, compiled)
    assert count == 3
    assert graphs[0].count("hktune.linear_finished.default") == 3
    for found, eager in zip(out, call(), strict=True):
        assert torch.equal(found.view(torch.uint8), eager.view(torch.uint8))


def test_what_is_called_is_recorded(table: LoadedTable, tmp_path: Path) -> None:
    x, weight, bias = operands()
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        hktune.gated_linear(x, interleaved_weight(), interleaved=True)
        hktune.linear(x, weight, bias, activation="gelu", residual=residual(), alpha=0.5, beta=2.0)
        hktune.linear(x, weight, bias, activation="silu", out_dtype=FLOAT8)
    assert {str(problem) for problem in recorder.calls} == {f"{M}x{N}x{K} {text}" for text in FUSED}


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        (
            {"out_dtype": torch.float8_e5m2},
            "out_dtype is torch.float8_e5m2: it must be that of x, or torch.float8_e4m3fn",
        ),
        ({"out_scale": torch.tensor(1.0)}, "out_scale is what an output in float8 is multiplied by"),
        ({"out_dtype": FLOAT8, "out_scale": torch.ones(3)}, r"out_scale must be float32, of one element, got \(3,\)"),
        ({"out_dtype": FLOAT8, "out_scale": 2.0}, r"out_scale must be .*, got a float: pass torch.tensor\(2.0\)"),
        ({"alpha": 2.0, "activation": "mish"}, "activation 'mish' is not known"),
        ({"beta": 2.0}, "^beta is 2.0, the factor of a residual, and there is none: pass it, or leave beta out$"),
        ({"beta": -1, "alpha": 0.5, "out_dtype": FLOAT8}, "^beta is -1, the factor of a residual, and there is none"),
    ],
)
def test_anything_else_is_one_line(table: LoadedTable, tmp_path: Path, ends: dict[str, Any], says: str) -> None:
    x, weight, bias = operands()
    with pytest.raises(InputError, match=says):
        hktune.linear(x, weight, bias, **ends)
    with pytest.raises(InputError, match=says):
        table.linear(x, weight, bias, **ends)
    hktune.unload()
    with hktune.record(tmp_path / "shapes.yaml"):
        with pytest.raises(InputError, match=says):
            hktune.linear(x, weight, bias, **ends)
        hktune.linear(x, weight)


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_factors_are_numbers(table: LoadedTable, name: str) -> None:
    del table
    x, weight, bias = operands()
    given = {"residual": torch.ones(len(x), len(weight)).bfloat16(), name: torch.tensor(2.0)}
    with pytest.raises(TypeError, match=rf"^linear\(\): argument '{name}' must be a number, not Tensor: pass {name}"):
        hktune.linear(x, weight, bias, **given)  # type: ignore[arg-type]


SCALED = ("e4m3.nt.rows+bias", "e4m3.nt.tensor")


@pytest.fixture
def scaled_table(tmp_path: Path) -> LoadedTable:
    rows = [row(text) for text in SCALED]
    made = build_table(rows, launched, EMULATED, "clang 22", "0.1.0", "2026-11-30T05:00:00+00:00")
    write_table(made, {hashlib.sha256(built(each).data).hexdigest(): built(each).data for each in SCALED}, tmp_path)
    return hktune.load(tmp_path, allow_modelled=True)


def scaled_operands(scales: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight, _ = operands(torch.float32)
    shapes = ((M, 1), (1, N)) if scales == "rows" else ((), ())
    scale_a, scale_b = (torch.rand(shape, generator=torch.Generator().manual_seed(9)) + 0.5 for shape in shapes)
    return x.to(FLOAT8), weight.to(FLOAT8).t(), scale_a, scale_b


def scaled_truth(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    return (a.double() * scale_a) @ (b.double() * scale_b)


def test_a_scaled_product_may_be_float8_too(scaled_table: LoadedTable) -> None:
    given, bias, scale = scaled_operands("rows"), operands()[2], torch.tensor([55.0])
    out, count = hits(scaled_table, lambda: hktune.scaled_mm(*given, bias, FLOAT8, out_scale=scale))
    assert count == 1
    same_but_few(out, in_float8(scaled_truth(*given) + bias.double(), 55.0))
    given = scaled_operands("tensor")
    out, count = hits(scaled_table, lambda: hktune.scaled_mm(*given, out_dtype=FLOAT8))
    assert count == 1
    same_but_few(out, in_float8(scaled_truth(*given), 1.0))


def test_torchs_own_with_a_scale_of_the_result_is_served_while_that_is_enabled(scaled_table: LoadedTable) -> None:
    """torch divides by it on a CPU."""
    given = scaled_operands("tensor")
    named = {"out_dtype": FLOAT8, "scale_result": torch.tensor(0.25)}
    right = torch._scaled_mm(*given, **named)
    with hktune.enable():
        out, count = hits(scaled_table, lambda: torch._scaled_mm(*given, **named))
        assert count == 1
        same_but_few(out, right)
        same_but_few(torch._scaled_mm(*given), torch._scaled_mm(*given, out_dtype=torch.float32).to(FLOAT8))


def test_a_scaled_product_without_a_row_is_torchs_in_float8(scaled_table: LoadedTable) -> None:
    a, b, scale_a, scale_b = scaled_operands("rows")
    with pytest.warns(FallbackWarning):
        out, count = hits(
            scaled_table, lambda: hktune.scaled_mm(a[:4], b, scale_a[:4], scale_b, out_dtype=FLOAT8, out_scale=scale())
        )
    assert count == 0
    same_but_few(out, in_float8(scaled_truth(a[:4], b, scale_a[:4], scale_b), 12.0))
    with pytest.raises(InputError, match="out_scale is what an output in float8 is multiplied by"):
        hktune.scaled_mm(a, b, scale_a, scale_b, out_scale=scale())


def scale() -> Tensor:
    return torch.tensor(12.0)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_torchs_own_in_float8_is_rounded_once_behind_a_bias_too(scaled_table: LoadedTable) -> None:
    """By a bias of 16 bits rounded to them first, one in 20 would be another number."""
    a, b, scale_a, scale_b = scaled_operands("rows")
    given, bias = (a[:4], b, scale_a[:4], scale_b), operands()[2]
    out, count = hits(scaled_table, lambda: hktune.scaled_mm(*given, bias, FLOAT8, out_scale=scale()))
    assert count == 0
    right = in_float8(scaled_truth(*given) + bias.double(), 12.0)
    assert (out.view(torch.uint8) == right.view(torch.uint8)).all()
    with pytest.raises(InputError, match=r"^scaled_mm: bias must be \[64\], got \[1\]: pass one element "):
        hktune.scaled_mm(*given, bias[:1], FLOAT8)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_where_torch_has_rows_in_bfloat16_alone_that_is_rounded(
    scaled_table: LoadedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on GPUs before sm90 and with ROCm (aten/src/ATen/native/cuda/ScaledBlas.cpp)."""
    torchs = torch._scaled_mm

    def as_there(*given: Any, out_dtype: torch.dtype, **named: Any) -> Tensor:
        if out_dtype is not torch.bfloat16:
            raise ValueError("Only bf16 high precision output types are supported for row-wise scaling.")
        return torchs(*given, out_dtype=out_dtype, **named)

    monkeypatch.setattr(torch, "_scaled_mm", as_there)
    a, b, scale_a, scale_b = scaled_operands("rows")
    given, bias = (a[:4], b, scale_a[:4], scale_b), operands()[2]
    out, count = hits(scaled_table, lambda: hktune.scaled_mm(*given, bias, FLOAT8, out_scale=scale()))
    assert count == 0
    wide = torchs(*given, out_dtype=torch.bfloat16).double()
    assert torch.equal(out.view(torch.uint8), in_float8(wide + bias.double(), 12.0).view(torch.uint8))


ADDMM = "bf16.nn+alpha+beta_residual"


@pytest.fixture
def addmm_table(tmp_path: Path) -> LoadedTable:
    made = build_table([row(ADDMM)], launched, EMULATED, "clang 22", "0.1.0", "2026-11-30T05:00:00+00:00")
    write_table(made, {hashlib.sha256(built(ADDMM).data).hexdigest(): built(ADDMM).data}, tmp_path)
    return hktune.load(tmp_path, allow_modelled=True)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, -1.5), (3, 1), (2, 0.25)])
def test_torchs_sum_with_factors_is_served_while_that_is_enabled(
    addmm_table: LoadedTable, tmp_path: Path, alpha: float, beta: float
) -> None:
    a, b, to = operands()[0], operands()[1].t().contiguous(), residual()
    right = (beta * to.double() + alpha * (a.double() @ b.double())).bfloat16()
    with hktune.enable():
        out, count = hits(addmm_table, lambda: torch.addmm(to, a, b, alpha=alpha, beta=beta))
        assert count == 1
        close(out, right)
        into = torch.full((M, N), torch.nan, dtype=torch.bfloat16)
        assert torch.addmm(to, a, b, alpha=alpha, beta=beta, out=into) is into
        close(into, right)
        assert torch.equal(torch.addmm(to[0], a, b, alpha=0.5, beta=2), torch.addmm(to[:1], a, b, alpha=0.5, beta=2))
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        torch.addmm(to, a, b, alpha=alpha, beta=beta)
    assert {str(problem) for problem in recorder.calls} == {f"{M}x{N}x{K} {ADDMM}"}


def test_a_beta_of_0_reads_nothing(addmm_table: LoadedTable) -> None:
    a, b, to = operands()[0], operands()[1].t().contiguous(), residual() * torch.nan
    with hktune.enable():
        out, count = hits(addmm_table, lambda: torch.addmm(to, a, b, alpha=0.5, beta=0))
    assert count == 0  # there is no row of +alpha
    close(out, (0.5 * (a.double() @ b.double())).bfloat16())
