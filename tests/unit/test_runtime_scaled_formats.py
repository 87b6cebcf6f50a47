"""Products with scales of blocks, of integers and of MX formats by a table. The truth is float64 of the very numbers,
and torch's own where torch has it on the CPU."""

from __future__ import annotations

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
from hktune.core.errors import InputError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.dispatch.calls import CALL_OPERATIONS
from hktune.runtime import FallbackWarning, LoadedTable

M, N, K = 6, 192, 160
E4M3, E8M0, FLOAT4 = torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2
TEXTS = [
    "e4m3.nt.blocks->bf16", "e4m3.nt.blocks->bf16+bias", "e4m3.nt.blocks->f32", "i8.nt->i32", "i8.nt.rows->bf16+bias",
    "i8.nt.rows->bf16", "i8.nt.tensor->f32", "mxfp8.nt->bf16", "mxfp4.nt->bf16+bias",
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Iterable[LoadedTable]:
    published(tmp_path, *(trial(Problem(M, N, K, operation_of(text))) for text in TEXTS))
    yield hktune.load(tmp_path, allow_modelled=True)
    torch._dynamo.reset()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.bfloat16) -> None:
    assert found.dtype is dtype
    rtol = {torch.bfloat16: 2**-7, torch.float32: 2**-18}[dtype]
    torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=64 * rtol)


# ---- blocks


