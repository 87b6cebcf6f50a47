"""What becomes of scaled products of torch's in a graph that Inductor compiles, and of what is behind them.

The pass runs on graphs as Inductor gets them, which then run as they are, on kernels of the emulator. The truth is
float64, of the numbers in float8 that the model multiplies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import hits
from functorch.compile import make_boxed_func
from naive_gemm import published, trial
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch.nn import functional

import hktune
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable
from hktune.runtime.fusing import inductor_pass, recorded_scaled, scaled_fusion

M, K = 16, 64
FLOAT8 = torch.float8_e4m3fn
TEXTS = [f"e4m3.nt.rows->bf16{steps}" for steps in ("", "+residual", "+silu", "+silu+gated")]
TEXTS += ["e4m3.nt.rows->f16", "e4m3.nt.rows->f16+silu"]
TEXTS += [f"e4m3.nt.tensor->bf16{steps}" for steps in ("", "+residual", "+silu+gated")]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> Iterator[LoadedTable]:
    wide = [Problem(M, 2 * K, K, operation_of("e4m3.nt.rows->bf16"))]
    published(tmp_path, *map(trial, [*wide, *(Problem(M, K, K, operation_of(text)) for text in TEXTS)]))
    torch._dynamo.reset()
    yield hktune.load(tmp_path, allow_modelled=True)
    torch._dynamo.reset()


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(-1, keepdim=True).float() / 448
    return (rows / scale).to(FLOAT8), scale


def by_operator(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=torch.bfloat16)


def by_function(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    row: Any = functional.ScalingType.RowWise  # type: ignore[attr-defined]
    return functional.scaled_mm(a, b, scale_a, row, scale_b, row, bias=bias)  # type: ignore[attr-defined,no-any-return]


def by_hktune(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
    return hktune.scaled_mm(a, b, scale_a, scale_b, bias)


class Float8Linear(nn.Module):
    """A weight in float8 with a scale for each row, or one; its input gets such a scale for each row too, or one."""

    product: Callable[..., Tensor] = staticmethod(by_operator)
    is_exact = False

    def __init__(self, out: int = K, has_bias: bool = False, scales: str = "rows") -> None:
        super().__init__()
        weight, scale = quantised(torch.randn(out, K) / 8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Buffer(scale.t().contiguous() if scales == "rows" else torch.tensor(0.003))
        self.bias = nn.Parameter(torch.randn(out).bfloat16(), requires_grad=False) if has_bias else None
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantised(x.reshape(-1, K))
        scale = scale if self.scales == "rows" else torch.tensor(0.01)
        if self.is_exact:
            out = (rows.double() * scale) @ (self.weight.double().t() * self.scale)
            out = out if self.bias is None else out + self.bias.double()
        else:
            out = self.product(rows, self.weight.t(), scale, self.scale, self.bias)
        return out.reshape(*x.shape[:-1], -1)


class Gated(nn.Module):
    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.gate, self.up = Float8Linear(K, *given), Float8Linear(K, *given)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.gate(x)) * self.up(x)


class Whole(nn.Module):
    """Gates and what they gate are one weight, and its halves views of one kind or another."""

    def __init__(self, way: str, scales: str = "rows") -> None:
        super().__init__()
        self.both, self.way = Float8Linear(2 * K, False, scales), way

    def forward(self, x: Tensor) -> Tensor:
        out = self.both(x)
        if self.way == "slices":
            return functional.silu(out[..., :K]) * out[..., K:]
        gate, up = out.chunk(2, -1) if self.way == "chunk" else out.split([K, K], -1)
        return up * functional.silu(gate)


class Residual(nn.Module):
    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.one = Float8Linear(K, *given)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one(2 * x)


class Activated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Float8Linear()

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.one(x))


def given() -> Tensor:
    return torch.randn(2, M // 2, K, generator=torch.Generator().manual_seed(4)).bfloat16()


def made(kind: Callable[..., nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(3)
    return kind(*args)


def compiled(model: nn.Module, counts: list[int], takes_apart: bool = True) -> Any:
    """The graph as Inductor gets it, after the pass; `counts` gets how many it made one."""

    def run(module: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        del inputs
        counts.append(scaled_fusion.fuse(module.graph))
        module.recompile()
        return make_boxed_func(module.forward)

    decompositions: Any = select_decomp_table() if takes_apart else {}
    backend = aot_autograd(fw_compiler=run, decompositions=decompositions)
    return torch.compile(model, backend=backend, fullgraph=True, dynamic=False)


def assert_right(out: Tensor, model: nn.Module, x: Tensor) -> None:
    """Once rounded: by half a step of bf16, and what the sums of float32 lose."""
    twin = copy.deepcopy(model)
    for each in twin.modules():
        if isinstance(each, Float8Linear):
            each.is_exact = True
    exact = twin(x)
    assert (out.dtype, exact.dtype) == (torch.bfloat16, torch.float64)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("takes_apart", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: made(Gated), lambda: made(Whole, "chunk"), lambda: made(Whole, "split"), lambda: made(Whole, "slices"),
        lambda: made(Whole, "chunk", "tensor"), lambda: made(Residual), lambda: made(Residual, False, "tensor"),
        lambda: made(Activated),
    ],
    ids=["two", "chunk", "split", "slices", "tensor", "residual", "residual-tensor", "activation"],
)  # fmt: skip
@torch.no_grad()
def test_one_kernel_does_all(table: LoadedTable, make: Callable[[], nn.Module], takes_apart: bool) -> None:
    model, counts = make(), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    with hktune.enable():
        step = compiled(model, counts, takes_apart)
        for _ in range(2):
            out, count = hits(table, lambda: step(given()))
            assert (counts, count) == ([1], 1)
            assert_right(out, model, given())
    assert not table.stats().fallbacks


@pytest.mark.parametrize("product", [by_operator, by_function, by_hktune])
@torch.no_grad()
def test_in_every_spelling(table: LoadedTable, monkeypatch: pytest.MonkeyPatch, product: Callable[..., Tensor]) -> None:
    """hktune's own asks the current table, and needs no other word."""
    monkeypatch.setattr(Float8Linear, "product", staticmethod(product))
    for model in (made(Gated), made(Residual)):
        counts: list[int] = []
        hktune.patch(model, fuse=True, quiet=True)
        with nullcontext() if product is by_hktune else hktune.enable():
            out, count = hits(table, lambda model=model, counts=counts: compiled(model, counts)(given()))
        assert (counts, count) == ([1], 1)
        assert_right(out, model, given())


