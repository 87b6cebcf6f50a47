"""Scaled products of float8 by a table. The truth is torch's own product on the CPU, and float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from scaled_calls import by_operator, by_out
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.dispatch.calls import CALL_OPERATIONS
from hktune.runtime import FallbackWarning, LoadedTable

M, N, K = 6, 64, 32
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-20}
TEXTS = [
    "e4m3.nt.rows->bf16", "e4m3.nt.rows->bf16+bias", "e4m3.nt.rows->f32", "e4m3.nt.tensor->bf16",
    "e4m3.nt.tensor->f16+bias", "e5m2*e4m3.nt.tensor->f32",
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Iterable[LoadedTable]:
    published(tmp_path, *(trial(Problem(M, N, K, operation_of(text))) for text in TEXTS))
    yield hktune.load(tmp_path, allow_modelled=True)
    torch._dynamo.reset()


def operands(
    scales: str = "rows", a: torch.dtype = E4M3, b: torch.dtype = E4M3, m: int = M, n: int = N, k: int = K
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(m + n + k)
    left, right = (torch.randn(rows, k, generator=random) for rows in (m, n))
    shapes = ((m, 1), (1, n)) if scales == "rows" else ((1,), (1,))
    scale_a, scale_b = (torch.rand(shape, generator=random) + 0.5 for shape in shapes)
    return left.to(a), right.to(b).t(), scale_a, scale_b


def exact(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None = None) -> Tensor:
    product = (a.double() * scale_a) @ (b.double() * scale_b)
    return product if bias is None else product + bias.double()


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype is dtype
    rtol = 2 * EPSILON[dtype]
    torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=8 * rtol)


@pytest.mark.parametrize(
    ("scales", "a", "dtype", "has_bias"),
    [
        ("rows", E4M3, torch.bfloat16, False), ("rows", E4M3, torch.bfloat16, True),
        ("rows", E4M3, torch.float32, False), ("tensor", E4M3, torch.float16, True),
        ("tensor", E5M2, torch.float32, False),
    ],
)  # fmt: skip
def test_a_product_is_torchs_and_is_the_kernels(
    table: LoadedTable, scales: str, a: torch.dtype, dtype: torch.dtype, has_bias: bool
) -> None:
    given, bias = operands(scales, a), torch.linspace(-2, 2, N).to(dtype) if has_bias else None
    found = hktune.scaled_mm(*given, bias, dtype)
    close(found, exact(*given, bias), dtype)
    close(found, torch._scaled_mm(*given, bias=bias, out_dtype=dtype), dtype)
    assert table.stats().hits == 1
    close(hktune.scaled_mm(*given, bias, dtype, use_fast_accum=True), found, dtype)
    assert table.stats().hits == 2, "what may be fast may be exact"


Call = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def by_functional(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    recipe = functional.ScalingType.RowWise
    return functional.scaled_mm(a, b, scale_a, recipe, scale_b, recipe)


@pytest.mark.parametrize("call", [by_operator, by_out, by_functional])
def test_torchs_own_are_served_while_that_is_enabled(table: LoadedTable, call: Call) -> None:
    given = operands()
    if call is by_functional and not hasattr(functional, "scaled_mm"):
        pytest.skip("since torch 2.10")
    expected = call(*given)
    with hktune.enable():
        close(call(*given), expected, torch.bfloat16)
        assert table.stats().hits == 1
    call(*given)
    assert table.stats().hits == 1
    assert not table.stats().fallbacks


def test_a_compiled_program_is_served(table: LoadedTable) -> None:
    given = operands()

    def program(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
        return hktune.scaled_mm(a, b, scale_a, scale_b).float() * 2

    compiled = torch.compile(program, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), program(*given))
    assert table.stats().hits == 2


def test_nan_scales_are_of_their_rows_alone(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = operands()
    scale_a[2], scale_b[0, 5] = torch.nan, torch.nan
    found = hktune.scaled_mm(a, b, scale_a, scale_b)
    expected = torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=torch.bfloat16)
    assert table.stats().hits == 1
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().sum() == N + M - 1


def test_what_is_beyond_the_output_is_infinite_as_in_torch(table: LoadedTable) -> None:
    _, _, scale_a, scale_b = operands("tensor")
    left, right = (torch.full((rows, K), 448.0) for rows in (M, N))
    left[1] = -448.0
    a, b = left.to(E4M3), right.to(E4M3).t()
    bias = torch.zeros(N, dtype=torch.float16)
    found = hktune.scaled_mm(a, b, scale_a, scale_b, bias, torch.float16)
    assert table.stats().hits == 1
    assert torch.equal(found, torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=torch.float16))
    assert found.isinf().all()
    assert (found[1] < 0).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a, b, x, y: (a[:4], b, x[:4], y), "no entry for the shape"),
        (lambda a, b, x, y: (a, b[:, :32], x, y[:, :32]), "no entry for the shape"),
        (lambda a, b, x, y: (torch.stack([a, a], 2)[:, :, 0], b, x, y), "strides"),
        (lambda a, b, x, y: (a, b.float().to(E5M2), x, y), "no entry for the shape"),
        (lambda a, b, x, y: (a, b.t().contiguous().t().clone(memory_format=torch.contiguous_format), x, y), "strides"),
    ],
)
def test_other_operands_are_torchs_in_one_line(table: LoadedTable, change: Any, reason: str) -> None:
    given = change(*operands())
    expected = torch._scaled_mm(*given, out_dtype=torch.bfloat16)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = hktune.scaled_mm(*given)
    assert torch.equal(found, expected)
    assert table.stats().fallbacks == {reason: 1}
    [line] = [str(each.message) for each in said if each.category is FallbackWarning]
    assert reason in line
    assert "\n" not in line


def test_what_torch_refuses_it_refuses_here(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = operands()
    apart = torch.ones(M, 2)[:, :1]
    for other in (apart, scale_a.double(), scale_a.t()):
        with pytest.raises(ValueError, match="Invalid scaling configuration"):
            hktune.scaled_mm(a, b, other, scale_b)
    with pytest.raises((ValueError, RuntimeError)):
        hktune.scaled_mm(a, b[:16], scale_a, scale_b)
    for no_tensor in (None, "a"):
        with pytest.raises(TypeError, match="must be Tensor"):
            hktune.scaled_mm(a, b, no_tensor, scale_b)  # type: ignore[arg-type]
    assert not table.stats().fallbacks, "nothing was served"
    assert table.stats().hits == 0


@pytest.mark.parametrize("dtype", [E4M3, torch.int8])
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_tensor_is_torchs_to_refuse(table: LoadedTable, place: int, dtype: torch.dtype) -> None:
    given: list[Any] = list(operands())
    given[:2] = [each.to(dtype) for each in given[:2]]
    given[place] = None
    with pytest.raises(TypeError, match="must be Tensor, not NoneType"):
        hktune.scaled_mm(*given)
    assert not table.stats().fallbacks


def test_an_output_that_no_kernel_writes_is_torchs(table: LoadedTable) -> None:
    given, wide = operands(), torch.zeros(M, 2 * N, dtype=torch.bfloat16)
    with hktune.enable():
        torch._scaled_mm(*given, out_dtype=torch.bfloat16, out=wide[:, :N])
    close(wide[:, :N], exact(*given), torch.bfloat16)
    assert not wide[:, N:].any()
    assert table.stats().fallbacks == {"strides": 1}


def test_nothing_is_served_where_a_gradient_is_asked(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = operands()
    with pytest.raises((RuntimeError, NotImplementedError)):
        hktune.scaled_mm(a, b, scale_a.requires_grad_(), scale_b).sum().backward()
    assert table.stats().hits == 0


def test_without_a_table_it_is_one_line() -> None:
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune.load\(DIR\) first"):
        hktune.scaled_mm(*operands())


@pytest.mark.parametrize("has_table", [True, False])
def test_a_recorder_writes_what_can_be_tuned(table: LoadedTable, tmp_path: Path, has_table: bool) -> None:
    del table
    if not has_table:
        hktune.unload()
    path, given = tmp_path / "recorded.yaml", operands()
    bias = torch.ones(N, dtype=torch.float16)
    with hktune.record(path) as recorder:
        hktune.scaled_mm(*given)
        torch._scaled_mm(*given, out_dtype=torch.bfloat16, use_fast_accum=True)
        torch._scaled_mm(*operands("tensor"), bias=bias, out_dtype=torch.float16)
        if hasattr(functional, "scaled_mm"):
            by_functional(*given)
        torch._scaled_mm(*operands("tensor"), out_dtype=E4M3, scale_result=torch.tensor(2.0))
        torch._scaled_mm(*operands("tensor"), out_dtype=E5M2)
    shapes = load_shapes(path).shapes
    # On the CPU nothing is less exact: the same operation.
    calls = 3 if hasattr(functional, "scaled_mm") else 2
    assert {(str(each.problem), each.weight) for each in shapes} == {
        (f"{M}x{N}x{K} e4m3.nt.rows->bf16", calls),
        (f"{M}x{N}x{K} e4m3.nt.tensor->f16+bias", 1),
        (f"{M}x{N}x{K} e4m3.nt.tensor", 1),
    }
    assert sum(recorder.left_out.values()) == 1
    assert all(each.problem.operation in CALL_OPERATIONS for each in shapes)
