"""Calls that no kernel takes are torch's own, forward and backward, whatever is around them.

The table has a kernel for every shape here that can have one, so that what is refused is refused for its operands.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torch_alike import assert_alike, outcome
from torch_operands import bf16

import hktune
from hktune.core.operation import legacy_operation
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

M, N, K = 4, 64, 32

pytestmark = pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(
        tmp_path, *(trial(Problem(m, N, K, legacy_operation("bf16", add))) for m in (1, M) for add in ("none", "bias"))
    )
    return hktune.load(tmp_path, allow_modelled=True)


def complex64(*shape: int) -> Tensor:
    return torch.complex(bf16(*shape).float(), bf16(*shape).float().flip(0))


Operands = Callable[[], tuple[Tensor, ...]]
LINEAR: dict[str, Operands] = {
    "complex": lambda: (complex64(M, K), complex64(N, K)),
    "complex bias": lambda: (complex64(M, K), complex64(N, K), complex64(N)),
    "conjugated": lambda: (complex64(M, K).conj(), complex64(N, K)),
    "float32": lambda: (bf16(M, K).float(), bf16(N, K).float(), bf16(N).float()),
    "float64": lambda: (bf16(M, K).double(), bf16(N, K).double()),
    "float16": lambda: (bf16(M, K).half(), bf16(N, K).half()),
    "two types": lambda: (bf16(M, K), bf16(N, K).float()),
    "a negated view": lambda: (torch._neg_view(bf16(M, K)), bf16(N, K)),
    "a negated weight": lambda: (bf16(M, K), torch._neg_view(bf16(N, K))),
    "a negated bias": lambda: (bf16(M, K), bf16(N, K), torch._neg_view(bf16(N))),
    "weight of one dimension": lambda: (bf16(M, K), bf16(K)),
    "weight and bias of fewer dimensions": lambda: (bf16(M, K), bf16(K), bf16(1)[0]),
    "bias [1, N]": lambda: (bf16(M, K), bf16(N, K), bf16(1, N)),
    "bias [M, N]": lambda: (bf16(M, K), bf16(N, K), bf16(M, N)),
    "bias [1]": lambda: (bf16(M, K), bf16(N, K), bf16(1)),
    "a scalar bias": lambda: (bf16(M, K), bf16(N, K), bf16(1)[0]),
    "bias that does not fit": lambda: (bf16(M, K), bf16(N, K), bf16(N + 1)),
    "N = 0": lambda: (bf16(M, K), bf16(0, K), bf16(0)),
    "K = 0": lambda: (bf16(M, 0), bf16(N, 0), bf16(N)),
    "M = 0": lambda: (bf16(0, K), bf16(N, K), bf16(N)),
    "M = 0 of three dimensions": lambda: (bf16(3, 0, K), bf16(N, K)),
    "rows that do not fit": lambda: (bf16(M, K), bf16(N, K + 1)),
    "x of one dimension": lambda: (bf16(K), bf16(N, K), bf16(N)),
    "an expanded x": lambda: (bf16(1, K).expand(M, K), bf16(N, K)),
    "an expanded weight": lambda: (bf16(M, K), bf16(1, K).expand(N, K)),
}
MATMUL: dict[str, Operands] = {
    "complex": lambda: (complex64(M, K), complex64(K, N)),
    "complex, b a view": lambda: (complex64(M, K), complex64(N, K).T),
    "conjugated, b a view": lambda: (complex64(M, K), complex64(N, K).mH),
    "float32": lambda: (bf16(M, K).float(), bf16(N, K).T.float()),
    "a negated view": lambda: (torch._neg_view(bf16(M, K)), bf16(N, K).T),
    "a negated b": lambda: (bf16(M, K), torch._neg_view(bf16(N, K).T)),
    "b as it is": lambda: (bf16(M, K), bf16(K, N)),
    "b of one dimension": lambda: (bf16(M, K), bf16(K)),
    "b of three dimensions": lambda: (bf16(2, M, K), bf16(2, K, N)),
    "a broadcast b": lambda: (bf16(M, K), bf16(3, K, N)),
    "two vectors": lambda: (bf16(K), bf16(K)),
    "a vector and a view": lambda: (bf16(K), bf16(N, K).T),
    "N = 0": lambda: (bf16(M, K), bf16(0, K).T),
    "K = 0": lambda: (bf16(M, 0), bf16(N, 0).T),
    "M = 0": lambda: (bf16(0, K), bf16(N, K).T),
    "rows that do not fit": lambda: (bf16(M, K + 1), bf16(N, K).T),
    "scalars": lambda: (bf16(1)[0], bf16(N, K).T),
}
CALLS = [
    *(pytest.param(hktune.linear, functional.linear, each, id=f"linear, {name}") for name, each in LINEAR.items()),
    *(pytest.param(hktune.matmul, torch.matmul, each, id=f"matmul, {name}") for name, each in MATMUL.items()),
]


def with_gradients(make: Operands) -> tuple[Tensor, ...]:
    return tuple(each.requires_grad_() for each in make())


def within(context: Callable[[], AbstractContextManager[Any]], product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*operands: Tensor) -> Tensor:
        with context():
            return product(*operands)

    return call


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "alone": nullcontext,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "a dispatch mode": lambda: FlopCounterMode(display=False),
    "a function mode": lambda: torch.device("cpu"),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS.keys())
@pytest.mark.parametrize(("ours", "theirs", "make"), CALLS)
def test_is_torchs_own_product(
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    make: Operands,
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    operands = with_gradients(make)
    for _ in range(2):
        assert_alike(within(context, ours), within(context, theirs), operands)


@pytest.mark.parametrize(("ours", "theirs", "make"), CALLS)
def test_is_torchs_own_product_compiled(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], make: Operands
) -> None:
    operands = with_gradients(make)
    if any(each.is_neg() or each.is_conj() for each in operands):
        pytest.skip("torch's own compiler does not take such an input")
    try:
        outcome(theirs, operands)
    except (RuntimeError, TypeError):
        return
    torch._dynamo.reset()
    compiled = torch.compile(lambda *each: ours(*each), fullgraph=True, backend="aot_eager")
    assert_alike(compiled, theirs, operands)


def test_only_what_a_kernel_served_is_recorded_by_hktune(table: LoadedTable) -> None:
    served = 0
    for make in LINEAR.values():
        try:
            torchs = functional.linear(*with_gradients(make)).grad_fn
        except RuntimeError:
            continue
        mine = hktune.linear(*with_gradients(make)).grad_fn
        hits = table.stats().hits
        assert (type(mine) is type(torchs)) == (hits == served), (mine, torchs)
        served = hits
    assert served == 1, "a vector x, which is one row"


class Scaled(Tensor):
    """A weight of a type of its own, with a linear and a gradient of its own."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear:
            return Doubling.apply(args[0], args[1].as_subclass(Tensor))  # type: ignore[no-untyped-call]
        return super().__torch_function__(func, types, args, kwargs or {})


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(x, weight) * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad @ ctx.saved_tensors[0] * 7, None


