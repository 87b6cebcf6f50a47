"""`patch(model, fuse=True)`: what is behind a linear is done by its kernel, in models that write it as modules do.

The truth is the same model before it was patched, and torch in float64.
"""

from __future__ import annotations

import copy
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import K, M, N, built, hits, launched
from naive_gemm import EMULATED, OBJECTS, trial
from torch import Tensor, nn
from torch.nn import functional

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import write_table
from hktune.runtime import LoadedTable
from hktune.tables import build_table

FUSED = {
    Problem(M, N, K, operation_of("bf16.nt+silu+gated")),
    Problem(M, N, K, operation_of("bf16.nt+bias+gelu_tanh+gated")),
    Problem(M, N, K, operation_of("bf16.nt+bias+gelu")),
    Problem(M, K, N, operation_of("bf16.nt+residual")),
}
PLAIN = {Problem(M, n, k, operation_of(text)) for n, k in ((N, K), (K, N)) for text in ("bf16.nt", "bf16.nt+bias")} | {
    Problem(M, 2 * N, K, operation_of(text)) for text in ("bf16.nt", "bf16.nt+bias")
}


def row(problem: Problem) -> Trial:
    if problem in PLAIN:
        return trial(problem)
    return trial(problem, object_sha256=hashlib.sha256(built(str(problem.operation)).data).hexdigest())


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    rows = [row(problem) for problem in sorted(FUSED | PLAIN)]
    made = build_table(rows, launched, EMULATED, "clang 22", "0.1.0", "2026-11-30T05:00:00+00:00")
    codes = [built(str(problem.operation)).data for problem in FUSED]
    write_table(made, {**OBJECTS, **{hashlib.sha256(data).hexdigest(): data for data in codes}}, tmp_path)
    return hktune.load(tmp_path, allow_modelled=True)


