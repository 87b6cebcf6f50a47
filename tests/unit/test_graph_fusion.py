"""What becomes of linears in a graph that Inductor compiles: sums behind them, and several of one input.

The pass runs on graphs as Inductor gets them, which then run as they are. The truth is the same model before it was
patched, in float64.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import built, hits, launched
from functorch.compile import make_boxed_func
from naive_gemm import EMULATED, OBJECTS, trial
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional
from torch.nn.utils import parametrize

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import write_table
from hktune.runtime import LoadedTable, operators
from hktune.runtime.fusing import graph_fusion, inductor_pass
from hktune.tables import build_table

M, K, KV = 16, 64, 32
RESIDUAL = Problem(M, K, K, operation_of("bf16.nt+residual"))
ROWS = (
    *(Problem(M, n, K, operation_of("bf16.nt")) for n in (K, KV, K + 2 * KV)),
    *(Problem(M, n, K, operation_of("bf16.nt+bias")) for n in (K, KV)),
    RESIDUAL,
)


def row(problem: Problem) -> Trial:
    if problem != RESIDUAL:
        return trial(problem)
    return trial(problem, object_sha256=hashlib.sha256(built("bf16.nt+residual").data).hexdigest())


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> Iterator[LoadedTable]:
    made = build_table(
        [row(each) for each in ROWS], launched, EMULATED, "clang 22", "0.1.0", "2026-11-30T05:00:00+00:00"
    )
    data = built("bf16.nt+residual").data
    write_table(made, {**OBJECTS, hashlib.sha256(data).hexdigest(): data}, tmp_path)
    torch._dynamo.reset()
    yield hktune.load(tmp_path, allow_modelled=True)
    torch._dynamo.reset()


def linear(out: int, of: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(of, out, bias, dtype=torch.bfloat16)


class Attention(nn.Module):
    """Three linears of one input, of which views are taken; and one behind, with a second result."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = linear(K, K, bias), linear(KV, K, bias), linear(KV, K, bias)
        self.out = linear(K, K)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        q, k, v = (each(x).view(*x.shape[:-1], -1, 16) for each in (self.q, self.k, self.v))
        mixed = q * scale + torch.cat([k, v], -2).sigmoid()
        return self.out(mixed.flatten(-2)), k


