"""Grouped products of float8 with scales of rows, by a table. The truth is float64 of the very numbers and scales."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import hktune
from hktune.core.errors import InputError, TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import FallbackWarning, LoadedTable, operators, recorded_several, recorder
from hktune.runtime.calls.several_by_torch import by_torch
from hktune.runtime.calls.several_call import SeveralCall
from hktune.tables.findings import examine_table
from hktune.template.template import load_template

SM90A = Path(__file__).parents[2] / "kernels" / "sm90a" / "gemm_bf16"
M, N, K, GROUPS = 24, 32, 64, 4
ENDS = [5, 5, 20, 24]
TEXTS = ["grouped4.e4m3.nt.rows->bf16", "grouped4.e4m3.nt.rows->f32", "batched4.e4m3.nt.rows->bf16"]
FLOAT8 = torch.float8_e4m3fn
Call = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]

needs_grouped = pytest.mark.skipif(
    not hasattr(functional, "scaled_grouped_mm"), reason="torch has no scaled_grouped_mm: 2.10"
)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[LoadedTable]:
    monkeypatch.setattr(operators, "_current", None)
    published(tmp_path, *(trial(Problem(M, N, K, operation_of(text))) for text in TEXTS))
    yield hktune.load(tmp_path, allow_modelled=True)
    hktune.disable()
    torch._dynamo.reset()


def operands(m: int = M, batched: bool = False) -> Call:
    """a, b, scale_a, scale_b and offs of hktune.scaled_grouped_mm."""
    random = torch.Generator().manual_seed(m)
    a = torch.randn((GROUPS, m, K) if batched else (m, K), generator=random).to(FLOAT8)
    b = torch.randn((GROUPS, N, K), generator=random).to(FLOAT8).mT
    scale_a = torch.rand((GROUPS, m) if batched else (m,), generator=random) + 0.5
    scale_b = torch.rand((GROUPS, N), generator=random) + 0.5
    ends = torch.tensor(ENDS, dtype=torch.int32).clamp(max=m)
    return a, b, scale_a, scale_b, None if batched else ends


def exact(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, offs: Tensor | None) -> Tensor:
    wide_a, wide_b = a.double() * scale_a.double()[..., None], b.double() * scale_b.double()[:, None]
    if offs is None:
        return wide_a @ wide_b
    ranges = enumerate(itertools.pairwise([0, *offs.tolist()]))
    return torch.cat([wide_a[first:end] @ wide_b[group] for group, (first, end) in ranges])


def close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.bfloat16) -> None:
    assert found.dtype is dtype
    rtol = 2**-8 if dtype is torch.bfloat16 else 2**-11 if dtype is torch.float16 else 2**-20
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=1e-4)


def test_a_grouped_product_of_float8_is_the_kernels(table: LoadedTable) -> None:
    given = operands()
    close(hktune.scaled_grouped_mm(*given), exact(*given))
    close(hktune.scaled_grouped_mm(*given, out_dtype=torch.float32, use_fast_accum=True), exact(*given), torch.float32)
    all_in_one = (*given[:4], torch.tensor([0, M, M, M], dtype=torch.int32))
    close(hktune.scaled_grouped_mm(*all_in_one), exact(*all_in_one))
    batch = operands(batched=True)
    close(hktune.scaled_grouped_mm(*batch), exact(*batch))
    assert (table.stats().hits, table.stats().fallbacks) == (4, {})


def test_fast_sums_are_for_calls_that_allow_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    published(tmp_path, trial(Problem(M, N, K, operation_of("grouped4.e4m3.nt.rows.fast->bf16"))))
    table, given = hktune.load(tmp_path, allow_modelled=True), operands()
    close(hktune.scaled_grouped_mm(*given, use_fast_accum=True), exact(*given))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    with pytest.warns(FallbackWarning):
        close(hktune.scaled_grouped_mm(*given), exact(*given))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {"no entry for the shape": 1})


def test_matrices_of_a_batch_may_be_anywhere(table: LoadedTable) -> None:
    a, b, scale_a, scale_b, _ = operands(batched=True)
    apart = torch.cat([a.view(torch.uint8)] * 2, 1).view(FLOAT8)[:, :M]
    close(hktune.scaled_grouped_mm(apart, b, scale_a, scale_b), exact(a, b, scale_a, scale_b, None))
    assert table.stats().hits == 1


OTHERS: dict[str, tuple[str, Callable[[Call], Call]]] = {
    "scales apart": ("scales", lambda x: (x[0], x[1], torch.stack([x[2]] * 2, 1)[:, 0], x[3], x[4])),
    "scales by columns": ("scales", lambda x: (x[0], x[1], x[2], x[3].T.contiguous().T, x[4])),
    "weights that are not turned": ("strides", lambda x: (x[0], x[1].contiguous(), *x[2:])),
    "rows apart": ("strides", lambda x: (torch.cat([x[0].view(torch.uint8)] * 2, 1).view(FLOAT8)[:, :K], *x[1:])),
    "numbers that begin anywhere": ("alignment", lambda x: (unaligned(x[0]), *x[1:])),
    "more rows": ("no entry for the shape", lambda x: operands(M + 1)),
    "integers": ("no entry for the shape", lambda x: (as_integers(x[0]), as_integers(x[1].mT).mT, *x[2:])),
    "no rows": ("empty operand", lambda x: (x[0][:0], x[1], x[2][:0], x[3], x[4] * 0)),  # type: ignore[operator]
}


def unaligned(tensor: Tensor) -> Tensor:
    code = tensor.view(torch.uint8).flatten()
    return torch.cat([code[:1], code])[1:].view(tensor.shape).view(FLOAT8)


def as_integers(tensor: Tensor) -> Tensor:
    return (tensor.float() * 16).to(torch.int8)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("other", OTHERS)
def test_what_no_kernel_takes_is_computed_and_counted_by_its_reason(table: LoadedTable, other: str) -> None:
    """torch has no such product on a CPU."""
    reason, made = OTHERS[other]
    given = made(operands())
    assert given[4] is not None
    out = hktune.scaled_grouped_mm(*given)
    assert out.shape == (len(given[0]), N)
    close(out[: given[4][-1]], exact(*given))
    assert (table.stats().hits, table.stats().fallbacks) == (0, {reason: 1})


WRONG: dict[str, tuple[str, str, Callable[[Call], Call]]] = {
    "a scale too few": (
        "scales",
        r"scales must be float32, \[24\] and \[4, 32\], got \[23\] float32 and",
        lambda x: (x[0], x[1], x[2][1:], x[3], x[4]),
    ),
    "a column of scales": (
        "scales",
        r"got \[24, 1\] float32 and \[4, 32\] float32",
        lambda x: (x[0], x[1], x[2][:, None], x[3], x[4]),
    ),
    "one scale": ("scales", r"got \[1\] float32", lambda x: (x[0], x[1], x[2][:1], x[3], x[4])),
    "scales of 16 bits": (
        "scales",
        r"got \[24\] float32 and \[4, 32\] bfloat16",
        lambda x: (x[0], x[1], x[2], x[3].bfloat16(), x[4]),
    ),
    "scales of another number of experts": (
        "scales",
        r"got \[24\] float32 and \[3, 32\]",
        lambda x: (x[0], x[1], x[2], x[3][1:], x[4]),
    ),
    "bf16": (
        "dtype",
        "must both be float8_e4m3fn, or int8, got bfloat16 and bfloat16",
        lambda x: (x[0].bfloat16(), x[1].bfloat16(), *x[2:]),
    ),
    "two formats": (
        "dtype",
        "got float8_e4m3fn and float8_e5m2",
        lambda x: (x[0], x[1].float().to(torch.float8_e5m2), *x[2:]),
    ),
    "no ends": ("operand shapes", r"got \[24, 64\] and \[4, 64, 32\] with no offs", lambda x: (*x[:4], None)),
    "too few ends": ("operand shapes", r"with offs \[3\] int32", lambda x: (*x[:4], x[4][1:])),  # type: ignore[index]
    "64-bit ends": ("dtype", r"with offs \[4\] int64", lambda x: (*x[:4], x[4].long())),  # type: ignore[union-attr]
    "another K": ("operand shapes", r"got \[24, 64\] and \[4, 32, 32\]", lambda x: (x[0], x[1][:, :32], *x[2:])),
    "groups of K": ("scales", r"got \[24, 64\] and \[64, 32\]", lambda x: (x[0], x[1][0], *x[2:])),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(table: LoadedTable, wrong: str) -> None:
    reason, line, made = WRONG[wrong]
    with pytest.warns(FallbackWarning, match=reason), pytest.raises(InputError, match=line) as refused:
        hktune.scaled_grouped_mm(*made(operands()))
    assert "\n" not in str(refused.value)


def test_what_is_no_tensor_is_torchs_to_refuse(table: LoadedTable) -> None:
    a, b, scale_a, _, offs = operands()
    with pytest.raises(TypeError):
        hktune.scaled_grouped_mm(a, b, scale_a, 1.0, offs)  # type: ignore[arg-type]
    assert table.stats().fallbacks == {}


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.0])
def test_scales_out_of_range_are_what_they_are_in_float32(table: LoadedTable, value: float) -> None:
    """A NaN makes its row or its column one, as in torch's products of this kind."""
    a, b, scale_a, scale_b, offs = operands()
    a = a.float().abs().clamp(min=0.5).to(FLOAT8)
    b = b.mT.float().abs().clamp(min=0.5).to(FLOAT8).mT
    scale_a[7] = scale_b[3, 2] = value
    expected = exact(a, b, scale_a, scale_b, offs)
    found = hktune.scaled_grouped_mm(a, b, scale_a, scale_b, offs)
    assert table.stats().hits == 1
    strided = torch.stack([scale_a] * 2, 1)[:, 0]
    for each in (found, hktune.scaled_grouped_mm(a, b, strided, scale_b, offs)):
        torch.testing.assert_close(each.double(), expected, rtol=2**-8, atol=1e-4, equal_nan=True)
    of_row = torch._scaled_mm(a, b[2], scale_a[:, None], scale_b[2][None], out_dtype=torch.bfloat16)[5:20]
    torch.testing.assert_close(found[5:20], of_row, rtol=2**-7, atol=1e-4, equal_nan=True)


