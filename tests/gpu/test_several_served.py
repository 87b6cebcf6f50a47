"""Experts and batches on a real NVIDIA GPU, recorded and then served by the sm90a template's default config. The truth
is float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from default_kernels import published
from torch import Tensor

import hktune
from hktune.device.cuda import CudaDevice
from hktune.runtime import LoadedTable, Recorder

TOKENS, HIDDEN, FEATURES, EXPERTS = 96, 128, 192, 6
SIZES = [7, 0, 41, 16, 0, 32]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=2**-4)


def experts() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(TOKENS, HIDDEN, device="cuda").bfloat16()
    weights = torch.randn(EXPERTS, FEATURES, HIDDEN, device="cuda").bfloat16()
    return x, weights, torch.tensor(SIZES, device="cuda").cumsum(0).int()


def exact(x: Tensor, weights: Tensor) -> Tensor:
    ranges = enumerate(itertools.pairwise([0, *itertools.accumulate(SIZES)]))
    return torch.cat([x[first:end] @ weights[expert].T for expert, (first, end) in ranges])


def served(directory: Path, hopper: CudaDevice, model: Callable[[], object]) -> LoadedTable:
    """A table of what `model` calls."""
    with Recorder() as seen:
        model()
    published(directory, hopper.identity, seen.shapes.problems)
    return hktune.load(directory, allow_modelled=True)


def test_a_layer_of_experts_is_served_forward_and_backward(hopper: CudaDevice, tmp_path: Path) -> None:
    x, weights, ends = experts()

    def step() -> tuple[Tensor, Tensor, Tensor]:
        own, those = x.clone().requires_grad_(), weights.clone().requires_grad_()
        out = torch._grouped_mm(own, those.mT, offs=ends)
        return out, *torch.autograd.grad(out, (own, those), out.detach())

    table = served(tmp_path, hopper, step)
    exact_x, exact_weights = x.double().requires_grad_(), weights.double().requires_grad_()
    out = exact(exact_x, exact_weights)
    expected = (out, *torch.autograd.grad(out, (exact_x, exact_weights), out.detach()))
    with hktune.enable(table):
        found = step()
    assert table.stats().hits == 3, "the product, and the gradients of both"
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.double(), other, rtol=2**-6, atol=2**-6 * float(other.abs().max()))
    own, those = x.clone().requires_grad_(), weights.clone().requires_grad_()
    hktune.grouped_mm(own, those.mT, ends).backward(found[0])
    assert table.stats().hits == 6
    assert those.grad is not None
    assert (those.grad[1] == 0).all(), "an expert without tokens"
    assert torch.equal(those.grad, found[2])


def test_experts_have_biases_and_float32_gradients_are_added(hopper: CudaDevice, tmp_path: Path) -> None:
    x, weights, ends = experts()
    bias, gradient = torch.randn(EXPERTS, FEATURES, device="cuda").bfloat16(), torch.randn(TOKENS, FEATURES).cuda()
    held = torch.randn(EXPERTS, FEATURES, HIDDEN, device="cuda")
    grad = gradient.bfloat16()

    def step() -> tuple[Tensor, Tensor, Tensor]:
        out = hktune.grouped_mm(x, weights.mT, ends, bias=bias)
        gated = hktune.gated_grouped_mm(x, weights.mT, ends, bias=bias)
        return out, gated, hktune.grouped_mm(grad.mT, x, ends, add_to=held.clone())

    table = served(tmp_path, hopper, step)
    out, gated, sums = step()
    assert table.stats().hits == 3
    ranges = list(itertools.pairwise([0, *itertools.accumulate(SIZES)]))
    of_rows = torch.cat([bias[expert].expand(end - first, -1) for expert, (first, end) in enumerate(ranges)]).double()
    expected = exact(x.double(), weights.double()) + of_rows
    assert torch.allclose(out.double(), expected, rtol=2**-7, atol=2**-4)
    gate, up = expected.chunk(2, 1)
    assert torch.allclose(gated.double(), torch.nn.functional.silu(gate) * up, rtol=2**-6, atol=2**-2)
    own = [grad[first:end].double().T @ x[first:end].double() for first, end in ranges]
    assert torch.allclose(sums.double(), held.double() + torch.stack(own), rtol=2**-16, atol=2**-14)
    assert torch.equal(sums[1], held[1]), "an expert without tokens"


def test_experts_of_float8_are_served_by_fast_sums_where_a_call_allows_them(hopper: CudaDevice, tmp_path: Path) -> None:
    """Elements are -1, 0 and 1, whose sums are exact either way. So they are with gates or an activation behind."""
    x = torch.randint(-1, 2, (TOKENS, HIDDEN), device="cuda").to(torch.float8_e4m3fn)
    weights = torch.randint(-1, 2, (EXPERTS, FEATURES, HIDDEN), device="cuda").to(torch.float8_e4m3fn)
    scale_x = torch.rand(TOKENS, device="cuda") + 0.5
    scale_weights = torch.rand(EXPERTS, FEATURES, device="cuda") + 0.5
    ends = torch.tensor(SIZES, device="cuda").cumsum(0).int()

    def model() -> list[Tensor]:
        given = (x, weights.mT, scale_x, scale_weights, ends)
        scales = {"scale_a": scale_x, "scale_b": scale_weights}
        products = [hktune.scaled_grouped_mm(*given, use_fast_accum=is_fast) for is_fast in (False, True)]
        gated = hktune.gated_grouped_mm(x, weights.mT, ends, use_fast_accum=True, **scales)
        return [*products, gated, hktune.scaled_grouped_mm(*given, activation="relu")]

    table = served(tmp_path, hopper, model)
    *products, gated, activated = model()
    assert (table.stats().hits, table.stats().fallbacks) == (4, {})
    expected = exact(x.double() * scale_x[:, None].double(), weights.double() * scale_weights[..., None].double())
    for each in products:
        close(each, expected)
    gate, up = expected.chunk(2, 1)
    close(gated, torch.nn.functional.silu(gate) * up)
    close(activated, expected.relu())


def test_the_sizes_of_groups_are_recorded_without_waiting_for_them(hopper: CudaDevice, tmp_path: Path) -> None:
    """In a graph that is captured too, whose replays are not seen."""
    x, weights, ends = experts()
    torch._grouped_mm(x, weights.mT, offs=ends)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with Recorder() as seen:
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(2):
                torch._grouped_mm(x, weights.mT, offs=ends)
            with torch.cuda.stream(stream):
                torch._grouped_mm(x, weights.mT, offs=ends)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            torch._grouped_mm(x, weights.mT, offs=ends)
        graph.replay()
    [shape] = seen.shapes
    assert shape.weight == 4
    assert shape.tokens == ((0, 6), (7, 3), (16, 3), (32, 3), (40, 3)), "41 is counted as 40 or more"


def test_matrices_anywhere_are_served(hopper: CudaDevice, tmp_path: Path) -> None:
    """Attention's products of heads that are behind tokens, of fewer heads of keys than of queries, and with a mask
    that is added to all heads."""
    heads, tokens, width = 8, 64, 128
    queries = torch.randn(2, tokens, heads, width, device="cuda").bfloat16().transpose(1, 2)
    keys = torch.randn(2, tokens, 1, width, device="cuda").bfloat16().transpose(1, 2).expand(-1, heads, -1, -1)

    mask = torch.randn(1, tokens, tokens, device="cuda").bfloat16()

    def model() -> tuple[Tensor, Tensor, Tensor]:
        scores = torch.bmm(queries[1], keys[1].mT)
        masked = torch.baddbmm(mask, queries[0], keys[0].mT)
        return scores, torch.bmm(scores.contiguous(), keys[1]), masked

    table = served(tmp_path, hopper, model)
    with hktune.enable(table):
        scores, out, masked = model()
    close(scores, queries[1].double() @ keys[1].mT.double())
    assert torch.allclose(out.double(), scores.double() @ keys[1].double(), rtol=2**-6, atol=0.5)
    close(masked, queries[0].double() @ keys[0].mT.double() + mask.double())
    assert table.stats().hits == 3