class Layer(nn.Module):
    """As those of transformers: what it adds to is another module's."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.attention = Attention(bias)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.attention(hidden := functional.rms_norm(x, (K,)), scale=0.5)
        assert hidden is not x
        return x + out


def given(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, M // 2)), K, generator=torch.Generator().manual_seed(4)).bfloat16()


def model_of(kind: Callable[..., nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(3)
    model = kind(*args)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def compiled(model: nn.Module, counts: list[tuple[int, int]] | None = None, dynamic: bool = False) -> Any:
    """The graph as Inductor gets it, after the pass; `counts` gets how many sums and linears it found."""

    def run(module: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        del inputs
        found = graph_fusion.fuse_sums(module.graph), graph_fusion.join_linears(module.graph)
        module.graph.lint()
        module.recompile()
        if counts is not None:
            counts.append(found)
        return make_boxed_func(module.forward)

    return torch.compile(model, backend=aot_autograd(fw_compiler=run), fullgraph=True, dynamic=dynamic)


def exact(model: nn.Module, x: Tensor) -> Tensor:
    twin = copy.deepcopy(model)
    hktune.unpatch(twin, quiet=True)
    with torch.no_grad():
        return twin.double()(x.double())  # type: ignore[no-any-return]


def assert_right(out: Tensor, model: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(out.double(), exact(model, x), rtol=2**-5, atol=2**-5)


@torch.no_grad()
def test_a_layer_is_two_kernels(table: LoadedTable) -> None:
    model, counts = model_of(Layer), []  # type: ignore[var-annotated]
    report = hktune.patch(model, fuse=True, quiet=True)
    assert report.adjacent == {"attention": "q, k, v, out"}
    assert "  adjacent  attention: q, k, v, out" in str(report)
    step = compiled(model, counts)
    out, count = hits(table, lambda: step(given()))
    assert (counts, count) == ([(1, 3)], 2)
    assert_right(out, model, given())


@pytest.mark.filterwarnings("ignore:torch serves")
@torch.no_grad()
def test_only_what_the_table_has_is_fused(table: LoadedTable) -> None:
    """No row with a bias is of all three, and none of other numbers of rows."""
    for model, x, found, kernels in (
        (model_of(Layer, True), given(), (1, 0), 4),
        (model_of(Layer), given(M // 4), (0, 0), 0),
    ):
        counts: list[tuple[int, int]] = []
        hktune.patch(model, fuse=True, quiet=True)
        step = compiled(model, counts)
        out, count = hits(table, lambda step=step, x=x: step(x))
        assert (counts, count) == ([found], kernels)
        assert_right(out, model, x)


@torch.no_grad()
def test_a_model_that_was_patched_without_the_word_has_no_places(table: LoadedTable) -> None:
    model, counts = model_of(Layer), []  # type: ignore[var-annotated]
    assert not hktune.patch(model, quiet=True).adjacent
    step = compiled(model, counts)
    assert_right(step(given()), model, given())
    assert counts == [(1, 0)]
    assert operators.when_traced == []


@torch.no_grad()
def test_sizes_that_only_the_run_knows_are_left(table: LoadedTable) -> None:
    model, counts = model_of(Layer), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    step = compiled(model, counts, dynamic=True)
    out, count = hits(table, lambda: step(given()))
    assert (counts, count) == ([(0, 0)], 4)
    assert_right(out, model, given())


WAYS = {
    "in place": lambda weight: weight.mul_(-2),
    "by data": lambda weight: weight.data.fill_(0.25),
    "other memory": lambda weight: setattr(weight, "data", -weight.data),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["q", "k"])
@torch.no_grad()
def test_changed_weights_are_never_answered_for_by_old_ones(way: str, which: str, table: LoadedTable) -> None:
    model = model_of(Layer)
    hktune.patch(model, fuse=True, quiet=True)
    step = compiled(model)
    before = step(given())
    WAYS[way](model.get_submodule(f"attention.{which}").weight)
    out, count = hits(table, lambda: step(given()))
    assert count == (4 if way == "other memory" else 2)
    assert not torch.equal(out, before)
    assert_right(out, model, given())


class Sums(nn.Module):
    """Sums that a kernel cannot do, or may, by `kind`. With a keyword, `patch` cannot read the forward."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.second = kind, linear(K, K), linear(K, K)

    def forward(self, x: Tensor, *, more: None = None) -> Tensor:
        product = self.first(x)
        if self.kind == "used twice":
            return (x + product) * product
        if self.kind == "a row":
            return product + x[..., :1, :]
        if self.kind == "another type":
            return product + x.float()
        if self.kind == "a factor":
            return torch.add(x, product, alpha=2)
        if self.kind == "transposed":
            return product + x.transpose(0, 1)
        if self.kind == "two linears":
            return product + self.second(x)
        if self.kind == "twice itself":
            return product + product
        return self.second(x + product) + x


FUSED_SUMS = {"two linears": 1, "a chain": 2}


@pytest.mark.parametrize(
    "kind",
    ["used twice", "a row", "another type", "a factor", "transposed", "two linears", "twice itself", "a chain"],
)
@torch.no_grad()
def test_sums(kind: str) -> None:
    model, counts, x = model_of(Sums, kind), [], given(4, 4)  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    out = compiled(model, counts)(x)
    assert counts[0][0] == FUSED_SUMS.get(kind, 0)
    assert_right(out, model, x)