def test_no_rows_and_no_experts_with_rows(table: LoadedTable) -> None:
    a, b, scale_a, scale_b, offs = operands()
    assert offs is not None
    for ends in ([0, 0, 0, M], [0, 0, 0, 9], [0, 0, 0, 0]):
        own = torch.tensor(ends, dtype=torch.int32)
        found = hktune.scaled_grouped_mm(a, b, scale_a, scale_b, own)
        close(found[: ends[-1]], exact(a, b, scale_a, scale_b, own))
    assert table.stats().hits == 3


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_of_no_k_all_sums_are_zero(table: LoadedTable) -> None:
    a, b, scale_a, scale_b, offs = operands()
    found = hktune.scaled_grouped_mm(a[:, :0], b[:, :0], scale_a, scale_b, offs)
    assert (found.shape, int(found.count_nonzero())) == ((M, N), 0)
    assert table.stats().fallbacks == {"empty operand": 1}


@needs_grouped
@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_torchs_own_calls_are_served_while_enabled(table: LoadedTable) -> None:
    a, b, scale_a, scale_b, offs = given = operands()
    rows: Any = functional.ScalingType.RowWise
    batch = operands(batched=True)
    with hktune.enable(table):
        close(torch._scaled_grouped_mm(a, b, scale_a, scale_b, offs, use_fast_accum=True), exact(*given))
        by_name = functional.scaled_grouped_mm(a, b, scale_a, rows, scale_b, rows, offs=offs)
        close(by_name, exact(*given))
        close(torch._scaled_grouped_mm(*batch, out_dtype=torch.bfloat16), exact(*batch))
        assert table.stats().hits == 3
        more = operands(M + 1)
        with pytest.raises(NotImplementedError, match="torch has no aten::_scaled_grouped_mm for CPU"):
            torch._scaled_grouped_mm(*more)
        with pytest.raises(NotImplementedError, match="torch has no aten::_scaled_grouped_mm for CPU"):
            torch._scaled_grouped_mm(*given, bias=torch.zeros(N))
        tensors: Any = functional.ScalingType.TensorWise
        with pytest.raises(NotImplementedError, match="torch has no aten::_scaled_grouped_mm_v2 for CPU"):
            functional.scaled_grouped_mm(a, b, scale_a, tensors, scale_b, tensors, offs=offs)
        close(hktune.scaled_grouped_mm(*more)[:M], exact(*more))
    assert (table.stats().hits, table.stats().fallbacks) == (3, {"no entry for the shape": 2})
    with pytest.raises(NotImplementedError):
        torch._scaled_grouped_mm(*given)


