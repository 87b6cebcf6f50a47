"""What was served once is known again, and what only looks like it is not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable
from hktune.runtime.serving import seen_calls

M, N, K = 4, 64, 32

pytestmark = [
    pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated"),
]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    """With calls of each kind seen: with and without gradients, bias, parameters, inference."""
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    table = hktune.load(tmp_path, allow_modelled=True)
    for weight in (bf16(N, K), bf16(N, K).requires_grad_(), nn.Parameter(bf16(N, K))):
        for _ in range(3):
            hktune.linear(bf16(M, K), weight)
            hktune.linear(bf16(M, K), weight, bf16(N))
            hktune.matmul(bf16(M, K), weight.t())
    return table


def served(table: LoadedTable, call: Callable[[], object]) -> int:
    before = table.stats().hits
    call()
    return table.stats().hits - before


def test_a_call_of_a_kind_that_was_seen_asks_no_more_questions(
    table: LoadedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> Any:
        raise AssertionError("a question was asked again")

    monkeypatch.setattr(LoadedTable, "_find", none)
    x, weight = bf16(M, K), bf16(N, K)
    torch.testing.assert_close(hktune.linear(x, weight), functional.linear(x, weight), rtol=2**-7, atol=1e-5)
    torch.testing.assert_close(hktune.matmul(x, weight.t()), functional.linear(x, weight), rtol=2**-7, atol=1e-5)
    assert hktune.linear(x, weight.requires_grad_(), bf16(N)).requires_grad


def strided() -> Tensor:
    return bf16(M, 2 * K)[:, :K]


LOOK_ALIKES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "negated": lambda: (torch._neg_view(bf16(M, K)), bf16(N, K)),
    "negated weight": lambda: (bf16(M, K), torch._neg_view(bf16(N, K))),
    "not on 16 bytes": lambda: (bf16(M * K + 1)[1:].view(M, K), bf16(N, K)),
    "weight not on 16 bytes": lambda: (bf16(M, K), bf16(N * K + 1)[1:].view(N, K)),
    "rows apart": lambda: (strided(), bf16(N, K)),
    "a column-major weight": lambda: (bf16(M, K), bf16(K, N).t()),
    "float32": lambda: (bf16(M, K).float(), bf16(N, K).float()),
    "float16": lambda: (bf16(M, K).half(), bf16(N, K).half()),
    "zeros without memory": lambda: (torch._efficientzerotensor((M, K), dtype=torch.bfloat16), bf16(N, K)),
    "sparse": lambda: (bf16(M, K), bf16(N, K).to_sparse()),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_operands_of_the_same_shapes_that_no_kernel_takes_are_torchs(name: str, table: LoadedTable) -> None:
    left, right = LOOK_ALIKES[name]()
    for _ in range(2):
        assert served(table, lambda: compare(left, right)) == 0


def compare(left: Any, right: Any) -> None:
    try:
        expected = functional.linear(left, right)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            hktune.linear(left, right)
        return
    assert torch.equal(hktune.linear(left, right).to_dense(), expected.to_dense())


class Modes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_what_watches_sees_calls_of_a_kind_that_was_seen() -> None:
    x, weight = bf16(M, K), bf16(N, K)
    with Modes() as modes:
        hktune.linear(x, weight)
    assert "hktune.linear.default" in modes.names
    with Functions() as functions:
        hktune.linear(x, weight)
    assert hktune.linear in functions.seen
    for pre_dispatch in (False, True):
        graph = make_fx(lambda *operands: hktune.linear(*operands), pre_dispatch=pre_dispatch)(x, weight)
        assert "hktune.linear" in str(graph.graph)


def test_transforms_around_plain_operands_get_torchs_product(table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)

    def inside(scale: Tensor) -> Tensor:
        return (hktune.linear(x, weight) * scale).sum()

    assert served(table, lambda: vmap(inside)(torch.ones(3))) == 0
    assert served(table, lambda: grad(inside)(torch.ones(()))) == 0
    with torch.autograd.forward_ad.dual_level():
        assert served(table, lambda: hktune.linear(x, weight)) == 0
    assert served(table, lambda: torch.jit.trace(inside, (torch.ones(()),), check_trace=False)) == 0
    assert served(table, lambda: hktune.linear(x, weight)) == 1


def test_gradients_are_asked_only_where_they_are_on() -> None:
    x, weight = bf16(M, K), bf16(N, K).requires_grad_()
    for context, asks in ((torch.no_grad, False), (torch.enable_grad, True), (contextlib.nullcontext, True)):
        for _ in range(3):
            with context():
                assert hktune.linear(x, weight).requires_grad == asks
    with torch.inference_mode():
        for _ in range(4):
            out = hktune.linear(bf16(M, K), weight)
            assert out.is_inference()
            assert not out.requires_grad
    for wanted in ((True, False), (False, True), (True, True)):
        for _ in range(4):
            left, right = bf16(M, K).requires_grad_(wanted[0]), bf16(N, K).requires_grad_(wanted[1])
            hktune.linear(left, right).sum().backward()
            assert (left.grad is not None, right.grad is not None) == wanted


def test_below_autograd_a_kind_that_was_seen_records_no_gradient() -> None:
    x, weight = bf16(M, K), bf16(N, K).requires_grad_()
    for _ in range(4):
        with torch._C._AutoDispatchBelowAutograd():
            assert not hktune.linear(x, weight).requires_grad
            with torch.autocast("cpu", torch.bfloat16):
                assert not hktune.linear(x.float(), weight.detach().float().requires_grad_()).requires_grad
        assert hktune.linear(x, weight).requires_grad


def test_a_bias_of_another_kind_is_torchs(table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    for bias in (bf16(2 * N)[::2], bf16(N + 1)[1:], bf16(1), torch._neg_view(bf16(N))):
        for _ in range(2):
            assert torch.equal(hktune.linear(x, weight, bias), functional.linear(x, weight, bias))
    wrong: Any = 5
    with pytest.raises(TypeError):
        hktune.linear(x, weight, wrong)
    assert served(table, lambda: hktune.linear(x, weight, bf16(N))) == 1


def test_kinds_of_one_shape_are_bounded_and_threads_may_add_them(table: LoadedTable) -> None:
    x = bf16(M, K)

    def many() -> None:
        for number in range(40):
            weight = bf16(N, K).requires_grad_(bool(number & 1))
            with torch.inference_mode(bool(number & 2)):
                hktune.linear(x if number & 4 else bf16(M, K).requires_grad_(), weight)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shapes = next(place for place in table._places.values() if place is not None).served.values()
    assert all(len(each.kinds) <= seen_calls.KINDS_MAX + 4 for each in shapes if not isinstance(each, str))
    with torch.no_grad():
        weight = bf16(N, K)
        torch.testing.assert_close(hktune.linear(x, weight), functional.linear(x, weight), rtol=2**-7, atol=1e-5)