class Two(nn.Module):
    """Two modules of one input, each with linears of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Attention(), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x)[0], self.other(x)[0]], -1)


@torch.no_grad()
def test_linears_of_two_modules_are_joined_with_their_own(table: LoadedTable) -> None:
    model, counts = model_of(Two), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    step = compiled(model, counts)
    out, count = hits(table, lambda: step(given(M)))
    assert (counts, count) == ([(0, 6)], 4)
    assert_right(out, model, given(M))


class Narrow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = linear(12, K, True), linear(12, K, True)

    def forward(self, x: Tensor, *, more: None = None) -> Tensor:
        return self.q(x) + self.k(x)


@torch.no_grad()
def test_no_parameter_is_moved_to_where_no_kernel_reads_it() -> None:
    model = model_of(Narrow)
    assert not hktune.patch(model, fuse=True, quiet=True).adjacent
    assert not any(each.data_ptr() % 16 for each in model.parameters())
    assert not any("_place" in vars(each) for each in model.modules())


def test_a_bias_that_is_computed_is_left() -> None:
    model = model_of(Returns)
    for each in (model.q, model.k, model.v):
        each.bias = nn.Parameter(torch.ones(each.out_features, dtype=torch.bfloat16))
        parametrize.register_parametrization(each, "bias", nn.Tanh())
    hktune.patch(model, fuse=True, quiet=True)
    expected = [functional.linear(given(), each.weight, each.bias) for each in (model.q, model.k, model.v)]
    for out, right in zip(model(given()), expected, strict=True):
        torch.testing.assert_close(out, right, rtol=2**-5, atol=2**-5)


class Returns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = linear(K, K), linear(KV, K), linear(KV, K)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q(x), self.k(x), self.v(x)


@torch.no_grad()
def test_what_a_graph_returns_stays_contiguous() -> None:
    model, counts = model_of(Returns), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    assert all(each.is_contiguous() for each in compiled(model, counts)(given()))
    assert counts == [(0, 0)]


@torch.library.custom_op("hktune_test::rows", mutates_args=())
def of_rows(x: Tensor) -> Tensor:
    """What may read `x` as if it were contiguous, as a kernel of somebody's."""
    return x.clone(memory_format=torch.contiguous_format)


@of_rows.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


USES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "strides": (lambda q: q.as_strided((2, 8), (K, 1)), 0),
    "strides of a view": (lambda q: q[1:].as_strided((8,), (1,)), 0),
    "another type": (lambda q: q.view(torch.int16).bfloat16(), 0),
    "an operator of others": (lambda q: of_rows(q), 0),
    "an operator of others, of a view": (lambda q: of_rows(q.view(-1, 16)), 0),
    "an operator of others, of an unsafe view": (lambda q: of_rows(torch.ops.aten._unsafe_view(q, [-1, 16])), 0),
    "views of views": (lambda q: q.unsqueeze(1).view(2, -1)[:, 5:], 3),
    "a view of a part": (lambda q: q[:1].view(-1), 3),
    "parts": (lambda q: torch.cat(q.split(16, -1)).view(-1), 3),
}


class Used(Returns):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.use = USES[kind][0]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.use(self.q(x)) + 0, self.k(x).exp(), self.v(x).exp()


@pytest.mark.parametrize("kind", USES)
@torch.no_grad()
def test_what_depends_on_strides_gets_those_that_it_had(kind: str) -> None:
    model, counts = model_of(Used, kind), []  # type: ignore[var-annotated]
    twin, (_, joined) = copy.deepcopy(model), USES[kind]
    hktune.patch(model, fuse=True, quiet=True)
    for out, expected in zip(compiled(model, counts)(given()), twin(given()), strict=True):
        torch.testing.assert_close(out, expected, rtol=2**-5, atol=2**-5)
    assert counts == [(0, joined)]


class ReturnsViews(Returns):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q(x).transpose(0, 1), self.k(x)[..., ::2], self.v(x) + 1


@torch.no_grad()
def test_a_view_that_a_graph_returns_has_the_strides_that_it_had() -> None:
    model, counts = model_of(ReturnsViews), []  # type: ignore[var-annotated]
    expected = [each.stride() for each in model(given())]
    hktune.patch(model, fuse=True, quiet=True)
    assert [each.stride() for each in compiled(model, counts)(given())] == expected


def test_with_gradients_they_are_torchs() -> None:
    model = model_of(Layer)
    twin = copy.deepcopy(model)
    hktune.patch(model, fuse=True, quiet=True)
    hktune.patch(twin, quiet=True)
    out = compiled(model)(given())
    assert_right(out.detach(), model, given())
    out.float().square().mean().backward()
    twin(given()).float().square().mean().backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=2**-4, atol=2**-10)