def test_a_compiled_model_and_modes_have_the_operator(table: LoadedTable) -> None:
    given = operands()

    def model(*given: Tensor) -> Tensor:
        return hktune.scaled_grouped_mm(*given) * 2

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    close(compiled(*given), 2 * exact(*given))
    with torch.autocast("cpu", torch.bfloat16), torch.device("cpu"):
        close(hktune.scaled_grouped_mm(*given), exact(*given))
    assert table.stats().hits == 2
    operator, checks = torch.ops.hktune.scaled_grouped_mm.default, ("test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, (*given, torch.bfloat16, False), test_utils=checks)
    torch.library.opcheck(operator, (*operands(batched=True), torch.bfloat16, False), test_utils=checks)


@needs_grouped
@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_elsewhere_what_has_no_entry_is_torchs(device: str) -> None:
    """torch's own kernel for tensors without memory, which checks what its GPU kernels check."""
    with FakeTensorMode():
        a, b = (torch.empty(*shape, dtype=FLOAT8, device=device) for shape in ((M, K), (GROUPS, N, K)))
        scale_a, scale_b = torch.empty(M, device=device), torch.empty(GROUPS, N, device=device)
        offs = torch.empty(GROUPS, dtype=torch.int32, device=device)
        call = SeveralCall(a, b.mT, offs, None, scale_a, scale_b, torch.bfloat16)
        out = by_torch(call)
        assert (out.shape, out.dtype, out.device.type) == ((M, N), torch.bfloat16, device)
        gated = by_torch(call._replace(steps=("silu", "gated")))
        assert (gated.shape, gated.dtype, gated.device.type) == ((M, N // 2), torch.bfloat16, device)
        with pytest.raises(RuntimeError, match="Expected scale_a to be 1D tensor, but got 2D tensor"):
            by_torch(call._replace(scale_a=torch.empty(M, 1, device=device)))


def test_a_gpu_has_nothing_to_do_for_no_tokens() -> None:
    with FakeTensorMode():
        a, b = (torch.empty(*shape, dtype=FLOAT8, device="cuda") for shape in ((0, K), (GROUPS, N, K)))
        scale_a, scale_b = torch.empty(0, device="cuda"), torch.empty(GROUPS, N, device="cuda")
        offs = torch.empty(GROUPS, dtype=torch.int32, device="cuda")
        assert by_torch(SeveralCall(a, b.mT, offs, None, scale_a, scale_b, torch.bfloat16)).shape == (0, N)


def test_tensors_without_memory_need_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    given = operands()
    with FakeTensorMode() as mode:
        fakes = [None if each is None else mode.from_tensor(each) for each in given]
        out = hktune.scaled_grouped_mm(*fakes)  # type: ignore[arg-type]
    assert (out.shape, out.dtype) == ((M, N), torch.bfloat16)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("has_table", [False, True])
def test_a_recording_has_experts_of_float8_and_tokens(table: LoadedTable, tmp_path: Path, has_table: bool) -> None:
    given = operands()
    expected = exact(*given)
    if not has_table:
        hktune.unload()
    with hktune.record(tmp_path / "shapes.yaml") as seen:
        for _ in range(2):
            close(hktune.scaled_grouped_mm(*given), expected)
        hktune.scaled_grouped_mm(*operands(batched=True))
        hktune.scaled_grouped_mm(*operands(batched=True), out_dtype=torch.float32)
    shapes = load_shapes(tmp_path / "shapes.yaml")
    weights = {str(shape.problem): shape.weight for shape in shapes}
    assert weights == {"24x32x64 grouped4.e4m3.nt.rows->bf16": 2, "24x32x64 batched4.e4m3.nt.rows->bf16": 1}
    assert [shape.tokens for shape in shapes] == [(), ((0, 2), (4, 2), (5, 2), (15, 2))], "ends are 5, 5, 20, 24"
    assert seen.others == "scaled and grouped in another way: 1", "no template has a batch of float32"


@needs_grouped
def test_torchs_own_calls_are_recorded(table: LoadedTable) -> None:
    a, b, scale_a, scale_b, offs = given = operands()
    rows: Any = functional.ScalingType.RowWise
    with hktune.enable(table), recorder.Recorder() as seen:
        torch._scaled_grouped_mm(*given)
        functional.scaled_grouped_mm(a, b, scale_a, rows, scale_b, rows, offs=offs)
    assert {str(problem): count for problem, count in seen.calls.items()} == {"24x32x64 grouped4.e4m3.nt.rows->bf16": 2}


def test_on_nvidia_experts_of_float8_are_recorded(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its template has no such batches: a file with such is refused."""
    monkeypatch.setattr(recorded_several, "_is_nvidia", lambda tensor: True)
    bias = torch.zeros(GROUPS, N, dtype=torch.bfloat16)
    with recorder.Recorder() as seen:
        hktune.scaled_grouped_mm(*operands())
        hktune.scaled_grouped_mm(*operands(), use_fast_accum=True, out_dtype=torch.float32)
        hktune.scaled_grouped_mm(*operands(), use_fast_accum=True, bias=bias)
        hktune.scaled_grouped_mm(*operands(batched=True))
    assert {str(problem): count for problem, count in seen.calls.items()} == {
        "24x32x64 grouped4.e4m3.nt.rows->bf16": 1,
        "24x32x64 grouped4.e4m3.nt.rows.fast->f32": 1,
        "24x32x64 grouped4.e4m3.nt.rows.fast->bf16+bias": 1,
    }
    assert seen.others == "scaled and grouped in another way: 1"
    template = load_template(SM90A)
    assert all(template.does(problem.operation) for problem in seen.calls)


def test_elsewhere_sums_that_may_be_fast_are_recorded_as_exact_ones(table: LoadedTable) -> None:
    with recorder.Recorder() as seen:
        hktune.scaled_grouped_mm(*operands(), use_fast_accum=True)
    assert [str(problem) for problem in seen.calls] == ["24x32x64 grouped4.e4m3.nt.rows->bf16"]


def test_the_doctor_finds_no_row_that_no_call_reaches(table: LoadedTable, tmp_path: Path) -> None:
    found = examine_table(tmp_path, [], None, {}, allow_modelled=True)
    assert [str(each) for each in found if each.wrong] == []
    table.warm()


def test_without_a_table_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.scaled_grouped_mm(*operands())
