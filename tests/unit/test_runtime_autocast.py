"""Under autocast a product is that of torch's own casts, the ones that torch keeps within a region included."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

M, N, K = 4, 64, 32
Product = Callable[..., Tensor]

pytestmark = pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    operations = map(operation_of, ("bf16.nt", "bf16.nt+bias", "f16.nt", "f16.nt+bias"))
    published(tmp_path, *(trial(Problem(M, N, K, operation)) for operation in operations))
    return hktune.load(tmp_path, allow_modelled=True)


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers, whose sums no order of adding changes."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])


def region(dtype: torch.dtype = torch.bfloat16, **options: bool) -> torch.autocast:
    return torch.autocast("cpu", dtype, **options)


def changed_between(dtype: torch.dtype, product: Product, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Outputs while the leaves change, within a region and after it."""
    x, outs = whole(M, K, seed=1), []

    def call() -> None:
        outs.extend([product(x, weight), product(x, weight, bias)])

    for _ in range(2):
        with region(dtype):
            call()
            call()
            with torch.no_grad():
                weight.add_(1)
                bias.mul_(2)
            call()
            with region(dtype, enabled=False), contextlib.suppress(RuntimeError):
                product(x, weight)
            with region(dtype):
                call()
            weight.data = weight.data + 1
            call()
            with torch.no_grad():
                call()
        call_outside = product(x.to(dtype), weight.detach().to(dtype))
        outs.append(call_outside)
    return outs


def both(run: Callable[..., list[Tensor]], *leaves: Tensor) -> None:
    """`run` gives with hktune's linear what it gives with torch's, and the same gradients."""
    ours, theirs = [[each.detach().clone().requires_grad_(each.requires_grad) for each in leaves] for _ in range(2)]
    found, expected = run(hktune.linear, *ours), run(functional.linear, *theirs)
    assert len(found) == len(expected)
    for mine, torchs in zip(found, expected, strict=True):
        assert torch.equal(mine, torchs)
        assert mine.requires_grad == torchs.requires_grad
    for outs in (found, expected):
        asking = [out.float().sum() for out in outs if out.requires_grad]
        if asking:
            torch.stack(asking).sum().backward()
    for mine, torchs in zip(ours, theirs, strict=True):
        assert (mine.grad is None) == (torchs.grad is None)
        if mine.grad is not None and torchs.grad is not None:
            assert mine.grad.dtype is torch.float32
            assert torch.equal(mine.grad, torchs.grad)


@DTYPES
@pytest.mark.parametrize("asking", [(True, True), (True, False), (False, True), (False, False)])
def test_leaves_that_change_in_a_region_are_as_stale_as_torchs(
    table: LoadedTable, asking: tuple[bool, bool], dtype: torch.dtype
) -> None:
    leaves = whole(N, K).requires_grad_(asking[0]), whole(N, seed=2).requires_grad_(asking[1])
    both(functools.partial(changed_between, dtype), *leaves)
    assert table.stats().hits > 20
    assert table.stats().fallbacks.keys() <= {"dtype"}, "the products outside of any region, of float32"


@DTYPES
@pytest.mark.parametrize("around", ["a region", "no cache", "inference", "no grad", "saved to the CPU"])
def test_products_in_a_region_are_torchs(around: str, table: LoadedTable, dtype: torch.dtype) -> None:
    def run(product: Product, weight: Tensor, bias: Tensor) -> list[Tensor]:
        around_it = {
            "inference": torch.inference_mode,
            "no grad": torch.no_grad,
            "saved to the CPU": torch.autograd.graph.save_on_cpu,
        }.get(around, contextlib.nullcontext)
        x, outs = whole(M, K, seed=3), []
        for _ in range(4):
            with region(dtype, cache_enabled=around != "no cache"), around_it():
                outs += [product(x, weight), product(x, weight, bias), product(x, weight.bfloat16())]
                weight.data.add_(1)
                outs += [product(x, weight), product(x, weight, bias)]
        return outs

    both(run, whole(N, K).requires_grad_(), whole(N, seed=2).requires_grad_())
    assert table.stats().hits == 20
    assert not table.stats().fallbacks


def test_regions_to_bfloat16_and_to_float16_in_turn_are_torchs(table: LoadedTable) -> None:
    def run(product: Product, weight: Tensor) -> list[Tensor]:
        x, outs = whole(M, K, seed=1).bfloat16(), []
        for dtype in (torch.bfloat16, torch.float16) * 3:
            with torch.autocast("cpu", dtype):
                outs += [product(x, weight), product(x.float(), weight), product(x, weight.bfloat16())]
        return outs

    both(run, whole(N, K).requires_grad_())
    assert table.stats().hits == 18
    assert not table.stats().fallbacks


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_in_a_region_gives_torchs_gradients(reentrant: bool) -> None:
    def run(product: Product, weight: Tensor, bias: Tensor) -> list[Tensor]:
        x, outs = whole(M, K, seed=1).requires_grad_(), []
        for _ in range(3):
            with region():
                outs.append(checkpoint(product, x, weight, bias, use_reentrant=reentrant))
                outs.append(product(x, weight, bias))
        return outs

    both(run, whole(N, K).requires_grad_(), whole(N, seed=2).requires_grad_())


@DTYPES
def test_the_cast_is_made_once_in_a_region(dtype: torch.dtype) -> None:
    weight, x = whole(N, K).requires_grad_(), whole(M, K)
    for _ in range(3):
        hktune.linear(x.to(dtype), weight.detach().to(dtype))
    with region(dtype):
        outs = [hktune.linear(x, weight) for _ in range(4)]
        casts = {out.grad_fn.next_functions[1][0] for out in outs if out.grad_fn is not None}
        torchs = functional.linear(x, weight).grad_fn
    assert len(casts) == 1
    assert torchs is not None
    assert str(casts.pop()).startswith("<ToCopyBackward0")
