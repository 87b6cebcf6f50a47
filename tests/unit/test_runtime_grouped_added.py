"""Grouped products with a bias of each group, and those of groups of K that are added to what is there, by a table. The
truth is float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.errors import InputError, TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import LoadedTable, operators, recorded_several, recorder
from hktune.tables.findings import examine_table

M, N, K, GROUPS = 24, 32, 64, 4
ENDS = [5, 5, 20, 24]
BIASED = ["grouped4.bf16.nt+bias", "grouped4.bf16.nt+bias+silu+gated", "grouped4.bf16.nt"]
ADDED = ["grouped4.bf16.tn->f32+accumulate", "grouped4.bf16.tn+accumulate"]
SCALED = "grouped4.e4m3.nt.rows->bf16+bias"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[LoadedTable]:
    monkeypatch.setattr(operators, "_current", None)
    rows = [Problem(M, N, K, operation_of(text)) for text in (*BIASED, SCALED)]
    of_k = [Problem(K, N, M, operation_of(text)) for text in ADDED]
    published(tmp_path, *map(trial, [*rows, *of_k]))
    yield hktune.load(tmp_path, allow_modelled=True)
    hktune.disable()
    torch._dynamo.reset()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))).bfloat16()


def operands(columns: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a [M, K], weights [G, columns, K], where groups end, and a bias of each."""
    weights = drawn(GROUPS, columns, K) / 8
    return drawn(M, K), weights, torch.tensor(ENDS, dtype=torch.int32), drawn(GROUPS, columns, seed=1)


def ranges(ends: Iterable[int] = ENDS) -> list[tuple[int, int]]:
    return list(itertools.pairwise([0, *ends]))


def exact(a: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    a, weights, bias = (each.double() for each in (a, weights, bias))
    return torch.cat([a[first:end] @ weights[at].T + bias[at] for at, (first, end) in enumerate(ranges())])


def swiglu(product: Tensor) -> Tensor:
    gate, up = product.chunk(2, -1)
    return functional.silu(gate) * up


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=2**-6, atol=2**-6)


def test_a_bias_of_each_group_is_the_kernels_and_rounds_once(table: LoadedTable) -> None:
    a, weights, offsets, bias = operands()
    found = hktune.grouped_mm(a, weights.mT, offsets, bias=bias)
    expected = exact(a, weights, bias)
    close(found, expected)
    assert (found != expected.bfloat16()).float().mean() < 0.02, "one rounding of sums in float32"
    apart = torch.stack([bias, -bias], 1)[:, 0]
    assert not apart.is_contiguous()
    assert torch.equal(hktune.grouped_mm(a, weights.mT, offsets, bias=apart), found)
    assert (table.stats().hits, table.stats().fallbacks) == (2, {})


def test_a_bias_before_gates_is_the_kernels(table: LoadedTable) -> None:
    a, weights, offsets, bias = operands(2 * N)
    close(hktune.gated_grouped_mm(a, weights.mT, offsets, bias=bias), swiglu(exact(a, weights, bias)))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})


def test_a_bias_without_a_kernel_is_added_to_a_product_of_the_table(table: LoadedTable) -> None:
    """Where groups end too early, nothing is read for the rows behind."""
    a, weights, offsets, bias = operands()
    expected = functional.silu(exact(a, weights, bias))
    close(hktune.grouped_mm(a, weights.mT, offsets, activation="silu", bias=bias), expected)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    early = offsets.clamp(max=20)
    close(hktune.grouped_mm(a, weights.mT, early, activation="silu", bias=bias)[:20], expected[:20])


def test_the_gradient_of_a_bias_is_the_sum_over_its_group(table: LoadedTable) -> None:
    a, weights, offsets, bias = operands()
    for each in (a, weights, bias):
        each.requires_grad_()
    found = hktune.grouped_mm(a, weights.mT, offsets, bias=bias)
    close(found.detach(), exact(*(each.detach() for each in (a, weights, bias))))
    assert table.stats().hits == 1, "the product"
    gradient = drawn(M, N, seed=2)
    found.backward(gradient)
    assert bias.grad is not None
    assert a.grad is not None
    assert weights.grad is not None
    close(bias.grad, torch.stack([gradient[first:end].double().sum(0) for first, end in ranges()]))
    own = [gradient[first:end].double() @ weights[at].detach().double() for at, (first, end) in enumerate(ranges())]
    torch.testing.assert_close(a.grad.double(), torch.cat(own), rtol=2**-6, atol=2**-4)