def linear(out: int, of: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(of, out, bias, dtype=torch.bfloat16)


class GatedMlp(nn.Module):
    """As Llama's."""

    def __init__(self, activation: nn.Module, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = linear(N, K, bias), linear(N, K, bias)
        self.down_proj, self.act_fn = linear(K, N), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Gates as functions, and a sum behind the last linear."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = linear(N, K), linear(N, K), linear(K, N)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x) * functional.silu(self.gate(x)))  # type: ignore[no-any-return]


MODELS: dict[str, tuple[nn.Module, str, int, int]] = {
    "llama": (GatedMlp(nn.SiLU()), "silu(gate_proj) * up_proj", 2, 3),
    "gemma": (GatedMlp(nn.GELU("tanh"), bias=True), "gelu_tanh(gate_proj) * up_proj", 2, 3),
    "block": (Block(), "silu(gate) * up, down + x", 2, 3),
    "bert": (nn.Sequential(linear(N, K, True), nn.GELU(), linear(K, N)), "gelu(0)", 2, 2),
}


def model_of(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = copy.deepcopy(MODELS[name][0])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def given() -> Tensor:
    return torch.randn(M, K, generator=torch.Generator().manual_seed(4)).bfloat16()


def exact(model: nn.Module) -> Tensor:
    twin = copy.deepcopy(model)
    hktune.unpatch(twin, quiet=True)
    with torch.no_grad():
        return twin.double()(given().double())  # type: ignore[no-any-return]


def assert_right(out: Tensor, model: nn.Module) -> None:
    torch.testing.assert_close(out.double(), exact(model), rtol=2**-5, atol=2**-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_kernel_finishes_what_is_behind_a_linear(name: str, table: LoadedTable) -> None:
    model, (_, said, kernels, _) = model_of(name), MODELS[name]
    before = copy.deepcopy(model).state_dict()
    report = hktune.patch(model, fuse=True, quiet=True)
    assert report.fused == {"": said}
    assert f"  fused  (the model itself): {said}" in str(report)
    with torch.no_grad():
        for _ in range(2):
            out, count = hits(table, lambda: model(given()))
            assert count == kernels
            assert_right(out, model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_with_gradients_it_is_what_it_was(name: str, table: LoadedTable) -> None:
    model, (_, _, _, kernels) = model_of(name), MODELS[name]
    twin = copy.deepcopy(model)
    hktune.patch(model, fuse=True, quiet=True)
    hktune.patch(twin, quiet=True)
    out, count = hits(table, lambda: model(given()))
    assert count == kernels
    assert torch.equal(out, twin(given()))
    out.sum().backward()
    twin(given()).sum().backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)


WAYS = {
    "in place": lambda weight: weight.mul_(-2),
    "by data": lambda weight: weight.data.fill_(0.25),
    "of a view": lambda weight: weight.data[1].zero_(),
    "other memory": lambda weight: setattr(weight, "data", -weight.data),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["gate_proj", "up_proj"])
def test_changed_weights_are_never_answered_for_by_old_ones(way: str, which: str) -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    with torch.no_grad():
        before = model(given())
        WAYS[way](model.get_submodule(which).weight)
        out = model(given())
    assert not torch.equal(out, before)
    assert_right(out, model)


def test_a_step_of_an_optimizer_loaded_weights_and_another_parameter_count(table: LoadedTable) -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    model(given()).sum().backward()
    torch.optim.SGD(model.parameters(), 0.5).step()
    with torch.no_grad():
        out, count = hits(table, lambda: model(given()))
        assert count == 2
        assert_right(out, model)
        model.load_state_dict({name: value / 2 for name, value in model.state_dict().items()})
        assert_right(model(given()), model)
        model.get_submodule("up_proj").weight = nn.Parameter(torch.ones(N, K, dtype=torch.bfloat16))
        out, count = hits(table, lambda: model(given()))
        assert count == 3
        assert_right(out, model)


def test_a_bias_that_one_of_both_was_given_later_is_added() -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True)
    model.up_proj.bias = nn.Parameter(torch.full((N,), 8.0, dtype=torch.bfloat16))  # type: ignore[union-attr]
    with torch.no_grad():
        assert_right(model(given()), model)


def test_hooks_and_children_of_others_are_called(table: LoadedTable) -> None:
    model, seen = model_of("llama"), []
    hktune.patch(model, fuse=True, quiet=True)
    handle = model.get_submodule("up_proj").register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model(given())
        handle.remove()
        assert seen == [1]
        assert hits(table, lambda: model(given()))[1] == 2
        model.act_fn = nn.ReLU()
        assert_right(model(given()), model)


def test_unpatch_copies_and_pickles_give_the_class_back() -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    assert isinstance(model, GatedMlp)
    twin, stored = copy.deepcopy(model), io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    hktune.unpatch(model, quiet=True)
    with torch.no_grad():
        for each in (model, twin, loaded):
            assert type(each) is GatedMlp
            assert torch.equal(each(given()), twin(given()))


class Uses(nn.Module):
    """What a plan does not have, by `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.second = kind, linear(N, K), linear(N, K)

    def forward(self, x: Tensor) -> Any:
        product = self.first(x)
        if self.kind == "twice":
            return functional.silu(product) * self.second(x) + product
        if self.kind == "training" and self.training:
            return functional.relu(product)
        if self.kind == "values" and x.sum() > 0:
            return product
        if self.kind == "another function":
            return functional.silu(product).clamp(min=0) * self.second(x)
        return functional.gelu(product)


@pytest.mark.parametrize("kind", ["training", "values", "another function"])
def test_a_forward_that_depends_on_more_or_does_more_is_left(kind: str) -> None:
    model = Uses(kind)
    assert not hktune.patch(model, fuse=True, quiet=True).fused
    assert type(model) is Uses


def test_a_product_that_is_used_twice_is_not_lost() -> None:
    model = Uses("twice")
    report = hktune.patch(model, fuse=True, quiet=True)
    with torch.no_grad():
        assert_right(model(given()), model)
    assert "silu(first) * second" not in str(report)


class InPlace(nn.Module):
    """A child that writes to what a linear before it has read."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.up, self.gate, self.square = kind, linear(N, K), linear(N, K), linear(K, K)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        if self.kind == "sum":
            product = self.square(x)
            return product + self.act(x)
        if self.kind == "activation":
            product = self.up(x)
            return functional.silu(product), self.act(x)
        gate = self.gate(x)
        return functional.silu(gate) * self.up(self.act(x))


@pytest.mark.parametrize("kind", ["sum", "activation", "gates"])
def test_what_a_linear_reads_is_not_written_to_before_it_is_done(kind: str) -> None:
    model = InPlace(kind)
    twin = copy.deepcopy(model)
    hktune.patch(model, fuse=True, quiet=True)
    with torch.no_grad():
        torch.testing.assert_close(model(given()), twin(given()), rtol=2**-6, atol=2**-6)


def test_an_activation_that_is_another_one_now_is_done() -> None:
    model = model_of("gemma")
    hktune.patch(model, fuse=True, quiet=True)
    with torch.no_grad():
        nn.init.constant_(model.get_submodule("gate_proj").weight, -0.1)
        assert_right(model(given()), model)
        before = model(given())
        model.act_fn.approximate = "none"  # type: ignore[union-attr, assignment]
        assert_right(model(given()), model)
        assert not torch.equal(model(given()), before)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_what_torch_made_of_a_fused_class_stays_when_it_is_unpatched() -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    nn.utils.parametrize.register_parametrization(model, "scale", Doubled())
    hktune.unpatch(model, quiet=True)
    assert nn.utils.parametrize.is_parametrized(model)
    assert torch.equal(model.scale, torch.tensor([2.0]))  # type: ignore[arg-type]
    assert type(model).__mro__[1:] == GatedMlp.__mro__


@pytest.mark.parametrize("kind", ["another parameter", "another process"])
def test_memory_that_others_see_stays_where_it_is(kind: str, table: LoadedTable) -> None:
    model = model_of("llama")
    weight = model.get_submodule("gate_proj").weight
    if kind == "another process":
        model.share_memory()
    else:
        model.tied = nn.Linear(K, N, bias=False)
        model.tied.weight = nn.Parameter(weight.data)  # type: ignore[arg-type]
    at = weight.data_ptr()
    hktune.patch(model, fuse=True, quiet=True)
    assert weight.data_ptr() == at
    with torch.no_grad():
        out, count = hits(table, lambda: model(given()))
        assert count == 3
        assert_right(out, model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_is_fused_too(name: str, backend: str, table: LoadedTable) -> None:
    model, (_, _, kernels, _) = model_of(name), MODELS[name]
    hktune.patch(model, fuse=True, quiet=True)
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        out, count = hits(table, lambda: compiled(given()))
        assert count == kernels
        assert_right(out, model)


def test_in_a_graph_weights_that_moved_apart_are_separate_products(table: LoadedTable) -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        compiled(given())
        model.up_proj.weight.data = -model.up_proj.weight.data  # type: ignore[union-attr, operator]
        out, count = hits(table, lambda: compiled(given()))
        assert count == 3
        assert_right(out, model)


def test_a_hook_is_called_in_a_graph(table: LoadedTable) -> None:
    model, seen = model_of("llama"), []
    hktune.patch(model, fuse=True, quiet=True)
    model.get_submodule("up_proj").register_forward_hook(lambda *_: seen.append(1))
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend="eager")
    with torch.no_grad():
        out, count = hits(table, lambda: compiled(given()))
    assert (count, seen) == (3, [1])
    assert_right(out, model)


def test_a_graph_that_is_asked_for_gradients_is_not_fused(table: LoadedTable) -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    out, count = hits(table, lambda: compiled(given()))
    assert count == 3
    assert_right(out.detach(), model)
    out.sum().backward()
    assert all(each.grad is not None for each in model.parameters())


@pytest.mark.filterwarnings("ignore:torch serves")
@pytest.mark.parametrize("is_compiled", [False, True])
def test_gates_that_the_table_has_no_row_for_are_two_products(is_compiled: bool, table: LoadedTable) -> None:
    model = model_of("llama")
    hktune.patch(model, fuse=True, quiet=True)
    torch._dynamo.reset()
    step: Any = torch.compile(model, backend="aot_eager") if is_compiled else model
    x = given()[: M // 2]
    with torch.no_grad():
        out = step(x)
    assert sum(table.stats().fallbacks.values()) == 3
    torch.testing.assert_close(out.double(), exact(model)[: M // 2], rtol=2**-5, atol=2**-5)