@torch.no_grad()
def test_a_recording_has_them_as_a_graph_has(tmp_path: Path) -> None:
    model = model_of(Layer)
    hktune.patch(model, fuse=True, quiet=True)
    recorders = [hktune.record(tmp_path / "shapes.yaml", compiled=compiled) for compiled in (True, False)]
    for recorder in recorders:
        with recorder:
            for _ in range(2):
                model(given())
    assert recorders[0].calls == {RESIDUAL: 2, ROWS[2]: 2}
    assert recorders[1].calls == {ROWS[0]: 4, ROWS[1]: 4}


@torch.no_grad()
def test_a_recording_of_sums_that_are_none_of_a_kernels(tmp_path: Path) -> None:
    x, plain = given(4, 4), ROWS[0]
    for kind, residuals, plains in (("used twice", 1, 0), ("a row", 0, 1), ("transposed", 0, 1), ("two linears", 1, 1)):
        model = model_of(Sums, kind)
        hktune.patch(model, quiet=True)
        with hktune.record(tmp_path / "shapes.yaml", compiled=True) as recorder:
            model(x)
        assert (recorder.calls[RESIDUAL], recorder.calls[plain]) == (residuals, plains), kind


class InPlace(Sums):
    def forward(self, x: Tensor, *, more: None = None) -> Tensor:
        out = x.clone()
        return out.add_(self.first(x), alpha=2) if self.kind == "a factor" else out.add_(self.first(x))


@pytest.mark.parametrize("kind", [Sums, InPlace])
@pytest.mark.parametrize(("name", "residuals"), [("a factor", 0), ("a sum", 1)])
@torch.no_grad()
def test_a_recording_has_the_sums_of_a_graph(kind: type[Sums], name: str, residuals: int, tmp_path: Path) -> None:
    if (kind, name) == (Sums, "a sum"):
        name = "used twice"  # of which only the graph knows
    model, counts = model_of(kind, name), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    with hktune.record(tmp_path / "shapes.yaml", compiled=True) as recorder:
        model(given())
    assert recorder.calls[RESIDUAL] == residuals
    if name != "used twice":
        compiled(model, counts)(given())
        assert counts == [(residuals, 0)]


@torch.no_grad()
def test_a_recording_never_refuses_what_the_call_takes(tmp_path: Path) -> None:
    x, weight = given().float(), given(K).float()
    with hktune.record(tmp_path / "shapes.yaml") as recorder, torch.autocast("cpu", torch.bfloat16):
        hktune.linear(x, weight, out_dtype=x.dtype)
    assert recorder.calls == {ROWS[0]: 1}


def test_unpatched_linears_have_no_place() -> None:
    model = model_of(Layer)
    hktune.patch(model, fuse=True, quiet=True)
    assert [vars(each)["_place"] for each in model.modules() if isinstance(each, nn.Linear)] == [1, 2, 3, 4]
    hktune.unpatch(model, quiet=True)
    assert not any("_place" in vars(each) for each in model.modules())


def test_the_pass_of_another_is_called_first() -> None:
    from torch._inductor import config
    from torch._inductor.custom_graph_pass import CustomGraphPass

    seen: list[object] = []

    class Others(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            seen.append(graph)

        def uuid(self) -> object:
            return "others"

    inductor_pass.use()
    inductor_pass.use()
    (install,) = operators.when_traced
    with config.patch(post_grad_custom_pre_pass=Others()):
        install()
        install()
        used: Any = config.post_grad_custom_pre_pass
    graph = torch.fx.Graph()
    used(graph)
    assert seen == [graph]
    assert used.uuid()[1] == "others"


@pytest.mark.slow  # Inductor compiles C++
@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # Inductor's own, which it imports
@torch.no_grad()
def test_inductor_makes_two_kernels_of_a_layer(table: LoadedTable) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    model = model_of(Layer)
    hktune.patch(model, fuse=True, quiet=True)
    with fresh_cache(), config.patch(post_grad_custom_pre_pass=None):
        step: Any = torch.compile(model, fullgraph=True)
        out, count = hits(table, lambda: step(given()))
    assert count == 2
    assert_right(out, model, given())
