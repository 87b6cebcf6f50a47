"""Experts and batches tuned on the emulated device and served there: torch's own calls, by the gfx950 GEMM. The truth
is torch."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hktune

M, N, K, GROUPS = 40, 48, 64, 4
SHAPES = [
    f"{M}x{N}x{K}:grouped{GROUPS}.bf16.nt",
    f"{M}x{K}x{N}:grouped{GROUPS}.bf16.nn",
    f"{N}x{K}x{M}:grouped{GROUPS}.bf16.tn",
    f"{M}x{N}x{K}:batched{GROUPS}.bf16.nn",
    f"{M}x{N}x{K}:batched{GROUPS}.bf16.nn+residual",
]

pytestmark = pytest.mark.slow


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=2**-6, atol=2**-3)


def test_a_layer_of_experts_and_batches_are_served_forward_and_backward(tmp_path: Path) -> None:
    result = hktune.tune(SHAPES, device="emulated", out=tmp_path, trials=2)
    table = result.load(allow_modelled=True)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn((GROUPS, N, K), generator=random).bfloat16().requires_grad_()
    a = torch.randn((M, K), generator=random).bfloat16().requires_grad_()
    offsets = torch.tensor([3, 3, 30, M], dtype=torch.int32)
    plain_a, plain_weights = (each.detach().clone().requires_grad_() for each in (a, weights))

    found = hktune.grouped_mm(a, weights.mT, offsets)
    expected = torch._grouped_mm(plain_a, plain_weights.mT, offs=offsets)
    close(found, expected)
    gradient = torch.randn((M, N), generator=random).bfloat16()
    found.backward(gradient)
    expected.backward(gradient)
    assert a.grad is not None
    assert plain_a.grad is not None
    assert weights.grad is not None
    assert plain_weights.grad is not None
    close(a.grad, plain_a.grad)
    close(weights.grad, plain_weights.grad)
    assert table.stats().hits == 3, "the product, and both gradients"

    heads = torch.randn((M, GROUPS, K), generator=random).bfloat16().transpose(0, 1)  # anywhere
    one = torch.randn((K, N), generator=random).bfloat16()
    each = torch.stack([one] * GROUPS)
    added = torch.randn((GROUPS, M, N), generator=random).bfloat16()
    right = heads.double() @ one.double()
    with hktune.enable(table):
        close(torch.bmm(heads, each), right)
        close(torch.baddbmm(added, heads, each), right + added.double())
    assert table.stats().hits == 5


def test_biases_of_experts_and_gradients_that_are_added_are_served(tmp_path: Path) -> None:
    shapes = (f"{M}x{N}x{K}:grouped{GROUPS}.bf16.nt+bias", f"{N}x{K}x{M}:grouped{GROUPS}.bf16.tn->f32+accumulate")
    table = hktune.tune(shapes, device="emulated", out=tmp_path, trials=2).load(allow_modelled=True)
    random = torch.Generator().manual_seed(1)
    weights, a = torch.randn((GROUPS, N, K), generator=random).bfloat16(), torch.randn((M, K), generator=random)
    bias, gradient = torch.randn((GROUPS, N), generator=random).bfloat16(), torch.randn((M, N), generator=random)
    held, ends = torch.randn((GROUPS, N, K), generator=random), [3, 3, 30, M]
    a, gradient, offsets = a.bfloat16(), gradient.bfloat16(), torch.tensor(ends, dtype=torch.int32)
    found = hktune.grouped_mm(a, weights.mT, offsets, bias=bias)
    parts = list(itertools.pairwise([0, *ends]))
    each = [a[first:end].double() @ weights[at].double().T + bias[at] for at, (first, end) in enumerate(parts)]
    close(found, torch.cat(each))
    added = held.clone()
    hktune.grouped_mm(gradient.mT, a, offsets, add_to=added)
    own = [gradient[first:end].double().T @ a[first:end].double() for first, end in parts]
    torch.testing.assert_close(added.double(), held.double() + torch.stack(own), rtol=2**-18, atol=2**-16)
    assert torch.equal(added[1], held[1]), "an expert without tokens"
    assert (table.stats().hits, table.stats().fallbacks) == (2, {})