def test_scales_and_a_bias(table: LoadedTable) -> None:
    a, weights, offsets, bias = operands()
    eight, eight_weights = a.to(torch.float8_e4m3fn), weights.to(torch.float8_e4m3fn)
    scale_a, scale_b = drawn(M).float().abs() + 0.5, drawn(GROUPS, N).float().abs() + 0.5
    whole_a = eight.double() * scale_a[:, None]
    whole_weights = eight_weights.double() * scale_b[:, :, None]
    operands_of_call = (eight, eight_weights.mT, scale_a, scale_b, offsets)
    found = hktune.scaled_grouped_mm(*operands_of_call, bias=bias)
    close(found, exact(whole_a, whole_weights, bias))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    with pytest.warns(hktune.runtime.FallbackWarning):
        wide = hktune.scaled_grouped_mm(*operands_of_call, bias=bias.float(), out_dtype=torch.float32)
    close(wide, exact(whole_a, whole_weights, bias))
    with pytest.raises(InputError, match="a bias is for groups of rows: pass"):
        hktune.scaled_grouped_mm(eight[None], eight_weights[:1].mT, scale_a[None], scale_b[:1], bias=bias[:1])


def groups_of_k() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a [K, M], b [M, N], where groups of M end, and float32 sums [G, K, N]."""
    held = torch.randn((GROUPS, K, N), generator=torch.Generator().manual_seed(9))
    return drawn(M, K).mT, drawn(M, N), torch.tensor(ENDS, dtype=torch.int32), held


def sums(a: Tensor, b: Tensor, held: Tensor) -> Tensor:
    own = [a[:, first:end].double() @ b[first:end].double() for first, end in ranges()]
    return held.double() + torch.stack(own)


def test_gradients_of_weights_are_added_in_float32(table: LoadedTable) -> None:
    a, b, offsets, held = groups_of_k()
    held[1, 0, 0] = -0.0
    added = held.clone()
    assert hktune.grouped_mm(a, b, offsets, add_to=added) is added
    torch.testing.assert_close(added.double(), sums(a, b, held), rtol=2**-20, atol=2**-18)
    assert torch.equal(added[1].view(torch.int32), held[1].view(torch.int32)), "a group without any rows"
    small = held.bfloat16()
    added = small.clone()
    hktune.grouped_mm(a, b, offsets, add_to=added)
    assert (added != sums(a, b, small).bfloat16()).float().mean() < 0.02, "rounded once"
    assert (table.stats().hits, table.stats().fallbacks) == (2, {})


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_no_kernel_adds_is_torchs_product_added(table: LoadedTable) -> None:
    a, b, offsets, held = groups_of_k()
    added = held.mT.contiguous().mT
    hktune.grouped_mm(a, b, offsets, add_to=added)
    torch.testing.assert_close(added.double(), sums(a, b, held), rtol=2**-6, atol=2**-4)
    assert table.stats().hits == 0
    overlapping = torch.zeros(GROUPS * K * N).bfloat16()
    own = overlapping.view(GROUPS, K, N)
    view = overlapping[: M * N].view(M, N).copy_(b)
    before = own.clone()
    hktune.grouped_mm(a, view, offsets, add_to=own)
    torch.testing.assert_close(own.double(), sums(a, b, before), rtol=2**-6, atol=2**-4)
    assert table.stats().hits == 0, "a kernel would read what it has written"


def test_under_modes_and_compiled_it_is_an_operator(table: LoadedTable) -> None:
    a, b, offsets, held = groups_of_k()
    expected = sums(a, b, held)

    def added_twice(a: Tensor, b: Tensor, offsets: Tensor, held: Tensor) -> Tensor:
        return hktune.grouped_mm(a, b, offsets, add_to=held) * 2

    compiled = torch.compile(added_twice, backend="aot_eager", fullgraph=True)
    own = held.clone()
    torch.testing.assert_close(compiled(a, b, offsets, own).double(), 2 * expected, rtol=2**-20, atol=2**-17)
    torch.testing.assert_close(own.double(), expected, rtol=2**-20, atol=2**-18)
    assert table.stats().hits == 1
    with FlopCounterMode(display=False) as flops:
        hktune.grouped_mm(a, b, offsets, add_to=held.clone())
    assert flops.get_total_flops() == 2 * M * N * K
    assert table.stats().hits == 2
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(held)
        assert hktune.grouped_mm(*map(mode.from_tensor, (a, b, offsets)), add_to=fake) is fake
    torch.library.opcheck(torch.ops.hktune.grouped_added_.default, (held.clone(), a, b, offsets))
    rows, weights, _, bias = operands()
    biased = torch.compile(
        lambda *given: hktune.grouped_mm(given[0], given[1].mT, offsets, bias=given[2]),
        backend="aot_eager",
        fullgraph=True,
    )
    hits = table.stats().hits
    close(biased(rows, weights, bias), exact(rows, weights, bias))
    assert table.stats().hits == hits + 1
    torch.library.opcheck(torch.ops.hktune.grouped_finished.default, (rows, weights.mT, offsets, [], bias))


@pytest.mark.parametrize("has_table", [False, True])
def test_a_recording_has_the_bias_and_what_is_added_to(table: LoadedTable, tmp_path: Path, has_table: bool) -> None:
    rows, weights, offsets, bias = operands()
    a, b, _, held = groups_of_k()
    if not has_table:
        hktune.unload()
    added = held.clone()
    with hktune.record(tmp_path / "shapes.yaml"):
        close(hktune.grouped_mm(rows, weights.mT, offsets, bias=bias), exact(rows, weights, bias))
        assert hktune.grouped_mm(a, b, offsets, add_to=added) is added
    torch.testing.assert_close(added.double(), sums(a, b, held), rtol=2**-6, atol=2**-4)
    shapes = load_shapes(tmp_path / "shapes.yaml")
    assert {str(shape.problem) for shape in shapes} == {
        "24x32x64 grouped4.bf16.nt+bias",
        "64x32x24 grouped4.bf16.tn->f32+accumulate",
    }


def test_on_nvidia_a_bias_and_float32_sums_are_recorded(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its template adds to float32 alone."""
    monkeypatch.setattr(recorded_several, "_is_nvidia", lambda tensor: True)
    rows, weights, offsets, bias = operands()
    a, b, _, held = groups_of_k()
    with recorder.Recorder() as seen:
        hktune.grouped_mm(rows, weights.mT, offsets, bias=bias)
        hktune.grouped_mm(a, b, offsets, add_to=held)
        hktune.grouped_mm(a, b, offsets, add_to=held.bfloat16())
    assert [str(problem) for problem in seen.calls] == [
        "24x32x64 grouped4.bf16.nt+bias",
        "64x32x24 grouped4.bf16.tn->f32+accumulate",
        "64x32x24 grouped4.bf16.tn",
    ]


