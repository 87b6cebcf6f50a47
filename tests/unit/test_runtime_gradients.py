"""Autograd around an eager call: what torch's own linear and matmul do, ours do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import FallbackWarning, LoadedTable

M, N, K = 4, 64, 32
Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: list[tuple[Product, Product, tuple[int, int]]] = [
    (hktune.linear, functional.linear, (N, K)),
    (hktune.matmul, torch.matmul, (K, N)),
]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


def leaves(shape: tuple[int, int], wanted: tuple[bool, bool] = (True, True)) -> tuple[Tensor, Tensor]:
    """x, and a weight [N, K] or a b [K, N] that is the transposed view of one."""
    other = bf16(*shape) if shape == (N, K) else bf16(*reversed(shape)).t()
    return bf16(M, K).requires_grad_(wanted[0]), other.requires_grad_(wanted[1])


def close(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-5)


def kept_shapes(product: Product, x: Tensor, other: Tensor) -> set[tuple[int, ...]]:
    """Of the tensors that a call keeps for its backward pass."""
    shapes: set[tuple[int, ...]] = set()

    def pack(tensor: Tensor) -> Tensor:
        shapes.add(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        product(x, other)
    return shapes


@pytest.mark.parametrize(("ours", "theirs", "shape"), PRODUCTS, ids=["linear", "matmul"])
class TestGradients:
    def test_of_a_tensor_that_is_used_twice_are_summed(
        self, ours: Product, theirs: Product, shape: tuple[int, int]
    ) -> None:
        found, expected = leaves(shape), leaves(shape)
        for product, (x, other) in ((ours, found), (theirs, expected)):
            (product(x, other) * product(x * 2, other)).float().sum().backward()
        for mine, torchs in zip(found, expected, strict=True):
            assert mine.grad is not None
            assert torchs.grad is not None
            error = (mine.grad - torchs.grad).float().norm() / torchs.grad.float().norm()
            assert error < 0.02  # a few roundings to bf16, 2^-9 each

    def test_come_again_from_a_retained_graph(self, ours: Product, theirs: Product, shape: tuple[int, int]) -> None:
        x, other = leaves(shape)
        out = ours(x, other)
        first = torch.autograd.grad(out.sum(), (x, other), retain_graph=True)
        again = torch.autograd.grad(out.sum(), (x, other))
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(out.sum(), (x, other))
        del theirs

    def test_have_gradients(self, ours: Product, theirs: Product, shape: tuple[int, int]) -> None:
        found = []
        for product in (ours, theirs):
            x, other = leaves(shape)
            (slope,) = torch.autograd.grad(product(x, other).sum(), x, create_graph=True)
            found.append(torch.autograd.grad(slope.float().square().sum(), other)[0])
        close(*found)

    @pytest.mark.parametrize("changed", [0, 1])
    @pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
    def test_of_operands_changed_in_place_are_refused_where_torch_refuses(
        self, ours: Product, theirs: Product, shape: tuple[int, int], changed: int, wanted: tuple[bool, bool]
    ) -> None:
        for product in (ours, theirs):
            operands = leaves(shape, wanted)
            out = product(*operands)
            with torch.no_grad():
                operands[changed].add_(1)
            needed = wanted[1 - changed]
            with pytest.raises(RuntimeError, match="modified by an inplace operation") if needed else nullcontext():
                out.sum().backward()

    @pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
    def test_keep_the_operands_that_torch_keeps(
        self, ours: Product, theirs: Product, shape: tuple[int, int], wanted: tuple[bool, bool]
    ) -> None:
        kept = [kept_shapes(product, *leaves(shape, wanted)) for product in (ours, theirs)]
        # torch may keep a transposed view
        assert {tuple(sorted(each)) for each in kept[0]} == {tuple(sorted(each)) for each in kept[1]}

    def test_pass_hooks_and_checkpoints(self, ours: Product, theirs: Product, shape: tuple[int, int]) -> None:
        x, other = leaves(shape)
        seen: list[tuple[int, ...]] = []
        other.register_hook(lambda slope: seen.append(tuple(slope.shape)))
        out = checkpoint(lambda x, other: ours(x, other).relu(), x, other, use_reentrant=False)
        assert isinstance(out, Tensor)
        out.register_hook(lambda slope: seen.append(tuple(slope.shape)))
        out.sum().backward()
        assert seen == [(M, N), shape]
        expected = leaves(shape)
        theirs(*expected).relu().sum().backward()
        close(x.grad, expected[0].grad)


class Cut(torch.autograd.Function):
    """Passes its argument on, and no gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        del ctx
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        del ctx, grad


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "eager": nullcontext,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "as an operator": lambda: FlopCounterMode(display=False),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize("product", ["linear", "linear with bias", "matmul"])
class TestAGradientThatNeverCame:
    @staticmethod
    def operands(product: str) -> tuple[tuple[Product, Product], list[Tensor]]:
        other = bf16(N, K).requires_grad_()
        x = bf16(M, K).requires_grad_()
        if product == "matmul":
            return (lambda a, w: hktune.matmul(a, w.T), lambda a, w: torch.matmul(a, w.T)), [x, other]
        bias = [bf16(N).requires_grad_()] if product.endswith("bias") else []
        return (hktune.linear, functional.linear), [x, other, *bias]

    def test_leaves_none(self, product: str, mode: Callable[[], AbstractContextManager[Any]]) -> None:
        products, operands = self.operands(product)
        for each in (products[1], products[0]):
            with mode():
                out = Cut.apply(each(*operands))
            out.sum().backward()
            assert all(operand.grad is None for operand in operands)
            with mode():
                out = Cut.apply(each(*operands))
            with pytest.raises(RuntimeError, match="appears to not have been used"):
                torch.autograd.grad(out.sum(), operands)
        assert hktune.stats().hits == 2

    def test_adds_nothing_to_what_came_another_way(
        self, product: str, mode: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        products, found = self.operands(product)
        expected = self.operands(product)[1]
        for each, operands in zip(products, (found, expected), strict=True):
            with mode():
                (Cut.apply(each(*operands)).float().sum() + each(*operands).float().sum()).backward()
        for mine, torchs in zip(found, expected, strict=True):
            close(mine.grad, torchs.grad)

    def test_lets_no_decay_move_the_weight(self, product: str, mode: Callable[[], AbstractContextManager[Any]]) -> None:
        products, operands = self.operands(product)
        step = torch.optim.AdamW(operands, lr=0.5, weight_decay=0.5)
        before = [operand.detach().clone() for operand in operands]
        with mode():
            Cut.apply(products[0](*operands)).sum().backward()
        step.step()
        assert all(torch.equal(*pair) for pair in zip(operands, before, strict=True))


class Below(torch.Tensor):
    """A tensor type whose operators call a product in the place of `relu`, below autograd."""

    product: Callable[[], Tensor]

    @staticmethod
    def __new__(cls, shape: tuple[int, ...]) -> Below:
        return torch.Tensor._make_wrapper_subclass(cls, shape, requires_grad=True)  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        del func, types, args, kwargs
        return cls.product()


BELOW: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "enable_grad in inference mode": lambda: chained(torch.inference_mode(), torch.enable_grad()),
    "below autograd": torch._C._AutoDispatchBelowAutograd,
    "inference mode": torch.inference_mode,
    "inference mode that is left again": lambda: chained(torch.inference_mode(), torch.inference_mode(False)),
    "no_grad": torch.no_grad,
}


