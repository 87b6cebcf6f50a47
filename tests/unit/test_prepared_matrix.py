"""What was prepared of a matrix follows it, or is torch's product of it, whatever happens in between."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable, PreparedMatrix, operators, prepared_matrix

M, N, K = 4, 64, 32

pytestmark = [
    pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),  # torch's own, for forward-mode AD
]


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedTable:
    monkeypatch.setattr(operators, "_current", None)
    torch.manual_seed(0)
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, K, K)), trial(Problem(M, 256, 256)))
    return hktune.load(tmp_path, allow_modelled=True)


def random(*shape: int) -> Tensor:
    """Other numbers each time."""
    return torch.randn(shape).bfloat16()


def close(found: Tensor, a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(found, a @ b, rtol=2**-6, atol=2**-3)


def outcome(product: Callable[[], Tensor]) -> Tensor | str:
    try:
        return product()
    except (RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def alike(a: Tensor, prepared: PreparedMatrix, b: Tensor) -> None:
    """Torch's product, or torch's error to the letter."""
    found, expected = outcome(lambda: hktune.matmul(a, prepared)), outcome(lambda: torch.matmul(a, b))
    if isinstance(expected, str):
        assert found == expected
    else:
        torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-3)


def test_data_that_comes_back_to_an_old_address_is_seen(table: LoadedTable) -> None:
    """The allocator gives the memory that the first `.data` freed to the second."""
    a, b = random(M, 256), random(256, 256)
    prepared = hktune.prepare(b)
    addresses = set()
    for _ in range(20):
        b.data = random(256, 256)
        b.data = random(256, 256)
        addresses.add(b.data_ptr())
        close(hktune.matmul(a, prepared), a, b)
    assert len(addresses) < 20
    assert table.stats().hits == 20


OTHER_DATA: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda b: b.t(),
    "of another width": lambda b: random(K, N),
    "of one column": lambda b: random(K, 1),
    "of one row, expanded": lambda b: random(1, K).expand(K, K),
    "narrower at the same address": lambda b: b[:, :16],
    "turned over": lambda b: b.flip(0),
    "every other column of one storage": lambda b: random(K, 2 * K)[:, ::2],
}


@pytest.mark.parametrize("other", OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_data_of_other_strides_or_shape_is_seen(other: Callable[[Tensor], Tensor]) -> None:
    a, b = random(M, K), random(K, K)
    prepared = hktune.prepare(b)
    close(hktune.matmul(a, prepared), a, b)
    for change in (other, lambda b: random(K, K), other):
        b.data = change(b.data)
        for _ in range(2):
            close(hktune.matmul(a, prepared), a, b)
        assert prepared.shape == b.shape


@pytest.mark.parametrize("data", [random(K, N).float(), random(2, K, N), random(K)], ids=["float", "3-d", "1-d"])
def test_data_that_no_copy_can_be_made_of_is_torchs(data: Tensor) -> None:
    a, b = random(M, K), random(K, K)
    prepared = hktune.prepare(b)
    b.data = data
    for operand in (a, a.float()):
        alike(operand, prepared, b)
    assert str(list(data.shape)) in repr(prepared)


def grad_of(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    return torch.func.grad(lambda a: product(a).float().sum())(a)


def mapped(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    return torch.vmap(product)(a)


def dual(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(product(forward_ad.make_dual(a, torch.ones_like(a)))).tangent
    assert tangent is not None
    return tangent


def counted(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    with FlopCounterMode(display=False):
        return product(a)


def of_functions(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    with torch.device("cpu"):
        return product(a)


def jit_traced(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))  # type: ignore[arg-type]
        return torch.jit.trace(product, a)(a)  # type: ignore[no-any-return,no-untyped-call]


def as_fx(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    return make_fx(product)(a)(a)  # type: ignore[no-any-return]


def symbolic(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    class Product(nn.Module):
        def forward(self, a: Tensor) -> Tensor:
            return product(a)

    return torch.fx.symbolic_trace(Product())(a)  # type: ignore[no-any-return]


WATCHERS = (grad_of, mapped, dual, counted, of_functions, as_fx, jit_traced, symbolic)


@pytest.mark.parametrize("watcher", WATCHERS, ids=lambda watcher: watcher.__name__)
@pytest.mark.parametrize("is_used_before", [False, True])
def test_a_change_before_a_watched_call_is_seen_in_it_and_after_it(
    watcher: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor], is_used_before: bool
) -> None:
    a, b = random(M, K), random(K, N)
    prepared = hktune.prepare(b)
    if is_used_before:
        hktune.matmul(a, prepared)
    b.mul_(3)
    found = watcher(lambda a: hktune.matmul(a, prepared), a)
    torch.testing.assert_close(found, watcher(lambda a: torch.matmul(a, b), a), rtol=2**-6, atol=2**-3)
    close(hktune.matmul(a, prepared), a, b)


@pytest.mark.parametrize("watcher", [as_fx, jit_traced, symbolic], ids=lambda watcher: watcher.__name__)
def test_a_graph_holds_the_matrix_and_not_its_copy(
    watcher: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
) -> None:
    a, b = random(M, K), random(K, N)
    prepared = hktune.prepare(b)
    graphs: list[Callable[[Tensor], Tensor]] = []

    def traced(product: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        if watcher is as_fx:
            graphs.append(make_fx(product)(a))
        elif watcher is symbolic:

            class Product(nn.Module):
                def forward(self, a: Tensor) -> Tensor:
                    return product(a)

            graphs.append(torch.fx.symbolic_trace(Product()))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))  # type: ignore[arg-type]
                graphs.append(torch.jit.trace(product, a))  # type: ignore[no-untyped-call]
        return a

    traced(lambda a: hktune.matmul(a, prepared), a)
    for _ in range(2):
        b.mul_(3)
        close(graphs[0](a), a, b)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("is_changed_before", [False, True])
def test_an_exported_program_holds_the_matrix(strict: bool, is_changed_before: bool) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Buffer(random(K, N))
            self.prepared = hktune.prepare(self.b)

        def forward(self, a: Tensor) -> Tensor:
            return hktune.matmul(a, self.prepared)

    a, module = random(M, K), Product()
    if is_changed_before:
        module.b.mul_(3)
    program = torch.export.export(module, (a,), strict=strict).module()
    close(program(a), a, module.b)
    close(module(a), a, module.b)
    module.b.mul_(3)
    close(module(a), a, module.b)


def test_a_fake_call_leaves_the_real_copy_alone() -> None:
    a, b = random(M, K), random(K, N)
    prepared = hktune.prepare(b)
    b.mul_(3)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert hktune.matmul(mode.from_tensor(a), prepared).shape == (M, N)
    close(hktune.matmul(a, prepared), a, b)
    with FakeTensorMode():
        later = hktune.prepare(b)
    close(hktune.matmul(a, later), a, b)


def test_a_copy_that_failed_is_made_at_the_next_use(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random(M, K), random(K, N)
    prepared = hktune.prepare(b)
    b.mul_(3)

    def full(tensor: Tensor) -> None:
        raise torch.OutOfMemoryError("no memory")

    for change in (lambda: None, prepared.invalidate):
        change()
        with monkeypatch.context() as patched:
            patched.setattr(prepared_matrix, "_finish", full)
            with pytest.raises(torch.OutOfMemoryError):
                hktune.matmul(a, prepared)
        close(hktune.matmul(a, prepared), a, b)


def test_a_copy_of_it_is_prepared_of_its_own_matrix(table: LoadedTable) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Buffer(random(K, N))
            self.prepared = hktune.prepare(self.b)

    a, holder = random(M, K), Holder()
    saved = io.BytesIO()
    torch.save(holder.prepared, saved)
    saved.seek(0)
    copied = copy.deepcopy(holder)
    for other in (copied.prepared, pickle.loads(pickle.dumps(holder.prepared)), torch.load(saved, weights_only=False)):
        close(hktune.matmul(a, other), a, holder.b)
    copied.b.mul_(3)
    close(hktune.matmul(a, copied.prepared), a, copied.b)
    close(hktune.matmul(a, holder.prepared), a, holder.b)
    assert table.stats().fallbacks == {}


UNUSUAL = {
    "0-d": torch.tensor(1.0).bfloat16(),
    "a list": [1],
    "None": None,
    "another K": random(M, N),
    "empty": random(0, K),
    "1-d": random(K),
    "float": random(M, K).float(),
}


@pytest.mark.parametrize("a", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_an_unusual_left_operand_is_as_torchs_matmul_has_it(a: Tensor) -> None:
    b = random(K, N)
    alike(a, hktune.prepare(b), b)


def test_an_inference_tensor_is_copied_anew_on_demand_and_with_other_data(table: LoadedTable) -> None:
    a = random(M, K)
    with torch.inference_mode():
        b = random(K, N)
        prepared = hktune.prepare(b)
        b.mul_(2)
        prepared.invalidate()
        close(hktune.matmul(a, prepared), a, b)
    with torch.inference_mode():
        b.data = random(K, N)
        close(hktune.matmul(a, prepared), a, b)
    assert table.stats().hits == 2