def test_a_weight_with_a_linear_of_its_own_keeps_it(table: LoadedTable) -> None:
    weight, found = bf16(N, K).as_subclass(Scaled), []
    for product in (hktune.linear, functional.linear):
        x = bf16(M, K).requires_grad_()
        out = product(x, weight)
        out.float().sum().backward()
        found.append((out, x.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] is not None
    assert torch.equal(found[0][1], found[1][1])
    assert table.stats().fallbacks == {"tensor type": 1}


def test_nested_tensors_with_ragged_rows() -> None:
    weight = nn.Parameter(bf16(N, K))
    for _ in range(2):
        nested = torch.nested.nested_tensor([bf16(2, K), bf16(3, K)], layout=torch.jagged)
        found, expected = hktune.linear(nested, weight), functional.linear(nested, weight)
        for mine, torchs in zip(found.unbind(), expected.unbind(), strict=True):
            assert torch.equal(mine, torchs)


@pytest.mark.parametrize("wrong", [5, [1.0], None, "x"])
def test_what_is_no_tensor_gets_torchs_error(wrong: Any) -> None:
    for call in (lambda: hktune.linear(wrong, bf16(N, K)), lambda: hktune.matmul(bf16(M, K), wrong)):
        with pytest.raises(TypeError, match="must be Tensor"):
            call()
