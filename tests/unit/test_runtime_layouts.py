"""Products of operands stored either way, and the products of a backward pass: by kernels of their own layouts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.operation import LAYOUTS, Operation
from hktune.core.problem import Problem
from hktune.runtime import FallbackWarning

M, N, K = 8, 64, 32
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def problems(dtype: str) -> Iterator[Problem]:
    """Every layout of one product, with a bias too, and what its backward pass asks."""
    for layout in LAYOUTS:
        yield Problem(M, N, K, Operation(dtype, layout))
        yield Problem(M, N, K, Operation(dtype, layout, epilogue=("bias",)))
    for layout in ("nt", "nn"):
        yield Problem(M, K, N, Operation(dtype, layout))
    yield Problem(N, K, M, Operation(dtype, "tn"))
    yield Problem(K, N, M, Operation(dtype, "tn"))


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[torch.dtype]:
    """Of a table with all of these; its kernels take row strides."""
    published(tmp_path, *(trial(each, object_sha256=LAYOUTS_SHA256) for each in problems(request.param)))
    hktune.load(tmp_path, allow_modelled=True)
    yield DTYPES[request.param]
    torch._dynamo.reset()


def random(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def stored(tensor: Tensor, letter: str, gap: int = 0) -> Tensor:
    """The same numbers, stored as they are ("n") or transposed, rows `gap` elements further apart than they need be."""
    rows = tensor if letter == "n" else tensor.t()
    wide = torch.full((rows.shape[0], rows.shape[1] + gap), float("nan"), dtype=tensor.dtype)
    wide[:, : rows.shape[1]] = rows
    kept = wide[:, : rows.shape[1]]
    return kept if letter == "n" else kept.t()


def close(found: Tensor | None, exact: Tensor | None) -> None:
    """Within one rounding of a float32 sum."""
    assert found is not None
    assert exact is not None
    torch.testing.assert_close(found.float(), exact.float(), rtol=EPSILON[found.dtype], atol=1e-4)


@pytest.mark.parametrize("gap", [0, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
class TestOperandsAsTheyAreStored:
    def test_by_matmul(self, dtype: torch.dtype, layout: str, gap: int) -> None:
        a, b = random(dtype, M, K), random(dtype, K, N)
        for _ in range(2):  # the second is known
            close(hktune.matmul(stored(a, layout[0], gap), stored(b, layout[1], gap)), a.float() @ b.float())
        assert hktune.stats().hits == 2

    def test_by_linear_with_a_bias(self, dtype: torch.dtype, layout: str, gap: int) -> None:
        x, weight, bias = random(dtype, M, K), random(dtype, N, K), random(dtype, N)
        of_weight = "t" if layout[1] == "n" else "n"
        for _ in range(2):
            found = hktune.linear(stored(x, layout[0], gap), stored(weight, of_weight, gap), bias)
            close(found, functional.linear(x.float(), weight.float(), bias.float()))
        assert hktune.stats().hits == 2


def test_layouts_of_one_shape_take_turns(dtype: torch.dtype) -> None:
    a, b = random(dtype, M, K), random(dtype, K, N)
    for _ in range(3):
        for layout in LAYOUTS:
            close(hktune.matmul(stored(a, layout[0]), stored(b, layout[1])), a.float() @ b.float())
    assert hktune.stats().hits == 3 * len(LAYOUTS)


def test_leading_dimensions_count_as_rows_where_they_are_stored_so(dtype: torch.dtype) -> None:
    a, b = random(dtype, 2, M // 2, K), random(dtype, K, N)
    close(hktune.matmul(a, b), a.float() @ b.float())
    assert hktune.stats().hits == 1
    with pytest.warns(FallbackWarning, match="strides"):
        close(hktune.matmul(a.transpose(0, 1).contiguous().transpose(0, 1), b), a.float() @ b.float())


def test_a_layout_without_an_entry_is_torchs(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(M, N, K)))
    hktune.load(tmp_path, allow_modelled=True)
    a, b = random(torch.bfloat16, M, K), random(torch.bfloat16, K, N)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        found = hktune.matmul(a, b)
    assert torch.equal(found, torch.matmul(a, b))
    hktune.matmul(a, stored(b, "t"))
    assert hktune.stats().hits == 1
    assert hktune.stats().fallbacks == {"no entry for the shape": 1}


Product = Callable[[Tensor, Tensor], Tensor]
CALLS: dict[str, tuple[Product, Product]] = {
    "linear": (hktune.linear, functional.linear),
    "linear of a transposed view": (
        lambda x, w: hktune.linear(x, w.t().contiguous().t()),
        lambda x, w: functional.linear(x, w.t().contiguous().t()),
    ),
    "matmul": (lambda x, w: hktune.matmul(x, w.t().contiguous()), lambda x, w: torch.matmul(x, w.t().contiguous())),
    "matmul of a transposed view": (lambda x, w: hktune.matmul(x, w.t()), lambda x, w: torch.matmul(x, w.t())),
}


def slope_of(product: Product, x: Tensor, weight: Tensor) -> list[Tensor]:
    """The gradients of both operands from a gradient that is stored row by row."""
    out = product(x, weight)
    return list(torch.autograd.grad(out, (x, weight), random(out.dtype, *out.shape)))


@pytest.mark.parametrize(("ours", "theirs"), CALLS.values(), ids=CALLS.keys())
class TestTheBackwardPass:
    @pytest.mark.parametrize("shape", [(M, K), (2, M // 2, K)], ids=["2-d", "3-d"])
    def test_is_served(self, dtype: torch.dtype, ours: Product, theirs: Product, shape: tuple[int, ...]) -> None:
        operands = random(dtype, *shape).requires_grad_(), random(dtype, N, K).requires_grad_()
        exact = [each.detach().float().requires_grad_() for each in operands]
        for _ in range(2):
            for found, true in zip(slope_of(ours, *operands), slope_of_exact(theirs, exact, dtype), strict=True):
                close(found, true)
        assert hktune.stats().hits == 6
        assert not hktune.stats().fallbacks

    def test_is_served_in_a_compiled_graph(self, dtype: torch.dtype, ours: Product, theirs: Product) -> None:
        operands = random(dtype, M, K).requires_grad_(), random(dtype, N, K).requires_grad_()
        exact = [each.detach().float().requires_grad_() for each in operands]
        compiled = torch.compile(lambda x, w: ours(x, w), fullgraph=True, backend="aot_eager")
        for found, true in zip(slope_of(compiled, *operands), slope_of_exact(theirs, exact, dtype), strict=True):
            close(found, true)
        assert hktune.stats().hits == 3
        assert not hktune.stats().fallbacks

    def test_of_a_checkpoint_is_served(self, dtype: torch.dtype, ours: Product, theirs: Product) -> None:
        operands = random(dtype, M, K).requires_grad_(), random(dtype, N, K).requires_grad_()
        exact = [each.detach().float().requires_grad_() for each in operands]
        found = slope_of(lambda x, w: checkpoint(ours, x, w, use_reentrant=False), *operands)  # type: ignore[return-value]
        for mine, true in zip(found, slope_of_exact(theirs, exact, dtype), strict=True):
            close(mine, true)
        assert hktune.stats().hits == 4

    def test_is_torchs_where_something_watches(self, dtype: torch.dtype, ours: Product, theirs: Product) -> None:
        operands = random(dtype, M, K).requires_grad_(), random(dtype, N, K).requires_grad_()
        counts = []
        for product in (ours, theirs):
            out = product(*operands)
            with FlopCounterMode(display=False) as counter:
                torch.autograd.grad(out, operands, random(dtype, M, N))
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1] == 2 * 2 * M * N * K


def slope_of_exact(product: Product, operands: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    out = product(*operands)
    return list(torch.autograd.grad(out, operands, random(dtype, *out.shape).float()))


@pytest.mark.parametrize("has_autocast", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_trains_by_the_table(dtype: torch.dtype, bias: bool, has_autocast: bool) -> None:
    kept = torch.float32 if has_autocast else dtype
    mine, true = hktune.Linear(K, N, bias=bias, dtype=kept), nn.Linear(K, N, bias=bias, dtype=kept)
    true.load_state_dict(mine.state_dict())
    x, goal = random(dtype, M, K).to(kept), random(dtype, M, N)
    with torch.autocast("cpu", dtype) if has_autocast else nullcontext():
        for layer in (mine, true):
            functional.mse_loss(layer(x).float(), goal.float()).backward()
    for found, expected in zip(mine.parameters(), true.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        assert found.grad.dtype is kept
        assert (found.grad - expected.grad).float().norm() / expected.grad.float().norm() < 4 * EPSILON[dtype]
    assert hktune.stats().hits == 2


def test_threads_train_together(dtype: torch.dtype) -> None:
    weights = [random(dtype, N, K) + number for number in range(4)]
    x, slope = random(dtype, M, K), random(dtype, M, N)
    found: dict[int, Tensor] = {}

    def work(number: int) -> None:
        weight, operand = weights[number], x.clone().requires_grad_()
        for _ in range(3):
            (found[number],) = torch.autograd.grad(hktune.linear(operand, weight), operand, slope)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, weight in enumerate(weights):
        close(found[number], slope.float() @ weight.float())


def test_record_writes_the_backward_pass(dtype: torch.dtype, tmp_path: Path) -> None:
    """Of a layer of torch and one of hktune's, with a bias, and of a matmul of matrices as they are stored."""
    for layer in (nn.Linear(K, N, dtype=dtype), hktune.Linear(K, N, dtype=dtype)):
        x = random(dtype, M, K).requires_grad_()
        with hktune.record(tmp_path / "shapes.yaml") as recorder:
            for _ in range(2):
                layer(x).backward(random(dtype, M, N))
        name = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
        assert {str(problem): calls for problem, calls in recorder.calls.items()} == {
            f"{M}x{N}x{K} {name}.nt+bias": 2,
            f"{M}x{K}x{N} {name}.nn": 2,
            f"{N}x{K}x{M} {name}.tn": 2,
        }
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        hktune.matmul(x, random(dtype, K, N).requires_grad_()).backward(random(dtype, M, N))
    assert {str(problem) for problem in recorder.calls} == {
        f"{M}x{N}x{K} {name}.nn",
        f"{M}x{K}x{N} {name}.nt",
        f"{K}x{N}x{M} {name}.tn",
    }