def test_the_doctor_finds_no_row_that_no_call_reaches(table: LoadedTable, tmp_path: Path) -> None:
    found = examine_table(tmp_path, [], None, {}, allow_modelled=True)
    assert [str(each) for each in found if each.wrong] == []


WRONG_BIASES: list[tuple[Any, str]] = [
    (drawn(N), "grouped_mm: bias must be [4, 32] bfloat16, got [32] bfloat16: pass such"),
    (drawn(GROUPS, N).float(), "grouped_mm: bias must be [4, 32] bfloat16, got [4, 32] float32: pass such"),
    (drawn(GROUPS, 2 * N), "grouped_mm: bias must be [4, 32] bfloat16, got [4, 64] bfloat16: pass such"),
    (3, "grouped_mm: bias must be [4, 32] bfloat16, got int: pass such"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG_BIASES)
def test_a_bias_that_is_none_is_one_line(table: LoadedTable, wrong: Any, says: str) -> None:
    a, weights, offsets, _ = operands()
    with pytest.raises(InputError) as refused:
        hktune.grouped_mm(a, weights.mT, offsets, bias=wrong)
    assert str(refused.value) == says


def test_what_cannot_be_added_to_is_one_line(table: LoadedTable) -> None:
    rows, weights, _, bias = operands()
    a, b, offsets, held = groups_of_k()
    for given, says in (
        ({"add_to": held[:, :, :8]}, r"add_to must be \[4, 64, 32\] bfloat16 or float32, got \[4, 64, 8\] float32"),
        ({"add_to": held.double()}, "bfloat16 or float32, got .* float64: pass such"),
        ({"add_to": held.requires_grad_()}, r"add_to records no gradient: call it under torch.no_grad\(\)"),
        ({"add_to": held.detach(), "activation": "silu"}, "add_to is for groups of K, without an activation"),
        ({"add_to": held.detach(), "bias": bias}, "a bias is for groups of rows"),
    ):
        with pytest.raises(InputError, match=says):
            hktune.grouped_mm(a, b, offsets, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"pass b \[K, N\] and offs"):
        hktune.grouped_mm(rows, weights.mT, offsets, add_to=held.detach())
    hktune.unload()
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.grouped_mm(a, b, offsets, add_to=held.detach())