def in_blocks(by_columns: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scales of A as torch wants them, column by column, or row by row."""
    random = draw()
    a, b = (torch.randn(rows, K, generator=random).to(E4M3) for rows in (M, N))
    scale_a, scale_b = torch.rand(M, 2, generator=random) + 0.5, torch.rand(2, 2, generator=random) + 0.5
    return a, b.t(), scale_a.t().contiguous().t() if by_columns else scale_a, scale_b.t()


def of_blocks(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    of_k, of_n = torch.arange(K) // 128, torch.arange(N) // 128
    return (a.double() * scale_a[:, of_k]) @ (b.double() * scale_b[of_k][:, of_n])


def by_functional(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    recipes = functional.ScalingType.BlockWise1x128, functional.ScalingType.BlockWise128x128
    return functional.scaled_mm(a, b, scale_a, recipes[0], scale_b, recipes[1])


@pytest.mark.parametrize("call", [hktune.scaled_mm, by_operator, by_out, by_functional])
@pytest.mark.parametrize("by_columns", [True, False])
def test_scales_of_blocks_are_taken_in_either_order(
    table: LoadedTable, call: Callable[..., Tensor], by_columns: bool
) -> None:
    if call is by_functional and not hasattr(functional, "scaled_mm"):
        pytest.skip("since torch 2.10")
    given = in_blocks(by_columns)
    with hktune.enable():
        close(call(*given), of_blocks(*given))
        close(call(*given), of_blocks(*given))
    assert table.stats().hits == 2
    assert not table.stats().fallbacks


def test_a_kernel_that_has_them_row_by_row_gets_them_so(table: LoadedTable) -> None:
    given = in_blocks()
    with hktune.enable():
        close(torch._scaled_mm(*given, out_dtype=torch.float32), of_blocks(*given), torch.float32)
    close(hktune.scaled_mm(*in_blocks(by_columns=False), out_dtype=torch.float32), of_blocks(*given), torch.float32)
    assert table.stats().hits == 2


def test_one_row_of_blocks_is_in_either_order(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(1, N, K, operation_of("e4m3.nt.blocks->bf16"))))
    served = hktune.load(tmp_path, allow_modelled=True)
    a, b, scale_a, scale_b = in_blocks()
    for strides in ((1, 1), (2, 1)):
        of_row = torch.empty_strided((1, 2), strides).copy_(scale_a[:1])
        close(hktune.scaled_mm(a[:1], b, of_row, scale_b), of_blocks(a, b, scale_a, scale_b)[:1])
    assert served.stats().hits == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (torch.stack([x, x], 2)[:, :, 0], y),
        lambda x, y: (x, y.t().contiguous().t().clone(memory_format=torch.contiguous_format)),
        lambda x, y: (x.double(), y),
    ],
)
def test_scales_in_no_such_order_are_torchs(table: LoadedTable, change: Any) -> None:
    a, b, scale_a, scale_b = in_blocks()
    with pytest.raises(ValueError, match="Invalid scaling configuration"):  # torch has no blocks on the CPU
        hktune.scaled_mm(a, b, *change(scale_a, scale_b))
    assert table.stats().hits == 0


def test_a_nan_scale_of_a_block_is_of_its_row_alone(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = in_blocks()
    scale_a[4, 1] = torch.nan
    with hktune.enable():
        found = torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=torch.bfloat16)
    assert torch.equal(found.isnan().any(1), torch.arange(M) == 4)
    assert found[4].isnan().all()
    assert table.stats().hits == 1


# ---- integers


def integers(few: bool = False) -> tuple[Tensor, Tensor]:
    largest = 128 if not few else 4
    a, b = (torch.randint(-largest, largest, (rows, K), generator=draw(rows), dtype=torch.int8) for rows in (M, N))
    return a, b.t()


def test_torchs_product_of_integers_is_served_while_enabled(table: LoadedTable) -> None:
    a, b = integers()
    a[:2], b[:, :2] = -128, -128  # the largest products
    expected = a.long() @ b.long()
    out = torch.empty(M, N, dtype=torch.int32)
    with hktune.enable():
        assert torch.equal(torch._int_mm(a, b).long(), expected)
        torch._int_mm(a, b, out=out)
        assert torch.equal(out.long(), expected)
        assert table.stats().hits == 2
        assert torch.equal(torch._int_mm(a[:3], b).long(), expected[:3])
        assert torch.equal(torch._int_mm(a, b.contiguous()).long(), expected)
    assert table.stats().fallbacks == {"no entry for the shape": 1, "strides": 1}
    assert torch.equal(torch._int_mm(a, b).long(), expected)
    assert table.stats().hits == 2


def of_kind(kind: str) -> tuple[Tensor, Tensor]:
    shapes = ((M, 1), (1, N)) if kind == "rows" else ((1,), (1,))
    scale_a, scale_b = (torch.rand(shape, generator=draw(7)) / 64 for shape in shapes)
    return scale_a, scale_b


@pytest.mark.parametrize(
    ("kind", "dtype", "has_bias", "serves"),
    [
        ("rows", torch.bfloat16, True, True), ("rows", torch.bfloat16, False, True),
        ("tensor", torch.float32, False, True), ("rows", torch.float32, True, False),
        ("tensor", torch.bfloat16, True, False),
    ],
)  # fmt: skip
def test_integers_with_scales_are_the_kernels_or_torchs_sums(
    table: LoadedTable, kind: str, dtype: torch.dtype, has_bias: bool, serves: bool
) -> None:
    (a, b), scales = integers(), of_kind(kind)
    bias = torch.linspace(-2, 2, N).to(dtype) if has_bias else None
    expected = (a.double() @ b.double()) * scales[0] * scales[1]
    given = (a, b, *scales, bias, dtype)
    if serves:
        found = hktune.scaled_mm(*given)
    else:
        with pytest.warns(FallbackWarning, match="no entry for the shape"):
            found = hktune.scaled_mm(*given)
    close(found, expected if bias is None else expected + bias.double(), dtype)
    assert table.stats().hits == serves


@pytest.mark.parametrize(
    "scales",
    [
        (torch.ones(M), torch.ones(1, N)), (torch.ones(M, 1), torch.ones(N)),
        (torch.ones(M, 1).double(), torch.ones(1, N)), (torch.ones(M, 2), torch.ones(2, 2)),
        (torch.ones(M, 1), torch.ones(1)),
    ],
)  # fmt: skip
def test_scales_of_integers_that_are_of_nothing_are_one_line(table: LoadedTable, scales: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"scales of int8 must be float32, of one element each or \[6, 1\]") as said:
        hktune.scaled_mm(*integers(), *scales)
    assert "\n" not in str(said.value)
    assert not table.stats().fallbacks


@pytest.mark.parametrize(
    ("bias", "dtype", "says"),
    [
        (None, torch.int32, r"out_dtype of int8 with scales must be one of bfloat16, float16, float32, got int32"),
        (None, None, "out_dtype of int8 with scales must be one of .* got None"),
        (torch.ones(N + 1), torch.bfloat16, rf"bias must be \[{N}\], got \[{N + 1}\]"),
        (torch.ones(1), torch.bfloat16, rf"bias must be \[{N}\], got \[1\]"),
    ],
)
def test_an_end_of_integers_that_is_none_is_one_line(table: LoadedTable, bias: Any, dtype: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        hktune.scaled_mm(*integers(), *of_kind("rows"), bias, dtype)
    assert not table.stats().hits


def test_a_nan_scale_of_integers_is_of_its_row_alone(table: LoadedTable) -> None:
    scale_a, scale_b = of_kind("rows")
    scale_a[3] = torch.nan
    found = hktune.scaled_mm(*integers(), scale_a, scale_b)
    assert torch.equal(found.isnan(), (torch.arange(M) == 3)[:, None].expand(M, N))
    assert table.stats().hits == 1


# ---- MX formats


def powers(*shape: int) -> Tensor:
    return torch.randint(124, 130, shape, generator=draw(3), dtype=torch.uint8).view(E8M0)


def widened(numbers: Tensor) -> Tensor:
    """As float64; of four bits the low ones are the first (OCP Microscaling Formats 1.0, 5.3.3)."""
    if numbers.dtype is not FLOAT4:
        return numbers.double()
    codes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
    bits = numbers.view(torch.uint8).long()
    return torch.stack([codes[bits & 15], codes[bits >> 4]], -1).flatten(1).double()


def of_mx(numbers: Tensor, scale: Tensor) -> Tensor:
    return widened(numbers) * scale.double().repeat_interleave(32, 1)


def mx(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, and b as it is stored."""
    if dtype is FLOAT4:
        a, b = (torch.randint(256, (rows, K // 2), generator=draw(rows), dtype=torch.uint8) for rows in (M, N))
        return a.view(FLOAT4), b.view(FLOAT4), powers(M, K // 32), powers(N, K // 32)
    a, b = (torch.randn(rows, K, generator=draw(rows)).to(dtype) for rows in (M, N))
    return a, b, powers(M, K // 32), powers(N, K // 32)


@pytest.mark.parametrize("dtype", [E4M3, FLOAT4])
def test_a_product_of_an_mx_format_is_the_kernels(table: LoadedTable, dtype: torch.dtype) -> None:
    a, b, scale_a, scale_b = mx(dtype)
    bias = torch.linspace(-2, 2, N, dtype=torch.bfloat16) if dtype is FLOAT4 else None
    expected = of_mx(a, scale_a) @ of_mx(b, scale_b).t() + (0 if bias is None else bias.double())
    close(hktune.scaled_mm(a, b.t(), scale_a, scale_b, bias), expected)
    with hktune.enable():
        close(torch._scaled_mm(a, b.t(), scale_a, scale_b, bias=bias, out_dtype=torch.bfloat16), expected)
    assert table.stats().hits == 2


def test_a_nan_scale_of_an_mx_format_is_of_its_row_alone(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = mx(E4M3)
    scale_a.view(torch.uint8)[2, 1] = 255
    found = hktune.scaled_mm(a, b.t(), scale_a, scale_b)
    assert torch.equal(found.isnan(), (torch.arange(M) == 2)[:, None].expand(M, N))
    assert table.stats().hits == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b, x, y: (a[:4], b, x[:4], y),
        lambda a, b, x, y: (a, b, x.view(torch.uint8).t().contiguous().view(E8M0).t(), y),
    ],
)
def test_what_no_kernel_has_of_an_mx_format_is_one_line(table: LoadedTable, change: Any) -> None:
    a, b, scale_a, scale_b = mx(E4M3)
    given = change(a, b.t(), scale_a, scale_b)
    with pytest.raises(InputError, match=r"are served by kernels of gfx950, no entry here is of \dx192x160") as said:
        hktune.scaled_mm(*given)
    assert "\n" not in str(said.value)
    assert table.stats().hits == 0


@pytest.mark.parametrize("change", [lambda x, y: (x, y.t()), lambda x, y: (x.float(), y), lambda x, y: (x[:, :2], y)])
def test_other_scales_of_an_mx_format_are_torchs_error(table: LoadedTable, change: Any) -> None:
    a, b, scale_a, scale_b = mx(E4M3)
    with pytest.raises((ValueError, RuntimeError)):
        hktune.scaled_mm(a, b.t(), *change(scale_a, scale_b))
    assert table.stats().hits == 0


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_no_rows_of_an_mx_format_make_none(table: LoadedTable) -> None:
    a, b, scale_a, scale_b = mx(E4M3)
    found = hktune.scaled_mm(a[:0], b.t(), scale_a[:0], scale_b)
    assert (found.shape, found.dtype) == ((0, N), torch.bfloat16)


# ---- programs


def test_compiled_programs_are_served(table: LoadedTable) -> None:
    (a, b), scales, blocks = integers(), of_kind("rows"), in_blocks()

    def program(a: Tensor, b: Tensor, x: Tensor, y: Tensor, *others: Tensor) -> Tensor:
        return hktune.scaled_mm(a, b, x, y).float() + hktune.scaled_mm(*others).float()

    compiled = torch.compile(program, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(a, b, *scales, *blocks), program(a, b, *scales, *blocks))
    assert table.stats().hits == 4


def test_integers_are_recorded_as_they_are_called_without_a_table_too(tmp_path: Path) -> None:
    with hktune.record(tmp_path / "recorded.yaml") as recorder:
        found = hktune.scaled_mm(*integers(), *of_kind("rows"))
    a, b = integers()
    scale_a, scale_b = of_kind("rows")
    close(found, (a.double() @ b.double()) * scale_a.double() * scale_b.double())
    assert {str(problem): count for problem, count in recorder.calls.items()} == {f"{M}x{N}x{K} i8.nt.rows->bf16": 1}


def test_a_recorder_writes_what_can_be_tuned(table: LoadedTable, tmp_path: Path) -> None:
    path, (a, b, scale_a, scale_b) = tmp_path / "recorded.yaml", mx(E4M3)
    with hktune.record(path), hktune.enable():
        hktune.scaled_mm(*in_blocks())
        torch._int_mm(*integers())
        hktune.scaled_mm(*integers(), *of_kind("rows"))
        hktune.scaled_mm(a, b.t(), scale_a, scale_b)
    shapes = load_shapes(path).shapes
    assert {str(each.problem) for each in shapes} == {
        f"{M}x{N}x{K} {text}" for text in ("e4m3.nt.blocks->bf16", "i8.nt->i32", "i8.nt.rows->bf16", "mxfp8.nt->bf16")
    }
    assert all(each.problem.operation in CALL_OPERATIONS for each in shapes)
    assert table.stats().hits == 4
