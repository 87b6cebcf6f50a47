"""Batched and grouped products by a table. The truth is torch's own product, and float64."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, reseal, trial
from torch import Tensor

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import FallbackWarning, LoadedTable, recorder
from hktune.tables.findings import examine_table

M, N, K, GROUPS = 24, 64, 32, 4
ENDS = [5, 5, 20, 24]
TEXTS = ["grouped4.bf16.nt", "grouped4.bf16.nn", "batched4.bf16.nt", "batched4.bf16.nn"]


@pytest.fixture
def table(tmp_path: Path) -> Iterable[LoadedTable]:
    backward = Problem(M, K, N, operation_of("grouped4.bf16.nn"))
    of_weights = [Problem(*sides, M, operation_of("grouped4.bf16.tn")) for sides in ((N, K), (K, N))]
    served = [Problem(M, N, K, operation_of(text)) for text in TEXTS]
    added_to = Problem(M, N, K, operation_of("batched4.bf16.nn+residual"))
    published(tmp_path, *map(trial, [*served, backward, *of_weights, added_to]))
    yield hktune.load(tmp_path, allow_modelled=True)
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


@pytest.mark.parametrize("layout", ["nt", "nn"])
def test_gradients_are_torchs(table: LoadedTable, layout: str) -> None:
    """One of the groups is empty: its weights' gradient is 0. What has no entry is no fallback, and no warning."""

    def made() -> tuple[Tensor, Tensor, Tensor]:
        a, b, offsets = operands(layout)
        weights = b.mT if layout == "nt" else b
        return a.requires_grad_(), weights.contiguous().requires_grad_(), offsets

    def read(weights: Tensor) -> Tensor:
        return weights.mT if layout == "nt" else weights

    (a, weights, offsets), (plain_a, plain_weights, _) = made(), made()
    hktune.grouped_mm(a, read(weights), offsets).square().sum().backward()
    torch._grouped_mm(plain_a, read(plain_weights), offs=offsets).square().sum().backward()
    served = 3 if layout == "nt" else 2
    assert table.stats().hits == served, "the product, the gradient of the weights, and where there is an entry a's"
    assert not table.stats().fallbacks
    assert weights.grad is not None
    assert (weights.grad[1] == 0).all()
    for one, other in ((a, plain_a), (weights, plain_weights)):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad.double(), rtol=2**-5, atol=1.0)


APART = {
    "contiguous": lambda ends: ends,
    "every other": lambda ends: torch.stack([ends, ends.flip(0)], 1).flatten()[::2],
    "a column": lambda ends: torch.stack([ends * 0 + 7, ends], 1)[:, 1],
}


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("of_k", [False, True])
@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("ends", [ENDS, [3, 3, 9, 17]])
def test_gradients_are_right_up_to_the_last_end_wherever_ends_are_stored(
    table: LoadedTable, apart: str, of_k: bool, ends: list[int]
) -> None:
    """What is behind the last group is nobody's: neither torch nor a kernel writes it."""
    a, b, _ = operands()
    right = torch.randn(M, N, generator=torch.Generator().manual_seed(1)).bfloat16() if of_k else b
    left, offsets = a.mT if of_k else a, APART[apart](torch.tensor(ends, dtype=torch.int32))
    asked = [each.detach().requires_grad_() for each in (left, right)]
    wide = [each.detach().double().requires_grad_() for each in (left, right)]
    parts = list(itertools.pairwise([0, *ends]))
    if of_k:
        expected = torch.stack([wide[0][:, first:end] @ wide[1][first:end] for first, end in parts])
    else:
        expected = torch.cat([wide[0][first:end] @ wide[1][at] for at, (first, end) in enumerate(parts)])
    found = hktune.grouped_mm(*asked, offsets)
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    own = gradient if of_k else gradient[: ends[-1]]
    torch.testing.assert_close((found if of_k else found[: ends[-1]]).double(), expected, rtol=2**-6, atol=2**-3)
    divided = ((0, 1), (1, 0)) if of_k else ((0, 0),)  # an operand, and its axis that groups divide
    grads = list(torch.autograd.grad(found, asked, gradient))
    for operand, axis in divided:
        grads[operand] = grads[operand].narrow(axis, 0, ends[-1])
    for operand, true in enumerate(torch.autograd.grad(expected, wide, own.double())):
        axes = dict(divided)
        right_part = true.narrow(axes[operand], 0, ends[-1]) if operand in axes else true
        torch.testing.assert_close(grads[operand].double(), right_part, rtol=2**-6, atol=2**-3)