def activated_by(name: str) -> Callable[[Tensor], Tensor]:
    return (lambda x: functional.gelu(x, approximate="tanh")) if name == "gelu_tanh" else getattr(functional, name)  # type: ignore[no-any-return]


@pytest.mark.parametrize("takes_apart", [True, False])
@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh", "silu"])
@torch.no_grad()
def test_activations_are_known(monkeypatch: pytest.MonkeyPatch, name: str, takes_apart: bool) -> None:
    asked: list[str] = []

    def has_kernel(self: object, m: int, n: int, k: int, operations: Sequence[Operation]) -> bool:
        asked.extend(f"{m}x{n}x{k} {each}" for each in operations)
        return False

    monkeypatch.setattr(LoadedTable, "has_kernel", has_kernel)
    model, act = made(Gated), activated_by(name)

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        return act(model.gate(x)) * model.up(x), act(model.gate(x))

    with hktune.enable():
        compiled(call, [], takes_apart)(given())
    first = f"{M}x{K}x{K} e4m3.nt.rows->bf16+{name}"
    assert set(asked) == ({first} if name == "relu" else {first, f"{first}+gated"})


class Other(nn.Module):
    """Graphs in which something else is made of what a kernel would not give back, or operands are none of one."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.gate, self.up, self.way = Float8Linear(), Float8Linear(), way

    def forward(self, x: Tensor) -> Any:
        if self.way == "input":
            return functional.silu(self.gate(x)) * self.up(2 * x)
        if self.way == "noise":
            return functional.silu(self.gate(x + torch.rand_like(x))) * self.up(x + torch.rand_like(x))
        if self.way == "dtype":
            return x.float() + self.gate(x)
        if self.way == "shape":
            return x[:, :1] + self.gate(x)
        if self.way == "outer":
            return functional.silu(self.gate(x).view(-1, 1, K)) * self.up(x).view(1, -1, K)
        if self.way == "half":
            rows, scale = quantised(x.reshape(-1, K))
            out = torch._scaled_mm(rows, self.gate.weight.t(), scale, self.gate.scale, out_dtype=torch.float16)
            return functional.silu(out.float()).bfloat16()
        if self.way == "factor":
            return torch.add(x, self.gate(x), alpha=2)
        gate, up = self.gate(x), self.up(x)
        if self.way == "gate":
            return functional.silu(gate) * up, gate.float()
        if self.way == "up":
            return functional.silu(gate) * up, up + 1
        if self.way == "act":
            act = functional.silu(gate.view(-1, K)).view(x.shape)
            return act * up, act + 1
        if self.way == "sum":
            return x + gate, gate
        assert self.way == "itself"
        return gate + gate, functional.sigmoid(up) * up.abs()


OTHERS = {"input": 1, "noise": 1, "act": 1, "up": 1, "outer": 1}
"""How many products are one with their activation, all the same."""


@pytest.mark.parametrize(
    "way", ["input", "noise", "dtype", "shape", "outer", "half", "factor", "gate", "up", "act", "sum", "itself"]
)  # fmt: skip
@torch.no_grad()
def test_what_has_another_user_or_does_not_fit_stays_as_it_is(way: str) -> None:
    model, counts = made(Other, way), []  # type: ignore[var-annotated]
    with hktune.enable():
        torch.manual_seed(1)
        out = compiled(model, counts)(given())
        torch.manual_seed(1)
        expected = model(given())
    assert counts == [OTHERS.get(way, 0)]
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (out, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("scale", [None, torch.tensor(4.0)])
@torch.no_grad()
def test_what_is_float8_itself_is_left(scale: Tensor | None) -> None:
    one = made(Float8Linear, K, False, "tensor")

    def call(x: Tensor) -> Tensor:
        rows, _ = quantised(x.reshape(-1, K))
        weight: Any = one.weight
        out = torch._scaled_mm(rows, weight.t(), torch.tensor(0.01), torch.tensor(0.01), None, scale, None, True)
        return functional.silu(out.bfloat16()) + x.reshape(-1, K)

    counts: list[int] = []
    with hktune.enable():
        out = compiled(call, counts)(given())
    assert counts == [0]
    torch.testing.assert_close(out, call(given()), rtol=2**-6, atol=2**-6)


@pytest.mark.filterwarnings("ignore:torch serves")
@pytest.mark.parametrize("why", ["not enabled", "no row", "bias", "dynamic"])
@torch.no_grad()
def test_without_a_kernel_a_graph_is_torchs_own(table: LoadedTable, why: str) -> None:
    model, counts = made(Gated, why == "bias"), []  # type: ignore[var-annotated]
    x = given()[:, :2] if why == "no row" else given()
    hktune.patch(model, fuse=True, quiet=True)
    step, plain = compiled(model, counts), compiled(copy.deepcopy(model), [])
    if why == "dynamic":
        torch._dynamo.mark_dynamic(x, 1, min=2, max=64)
    with nullcontext() if why == "not enabled" else hktune.enable():
        out = step(x)
    assert counts == [0]
    assert torch.equal(out, plain(x))


@torch.no_grad()
def test_a_graph_is_right_whatever_becomes_of_the_table_and_the_weights(table: LoadedTable) -> None:
    model, counts = made(Gated), []  # type: ignore[var-annotated]
    hktune.patch(model, fuse=True, quiet=True)
    step = compiled(model, counts)
    with hktune.enable():
        _, count = hits(table, lambda: step(given()))
        assert count == 1
        weight, scale = quantised(torch.randn(K, K))
        model.up.weight.copy_(weight)  # type: ignore[operator,union-attr]
        model.up.scale.copy_(scale.t())  # type: ignore[operator,union-attr]
        out, count = hits(table, lambda: step(given()))
        assert count == 1
        assert_right(out, model, given())
        model.up.scale = nn.Buffer(model.up.scale.clone())  # type: ignore[union-attr]
        out, count = hits(table, lambda: step(given()))
        assert count == 1, "scales are few"
        assert_right(out, model, given())
        model.up.weight = nn.Parameter(weight.clone(), requires_grad=False)  # type: ignore[union-attr]
        out, count = hits(table, lambda: step(given()))
        assert count == 2, "two products, and torch's functions"
        torch.testing.assert_close(out, model(given()))
    for leave in (lambda: None, hktune.unload):
        leave()
        out, count = step(given()), table.stats().hits
        torch.testing.assert_close(out, model(given()))
        assert count == table.stats().hits
    assert len(counts) == 1, "compiled once"


@torch.no_grad()
def test_weights_in_float8_are_made_neighbours() -> None:
    model = made(Gated)
    kept = {name: each.clone() for name, each in model.state_dict().items()}
    report = hktune.patch(model, fuse=True, quiet=True)
    assert report.adjacent == {"": "gate, up"}
    gate, up = model.gate, model.up
    for one, other in ((gate.weight, up.weight), (gate.scale, up.scale)):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        assert one.data_ptr() + one.nbytes == other.data_ptr()
    for name, each in model.state_dict().items():
        assert torch.equal(each.view(torch.uint8), kept[name].view(torch.uint8))
    assert not hktune.patch(model, fuse=True, quiet=True).adjacent
    tied = made(Gated)
    tied.up.weight = tied.gate.weight  # type: ignore[union-attr]
    assert not hktune.patch(tied, fuse=True, quiet=True).adjacent


def test_what_is_enabled_is_known_to_inductors_caches(table: LoadedTable) -> None:
    from torch._inductor import config

    with config.patch(post_grad_custom_pre_pass=None):
        inductor_pass.use(at_once=True)
        used: Any = config.post_grad_custom_pre_pass
        current = used.uuid()
        with hktune.enable(table):
            enabled = used.uuid()
        hktune.unload()
        assert len({current, enabled, used.uuid()}) == 3


@pytest.mark.slow  # Inductor compiles C++
@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # Inductor's own, which it imports
@torch.no_grad()
def test_inductor_makes_one_kernel_of_each(table: LoadedTable) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    models = [made(Gated), made(Residual)]
    for model in models:
        hktune.patch(model, fuse=True, quiet=True)
    with fresh_cache(), config.patch(post_grad_custom_pre_pass=None), hktune.enable():
        inductor_pass.use(at_once=True)
        step: Any = torch.compile(lambda x: [model(x) for model in models], fullgraph=True)
        found, count = hits(table, lambda: step(given()))
    assert count == 2
    for out, model in zip(found, models, strict=True):
        assert_right(out, model, given())


GATED, ADDED, ACTIVATED, PLAIN, WIDE = (
    f"{M}x{n}x{K} e4m3.nt.rows->bf16{steps}"
    for n, steps in ((K, "+silu+gated"), (K, "+residual"), (K, "+silu"), (K, ""), (2 * K, ""))
)
RECORDED = [
    (Gated, (), {GATED: 1}), (Whole, ("chunk",), {GATED: 1}), (Whole, ("split",), {GATED: 1}),
    (Residual, (), {ADDED: 1}), (Activated, (), {ACTIVATED: 1}),
    (Other, ("gate",), {PLAIN: 2}), (Other, ("act",), {PLAIN: 2}), (Other, ("itself",), {PLAIN: 2}),
    (Other, ("dtype",), {PLAIN: 1}), (Other, ("factor",), {PLAIN: 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("product", "has_table"), [(by_operator, True), (by_function, False), (by_hktune, True), (by_hktune, False)]
)
@pytest.mark.parametrize(("kind", "given_to", "expected"), RECORDED, ids=lambda each: getattr(each, "__name__", ""))
@torch.no_grad()
def test_a_recording_of_graphs_has_what_is_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[..., nn.Module],
    given_to: tuple[Any, ...],
    expected: dict[str, int],
    product: Callable[..., Tensor],
    has_table: bool,
) -> None:
    """Where a template has that: on NVIDIA's GPUs. Elsewhere, and of models as they are, the products."""
    monkeypatch.setattr(Float8Linear, "product", staticmethod(product))
    model = made(kind, *given_to)
    if not has_table:
        hktune.unload()

    def recorded(compiled: bool) -> dict[str, int]:
        with hktune.record(tmp_path / "shapes.yaml", compiled=compiled) as recorder:
            model(given())
        assert not recorder.left_out
        return {str(problem): count for problem, count in recorder.calls.items()}

    products = {WIDE: 1} if kind is Whole else {PLAIN: sum(isinstance(each, Float8Linear) for each in model.modules())}
    if given_to in (("dtype",), ("factor",)):
        products = {PLAIN: 1}
    assert recorded(compiled=False) == recorded(compiled=True) == products
    monkeypatch.setattr(recorded_scaled, "has_finish", lambda call: call.problem is not None)
    assert recorded(compiled=True) == expected
