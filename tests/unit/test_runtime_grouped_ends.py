"""Grouped products with gates or an activation behind, by a table. The truth is float64, and torch's own functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.errors import InputError, TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import FallbackWarning, LoadedTable, operators, recorded_several, recorder
from hktune.template.template import load_template

SM90A = Path(__file__).parents[2] / "kernels" / "sm90a" / "gemm_bf16"
M, N, K, GROUPS = 24, 32, 64, 4
ENDS = [5, 5, 20, 24]
FINISHED = ["grouped4.bf16.nt+silu+gated", "grouped4.bf16.nt+silu+gated_interleaved", "grouped4.bf16.nt+silu"]
PRODUCTS = [Problem(M, n, K, operation_of("grouped4.bf16.nt")) for n in (N, 2 * N)]
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    None: lambda x: x,
}


def loaded(
    folder: Path, patch: pytest.MonkeyPatch, finished: list[str], products: list[Problem]
) -> Iterable[LoadedTable]:
    """A table of these, which is the current one until it is asked for again."""
    patch.setattr(operators, "_current", None)
    published(folder, *(trial(Problem(M, N, K, operation_of(text))) for text in finished), *map(trial, products))
    yield hktune.load(folder, allow_modelled=True)
    hktune.disable()
    torch._dynamo.reset()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[LoadedTable]:
    yield from loaded(tmp_path, monkeypatch, FINISHED, PRODUCTS)


def operands(columns: int = 2 * N, m: int = M) -> tuple[Tensor, Tensor, Tensor]:
    """a [M, K], weights [G, columns, K] and where groups end."""
    random = torch.Generator().manual_seed(m + columns)
    a, weights = torch.randn((m, K), generator=random), torch.randn((GROUPS, columns, K), generator=random)
    return a.bfloat16(), (weights / 8).bfloat16(), torch.tensor(ENDS, dtype=torch.int32).clamp(max=m)


def exact(a: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    ranges = enumerate(itertools.pairwise([0, *offsets.tolist()]))
    return torch.cat([a[first:end].double() @ weights[group].double().T for group, (first, end) in ranges])


def gates(product: Tensor, activation: str | None = "silu", interleaved: bool = False) -> Tensor:
    gate, up = (product[:, ::2], product[:, 1::2]) if interleaved else product.chunk(2, -1)
    return ACTIVATIONS[activation](gate) * up


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype is torch.bfloat16
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_swiglu_of_experts_is_one_kernel_that_rounds_once(table: LoadedTable, interleaved: bool) -> None:
    a, weights, offsets = operands()
    found = hktune.gated_grouped_mm(a, weights.mT, offsets, interleaved=interleaved)
    expected = gates(exact(a, weights, offsets), "silu", interleaved)
    close(found, expected)
    assert (found != expected.bfloat16()).float().mean() < 0.02, "one rounding of sums in float32"
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    all_in_one = torch.tensor([0, 0, M, M], dtype=torch.int32)
    close(
        hktune.gated_grouped_mm(a, weights.mT, all_in_one, interleaved=interleaved),
        gates(a.double() @ weights[2].double().T, "silu", interleaved),
    )
    assert table.stats().hits == 2, "one row serves all divisions of M"


def test_an_activation_is_the_kernels(table: LoadedTable) -> None:
    a, weights, offsets = operands(N)
    found = hktune.grouped_mm(a, weights.mT, offsets, activation="silu")
    close(found, functional.silu(exact(a, weights, offsets)))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_what_has_no_kernel_is_a_product_of_the_table_and_torchs_gates(
    table: LoadedTable, activation: str | None, interleaved: bool
) -> None:
    a, weights, offsets = operands()
    found = hktune.gated_grouped_mm(a, weights.mT, offsets, activation, interleaved=interleaved)
    close(found, gates(exact(a, weights, offsets), activation, interleaved))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {}), "either of the two kernels"


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_the_table_does_not_serve_is_counted_once_by_its_reason(table: LoadedTable) -> None:
    a, weights, offsets = operands()
    unaligned = torch.cat([torch.zeros(1).bfloat16(), a.flatten()])[1:].view(M, K)
    for given, reason in (
        ((a[:21], weights.mT, offsets.clamp(max=21)), "no entry for the shape"),
        ((torch.cat([a, a], 1)[:, :K], weights.mT, offsets), "strides"),
        ((a, weights.mT.contiguous(), offsets), "no entry for the shape"),
        ((unaligned, weights.mT, offsets), "alignment"),
        ((a.half(), weights.mT.half(), offsets), "no entry for the shape"),
    ):
        before = table.stats().fallbacks.get(reason, 0)
        found = hktune.gated_grouped_mm(*given)
        expected = gates(exact(given[0], given[1].mT, given[2]), "silu")
        torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2**-6)
        assert table.stats().fallbacks[reason] == before + 1
    with pytest.raises(RuntimeError):  # torch's
        hktune.gated_grouped_mm(a, weights.mT, offsets.long())
    assert table.stats().fallbacks["dtype"] == 1
    assert table.stats().hits == 0


def test_no_tokens_and_empty_experts(table: LoadedTable) -> None:
    a, weights, offsets = operands()
    nothing = hktune.gated_grouped_mm(a[:0], weights.mT, offsets * 0)
    assert nothing.shape == (0, N)
    assert table.stats().fallbacks == {"empty operand": 1}
    rows = torch.tensor([0, 0, 0, 7], dtype=torch.int32)
    found = hktune.gated_grouped_mm(a, weights.mT, rows)
    close(found[:7], gates(a[:7].double() @ weights[3].double().T, "silu"))


def test_gradients_are_torchs_of_the_gates_and_the_tables_of_the_product(table: LoadedTable) -> None:
    def made() -> tuple[Tensor, Tensor, Tensor]:
        a, weights, offsets = operands()
        return a.requires_grad_(), weights.requires_grad_(), offsets

    (a, weights, offsets), (plain_a, plain_weights, _) = made(), made()
    found = hktune.gated_grouped_mm(a, weights.mT, offsets)
    found.square().sum().backward()
    assert table.stats().hits == 1, "the product"
    gates(torch._grouped_mm(plain_a, plain_weights.mT, offs=offsets), "silu").square().sum().backward()
    for one, other in ((a, plain_a), (weights, plain_weights)):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad.double(), rtol=2**-5, atol=0.25)
    with torch.no_grad():
        hktune.gated_grouped_mm(a, weights.mT, offsets)
    assert table.stats().hits == 2


def test_a_compiled_model_has_the_kernel(table: LoadedTable) -> None:
    a, weights, offsets = operands()

    def model(a: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        return hktune.gated_grouped_mm(a, weights.mT, offsets) * 2

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = 2 * gates(exact(a, weights, offsets), "silu")
    close(compiled(a, weights, offsets), expected)
    assert table.stats().hits == 1
    asked = weights.clone().requires_grad_()
    out = compiled(a, asked, offsets)
    close(out.detach(), expected)
    out.sum().backward()
    assert asked.grad is not None
    assert table.stats().hits == 1, "torch's own, of which it knows the gradient"


def test_a_graph_without_an_entry_has_torchs_functions(table: LoadedTable) -> None:
    """Which a compiler may fuse."""
    a, weights, offsets = operands()
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        del inputs
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    def model(a: Tensor, weights: Tensor, offsets: Tensor, activation: str) -> Tensor:
        return hktune.gated_grouped_mm(a, weights.mT, offsets, activation)

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    close(compiled(a, weights, offsets, "gelu"), gates(exact(a, weights, offsets), "gelu"))
    assert not any("hktune" in each for each in seen)
    assert any("_grouped_mm" in each for each in seen)
    seen.clear()
    compiled(a, weights, offsets, "silu")
    assert any("hktune.grouped_finished" in each for each in seen)


def test_modes_and_tracers_see_one_operator(table: LoadedTable) -> None:
    a, weights, offsets = operands()
    b = weights.mT
    with FakeTensorMode() as mode:
        fake = hktune.gated_grouped_mm(*map(mode.from_tensor, (a, b, offsets)))
    assert (fake.shape, fake.dtype) == ((M, N), torch.bfloat16)
    with FlopCounterMode(display=False) as flops:
        hktune.gated_grouped_mm(a, weights.mT, offsets)
    assert flops.get_total_flops() == 2 * M * 2 * N * K
    graph = make_fx(lambda *given: hktune.gated_grouped_mm(given[0], given[1].mT, given[2]))(a, weights, offsets)
    expected = gates(exact(a, weights, offsets), "silu")
    hits = table.stats().hits
    close(graph(a, weights, offsets), expected)
    assert table.stats().hits == hits + 1
    asked = a.clone().requires_grad_()
    graph(asked, weights, offsets).sum().backward()
    assert asked.grad is not None, "of torch's own functions, in place of the operator"
    with torch.autocast("cpu", torch.bfloat16):
        close(hktune.gated_grouped_mm(a, weights.mT, offsets), expected)
    assert table.stats().hits == hits + 2
    with torch.device("cpu"):  # a mode of torch's functions
        close(hktune.gated_grouped_mm(a, weights.mT, offsets), expected)
    assert table.stats().hits == hits + 3
    operator = torch.ops.hktune.grouped_finished.default
    torch.library.opcheck(operator, (a, weights.mT, offsets, ["silu", "gated"]))


def test_tensors_without_memory_need_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    a, weights, offsets = operands()
    b = weights.mT
    with FakeTensorMode() as mode:
        fake = hktune.gated_grouped_mm(*map(mode.from_tensor, (a, b, offsets)))
    assert (fake.shape, fake.dtype) == ((M, N), torch.bfloat16)
    with FlopCounterMode(display=False), pytest.raises(TableError, match="no dispatch table is loaded"):
        hktune.gated_grouped_mm(a, b, offsets)


def test_what_is_wrong_is_said_in_one_line(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    a, weights, offsets = operands()
    with pytest.raises(InputError, match="activation 'tanh' is not known: known are relu, gelu, gelu_tanh, silu"):
        hktune.gated_grouped_mm(a, weights.mT, offsets, "tanh")
    with pytest.raises(InputError, match="activation 'tanh' is not known"):
        hktune.grouped_mm(a, weights.mT, offsets, activation="tanh")
    odd = weights[:, :-1].contiguous().mT
    with pytest.raises(InputError, match="a gated weight has 63 rows"), pytest.warns(FallbackWarning):
        hktune.gated_grouped_mm(a, odd, offsets)
    with pytest.raises(RuntimeError), pytest.warns(FallbackWarning, match="operand shapes"):
        hktune.gated_grouped_mm(a, weights.mT[:, :16], offsets)
    hktune.unload()
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.gated_grouped_mm(a, weights.mT, offsets)
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.grouped_mm(a, weights.mT, offsets, activation="silu")


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("has_table", [False, True])
def test_a_recording_has_what_one_kernel_could_do(table: LoadedTable, tmp_path: Path, has_table: bool) -> None:
    a, weights, offsets = operands()
    expected = gates(exact(a, weights, offsets), "silu")
    if not has_table:
        hktune.unload()
    with hktune.record(tmp_path / "shapes.yaml") as seen:
        close(hktune.gated_grouped_mm(a, weights.mT, offsets), expected)
        hktune.gated_grouped_mm(a, weights.mT.contiguous(), offsets, "gelu")
        hktune.gated_grouped_mm(a, weights.mT, offsets, "gelu", interleaved=True)
        hktune.grouped_mm(a, weights.mT, offsets, activation="relu")
        hktune.gated_grouped_mm(a.clone().requires_grad_(), weights.mT, offsets)
    shapes = load_shapes(tmp_path / "shapes.yaml")
    assert {str(shape.problem): shape.weight for shape in shapes} == {
        "24x32x64 grouped4.bf16.nt+silu+gated": 1,
        "24x32x64 grouped4.bf16.nn+gelu+gated": 1,
        "24x64x64 grouped4.bf16.nt+relu": 1,
        "24x64x64 grouped4.bf16.nt": 2,  # no kernel does the gates, or a gradient is asked
    }
    sizes = ((0, 1), (4, 1), (5, 1), (15, 1))
    assert {shape.tokens for shape in shapes} == {sizes, tuple((rows, 2 * count) for rows, count in sizes)}
    assert not seen.left_out


def test_on_nvidia_what_its_template_has_is_recorded(table: LoadedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with anything else is refused."""
    monkeypatch.setattr(recorded_several, "_is_nvidia", lambda tensor: True)
    a, weights, offsets = operands()
    with recorder.Recorder() as seen:
        hktune.gated_grouped_mm(a, weights.mT, offsets)
        hktune.gated_grouped_mm(a, weights.mT, offsets, interleaved=True)
        hktune.grouped_mm(a, weights.mT, offsets, activation="gelu")
        hktune.gated_grouped_mm(a, weights.mT, offsets, bias=torch.zeros(GROUPS, len(weights[0]), dtype=a.dtype))
    noted = {
        "24x32x64 grouped4.bf16.nt+silu+gated": 1,
        "24x32x64 grouped4.bf16.nt+silu+gated_interleaved": 1,
        "24x64x64 grouped4.bf16.nt+gelu": 1,
        "24x32x64 grouped4.bf16.nt+bias+silu+gated": 1,
    }
    assert {str(problem): count for problem, count in seen.calls.items()} == noted
    operations = {problem.operation for problem in seen.calls}
    template = load_template(SM90A)
    assert all(template.does(each) for each in operations)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_is_not_served_while_enabled_is_torchs(table: LoadedTable) -> None:
    """On a CPU too, where torch has one kernel for all devices."""
    a, weights, offsets = operands(m=21)
    with hktune.enable(table):
        close(torch._grouped_mm(a, weights.mT, offs=offsets), exact(a, weights, offsets))
        assert table.stats().fallbacks == {"no entry for the shape": 1}
        close(hktune.gated_grouped_mm(a, weights.mT, offsets), gates(exact(a, weights, offsets), "silu"))
        assert table.stats().fallbacks == {"no entry for the shape": 2}
        served, weights, offsets = operands()
        close(
            torch._grouped_mm(served, weights.mT, offs=offsets, out_dtype=torch.bfloat16),
            exact(served, weights, offsets),
        )
    assert table.stats().hits == 1