def test_what_is_torchs_has_torchs_gradient(table: LoadedTable) -> None:
    """Rows of 5 elements, which torch takes transposed alone: hktune's gradient would be of contiguous ones."""
    found = []
    for product in (hktune.grouped_mm, lambda a, b, offsets: torch._grouped_mm(a, b, offs=offsets)):
        a = torch.randn(5, M, generator=torch.Generator().manual_seed(5)).bfloat16().t().requires_grad_()
        b = torch.randn(GROUPS, 5, 8, generator=torch.Generator().manual_seed(6)).bfloat16().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            product(a, b, torch.tensor(ENDS, dtype=torch.int32)).square().sum().backward()
        found.append((a.grad, b.grad))
    assert table.stats().fallbacks == {"strides": 1}
    for mine, torchs in zip(*found, strict=True):
        assert torch.equal(mine, torchs)


def test_groups_of_k_are_the_kernels(table: LoadedTable) -> None:
    a, _, offsets = operands()
    grad = torch.randn(M, N, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = torch.stack([a[first:end].double().T @ grad[first:end].double() for first, end in ranges()])
    close(hktune.grouped_mm(a.mT, grad, offsets), expected)
    with hktune.enable(table):
        close(torch._grouped_mm(a.mT, grad, offs=offsets), expected)
    assert table.stats().hits == 2
    asked = a.clone().requires_grad_()
    hktune.grouped_mm(asked.mT, grad, offsets).square().sum().backward()
    assert asked.grad is not None, "torch's own, whose gradient it knows"
    assert table.stats().hits == 2


def test_the_doctor_finds_no_row_that_no_call_reaches(table: LoadedTable, tmp_path: Path) -> None:
    """What `warm` makes ready for a capture are the rows that calls reach."""
    found = examine_table(tmp_path, [], None, {}, allow_modelled=True)
    assert [str(each) for each in found if each.wrong] == []


def ranges() -> list[tuple[int, int]]:
    return list(itertools.pairwise([0, *ENDS]))


STORAGES = {
    "one for all": lambda x: x[:1].expand(GROUPS, -1, -1),
    "rows apart": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
    "heads behind tokens": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every other one": lambda x: torch.cat([x, x], 1).view(2 * GROUPS, *x.shape[1:])[::2],
    "from the last on": lambda x: x.flip(0).contiguous(),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_matrices_may_be_anywhere(table: LoadedTable, storage: str) -> None:
    stored = STORAGES[storage]
    for layout in ("nn", "nt"):
        batch, matrices, _ = operands(layout, batched=True)
        stacked = stored(matrices if layout == "nn" else matrices.mT)
        b = stacked if layout == "nn" else stacked.mT
        hits = table.stats().hits
        with hktune.enable(table):
            for a in (batch, stored(batch)):
                close(torch.bmm(a, b), a.double() @ b.double())
            four = torch.matmul(batch.view(2, 2, M, K), b.unflatten(0, (2, 2)))
            close(four.flatten(0, 1), batch.double() @ b.double())
        # One matrix for all rows is one product, of which this table has no entry.
        assert table.stats().hits == hits + (1 if storage == "one for all" else 3)


@pytest.mark.parametrize("shape", [(GROUPS, M, N), (1, M, N), (GROUPS, 1, N), (M, N), (N,), (GROUPS, M, 1)])
def test_what_is_added_to_a_batch_is_expanded_and_rounded_once(table: LoadedTable, shape: tuple[int, ...]) -> None:
    batch, matrices, _ = operands("nn", batched=True)
    added = torch.randn(shape, generator=torch.Generator().manual_seed(5)).bfloat16()
    expected = (batch.double() @ matrices.double() + added.double()).bfloat16()
    with hktune.enable(table):
        found = torch.baddbmm(added, batch, matrices)
        out = torch.empty_like(found)
        assert torch.baddbmm(added, batch, matrices, out=out) is out
        assert table.stats().hits == 2
        torch.baddbmm(added, batch, matrices, beta=0.5)
        torch.baddbmm(added, batch, matrices, alpha=2)
    assert table.stats().hits == 2
    assert torch.equal(found, out)
    assert (found != expected).float().mean() < 0.01, "rounded once, of sums in float32"
    close(found, expected)
    with recorder.Recorder() as seen:
        torch.baddbmm(added, batch, matrices)
        torch.baddbmm(added, batch.mT.contiguous().mT, matrices)
    assert [str(problem) for problem in seen.calls] == ["24x64x32 batched4.bf16.nn+residual"]
    assert seen.others == "added to products in tn: 1"


def test_a_storage_that_no_map_has_is_torchs(table: LoadedTable) -> None:
    batch, matrices, _ = operands("nn", batched=True)
    with hktune.enable(table):
        unaligned = torch.cat([batch, batch[..., :4]], 2)[..., :K]
        close(torch.bmm(unaligned, matrices), batch.double() @ matrices.double())
        apart = torch.stack([batch, batch], 3)[..., 0]
        close(torch.bmm(apart, matrices), batch.double() @ matrices.double())
    assert table.stats().hits == 0


def test_a_kernel_of_matrices_that_follow_one_another_gets_no_others(tmp_path: Path) -> None:
    """It may take row strides all the same, as gfx950's does."""
    published(tmp_path, trial(Problem(M, N, K, operation_of("batched4.bf16.nn"))))

    def fixed(text: str) -> str:
        for name, elements in (("a", M * K), ("b", K * N)):
            text = text.replace(
                f'"stride_{name}", "kind": "u64"', f'"of_{name}", "kind": "u64", "constant": {elements}'
            )
        return text

    reseal(tmp_path, fixed)
    table = hktune.load(tmp_path, allow_modelled=True)
    a, b, _ = operands("nn", batched=True)
    with hktune.enable(table):
        close(torch.bmm(a, b), a.double() @ b.double())
        assert table.stats().hits == 1
        for left, right in ((torch.cat([a, a], 1)[:, :M], b), (a, torch.cat([b, b], 1)[:, :K])):
            close(torch.bmm(left, right), a.double() @ b.double())
    assert (table.stats().hits, table.stats().fallbacks) == (1, {"strides": 2})


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


def test_without_a_table_it_says_what_to_do() -> None:
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.grouped_mm(*operands())


def test_what_is_wrong_is_torchs_to_refuse(table: LoadedTable) -> None:
    a, b, offsets = operands()
    with pytest.raises(RuntimeError), pytest.warns(FallbackWarning, match="operand shapes"):
        hktune.grouped_mm(a, b[:, :16], offsets)


@pytest.mark.parametrize("wrong", [None, 3, "offsets", [[1.0]]])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_tensor_is_torchs_to_refuse(table: LoadedTable, place: int, wrong: Any) -> None:
    given: list[Any] = list(operands())
    given[place] = wrong
    with pytest.raises(TypeError) as torchs:
        torch._grouped_mm(given[0], given[1], offs=given[2])
    with pytest.raises(TypeError) as ours:
        hktune.grouped_mm(*given)
    assert str(ours.value) == str(torchs.value)
    assert not table.stats().fallbacks


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
    assert [shape.tokens for shape in shapes] == [(), ((0, 3), (4, 3), (5, 3), (15, 3))], "ends are 5, 5, 20, 24"


def test_a_recording_merges_the_sizes_of_all_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they were recorded without gradients, and of groups of K. What has no end yet is not counted."""
    a, b, offsets = operands(m=96)
    with recorder.Recorder() as seen:
        torch._grouped_mm(a, b, offs=offsets)
        with torch.inference_mode():
            torch._grouped_mm(a, b, offs=torch.tensor([0, 40, 96, 96], dtype=torch.int32))
        torch._grouped_mm(a, b, offs=offsets)
        torch._grouped_mm(a.mT, a[:, :16].contiguous(), offs=offsets)
        monkeypatch.setattr("hktune.runtime.token_counts.is_capturing", lambda: True)
        torch._grouped_mm(a, b, offs=offsets)
    found = {str(shape.problem): (shape.weight, shape.tokens) for shape in seen.shapes}
    assert found == {
        "96x64x32 grouped4.bf16.nt": (4, ((0, 4), (4, 2), (5, 2), (15, 2), (40, 1), (56, 1))),
        "32x16x96 grouped4.bf16.tn": (1, ((0, 1), (4, 1), (5, 1), (15, 1))),
    }
    (tmp_path / "shapes.yaml").write_text(seen.yaml())
    assert load_shapes(tmp_path / "shapes.yaml").tokens == seen.shapes.tokens, "as it was written"