@contextmanager
def chained(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as entered:
        for context in contexts:
            entered.enter_context(context)
        yield


@pytest.mark.parametrize("where", BELOW.values(), ids=BELOW.keys())
@pytest.mark.parametrize("with_autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize(("ours", "theirs", "shape"), PRODUCTS, ids=["linear", "matmul"])
def test_a_gradient_is_recorded_where_torch_records_one(
    ours: Product,
    theirs: Product,
    shape: tuple[int, int],
    where: Callable[[], AbstractContextManager[Any]],
    with_autocast: bool,
) -> None:
    x, other = leaves(shape)
    with where(), torch.autocast("cpu", torch.bfloat16, enabled=with_autocast):
        found, expected = ours(x, other), theirs(x, other)
        layer, torchs = hktune.Linear(K, N), nn.Linear(K, N, dtype=torch.bfloat16)
        of_layers = layer(bf16(M, K)), torchs(bf16(M, K))
    assert hktune.stats().hits == 2
    close(found.detach(), expected.detach())
    for mine, its in ((found, expected), of_layers):
        assert mine.requires_grad == its.requires_grad
        assert mine.is_inference() == its.is_inference()
        assert (mine.grad_fn is None) == (its.grad_fn is None)


@pytest.mark.parametrize(("ours", "theirs", "shape"), PRODUCTS, ids=["linear", "matmul"])
def test_a_product_in_the_dispatch_of_a_tensor_type(ours: Product, theirs: Product, shape: tuple[int, int]) -> None:
    recorded = []
    for product in (ours, theirs):

        def inner(product: Product = product) -> Tensor:
            out = product(*leaves(shape))
            recorded.append(out.requires_grad)
            return out

        Below.product = inner
        Below((M, N)).relu()
    assert recorded == [False, False]
    assert hktune.stats().hits == 1


def test_an_output_may_be_changed_in_place_and_viewed() -> None:
    ours, theirs = leaves((N, K)), leaves((N, K))
    for product, operands in ((hktune.linear, ours), (functional.linear, theirs)):
        out = product(*operands)
        out[1:].mul_(3)
        assert out.grad_fn is not None
        out.view(2, -1).sum().backward()
    for mine, torchs in zip(ours, theirs, strict=True):
        close(mine.grad, torchs.grad)


def test_what_a_transform_left_behind_is_torchs(table: LoadedTable) -> None:
    left: list[Tensor] = []

    def leaves_its_argument(weight: Tensor) -> Tensor:
        left.append(weight)
        return weight.float().square().sum()

    torch.func.grad(leaves_its_argument)(bf16(N, K))
    x = bf16(M, K).requires_grad_()
    with pytest.warns(FallbackWarning, match="tensor type"):
        out = hktune.linear(x, left[0])
    assert torch.equal(out, functional.linear(x, left[0]))
    out.sum().backward()
    close(x.grad, bf16(N, K).sum(0).expand(M, K))
    with torch.no_grad():
        assert torch.equal(hktune.linear(x, left[0]), out)
    assert table.stats().fallbacks == {"tensor type": 2}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_torchs() -> None:
    nested, weight = torch.nested.nested_tensor([bf16(2, K), bf16(3, K)]), bf16(N, K)
    with pytest.warns(FallbackWarning, match="bfloat16 nested on cpu .* because of: tensor type"):
        found = hktune.linear(nested, weight)
    for mine, torchs in zip(found.unbind(), functional.linear(nested, weight).unbind(), strict=True):
        assert torch.equal(mine, torchs)


class TestWhatTheTableLeavesToTorch:
    """A shape without a kernel."""

    def test_is_recorded_by_torch_itself(self) -> None:
        x, weight = bf16(M, 2 * K), bf16(N, 2 * K).requires_grad_()
        with pytest.warns(FallbackWarning, match="no entry"):
            first = hktune.linear(x, weight)
        second, theirs = hktune.linear(x, weight), functional.linear(x, weight)
        assert second.grad_fn is not None
        assert type(second.grad_fn) is type(theirs.grad_fn)
        assert torch.equal(first, second)
        assert hktune.stats().fallbacks == {"no entry for the shape": 2}

    def test_stays_what_it_is_with_another_bias_or_leading_dimensions(self) -> None:
        x, weight = bf16(2, M, 2 * K), bf16(N, 2 * K).requires_grad_()
        with pytest.warns(FallbackWarning, match="no entry"):
            hktune.linear(x, weight)
        bias = bf16(N).requires_grad_()
        torch.testing.assert_close(hktune.linear(x, weight, bias), functional.linear(x, weight, bias))
        close(hktune.linear(bf16(M, K), bf16(N, K).requires_grad_()), functional.linear(bf16(M, K), bf16(N, K)))
        assert hktune.stats().hits == 1

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    def test_nested_tensors_are_torchs_after_it_too(self) -> None:
        weight = bf16(N, 2 * K).requires_grad_()
        with pytest.warns(FallbackWarning, match="no entry"):
            hktune.linear(bf16(M, 2 * K), weight)
        nested = torch.nested.nested_tensor([bf16(2, 2 * K), bf16(3, 2 * K)])
        with pytest.warns(FallbackWarning, match="tensor type"):
            assert hktune.linear(nested, weight).is_nested
