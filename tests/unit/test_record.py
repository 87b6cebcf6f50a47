"""hktune.record: the shapes a model calls, as `hktune tune` reads them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import hktune
from hktune.core.errors import ShapesError
from hktune.core.operation import BF16_NT_BIAS, Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes


def bf16(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def recorded(path: Path) -> dict[Problem, float]:
    return {shape.problem: shape.weight for shape in load_shapes(path)}


def test_every_way_to_ask_for_a_product_is_counted_once(tmp_path: Path) -> None:
    x, weight, bias, b = bf16(2, 4, 64), bf16(32, 64), bf16(32), bf16(64, 16)
    path = tmp_path / "shapes.yaml"
    with hktune.record(path) as recorder:
        functional.linear(x, weight)
        functional.linear(input=x, weight=weight, bias=bias)
        functional.linear(x.transpose(0, 1), weight, bias)
        nn.Linear(64, 32, dtype=torch.bfloat16)(x)
        with torch.inference_mode():
            functional.linear(x, weight)
        x[0] @ b
        torch.mm(x[0], b)
        torch.addmm(bias, x[0], weight.T)
        functional.linear(x.float(), weight.float())
        functional.linear(x[:0], weight)
        torch.bmm(x, x.transpose(1, 2))
    assert recorded(path) == {
        Problem(8, 32, 64): 2,
        Problem(8, 32, 64, BF16_NT_BIAS): 3,
        Problem(4, 16, 64, Operation(layout="nn")): 2,
        Problem(4, 32, 64, BF16_NT_BIAS): 1,
        Problem(4, 4, 64, operation_of("batched2.bf16.nt")): 1,
    }
    assert recorder.left_out == {"float32": 1}


def test_backward_passes_are_too_and_autocast_is_as_it_casts(tmp_path: Path) -> None:
    layer = nn.Linear(64, 32)
    with hktune.record(tmp_path / "shapes.yaml"):
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(torch.randn(4, 64, requires_grad=True))
        out.backward(bf16(4, 32))
    assert recorded(tmp_path / "shapes.yaml") == {
        Problem(4, 32, 64, BF16_NT_BIAS): 1,
        Problem(4, 64, 32, Operation(layout="nn")): 1,
        Problem(32, 64, 4, Operation(layout="tn")): 1,
    }


def test_inner_layers_of_torchs_own_modules_are_seen(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(32, 2, bias=False, batch_first=True, dtype=torch.bfloat16)
    x = bf16(2, 3, 32)
    with hktune.record(tmp_path / "shapes.yaml"):
        attention(x, x, x)
    of_heads = {  # four matrices, which are columns of others
        Problem(3, 3, 16, operation_of("batched4.bf16.nt")): 1,
        Problem(3, 16, 3, operation_of("batched4.bf16.nn")): 1,
    }
    assert recorded(tmp_path / "shapes.yaml") == {Problem(6, 96, 32): 1, Problem(6, 32, 32): 1, **of_heads}


def test_a_patched_model_is_recorded_too(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(4, 32, 64, BF16_NT_BIAS)), trial(Problem(4, 32, 64)))
    table = hktune.load(tmp_path, allow_modelled=True)
    model = nn.Sequential(nn.Linear(64, 32, dtype=torch.bfloat16))
    hktune.patch(model)
    with hktune.record(tmp_path / "shapes.yaml"):
        model(bf16(4, 64))
        hktune.matmul(bf16(4, 64), bf16(32, 64).T)
    assert recorded(tmp_path / "shapes.yaml") == {
        Problem(4, 32, 64, BF16_NT_BIAS): 1,
        Problem(4, 32, 64): 1,
    }
    assert table.stats().hits == 2


def calls_in(path: Path, *functions: Callable[[], object]) -> tuple[dict[str, int], dict[str, int]]:
    """What is counted of `functions` and what is left out, beside one product that is always there."""
    with hktune.record(path) as recorder:
        bf16(1, 8) @ bf16(8, 8)
        for function in functions:
            function()
    counted = {str(problem): count for problem, count in recorder.calls.items()}
    assert counted.pop("1x8x8 bf16.nn") == 1
    return counted, dict(recorder.left_out)


def test_every_spelling_of_a_product_is_counted_once(tmp_path: Path) -> None:
    x, b, row = bf16(2, 4, 64), bf16(64, 32), bf16(32)
    with torch.autocast("cpu", torch.bfloat16):
        found = calls_in(
            tmp_path / "shapes.yaml",
            lambda: x.matmul(b),
            lambda: torch.matmul(x, other=b),
            lambda: torch.linalg.matmul(x, b),
            lambda: x.transpose(0, 1) @ b,  # batched where torch dispatches it
            lambda: x.float() @ b.float(),
            lambda: x[0, 0] @ b,
            lambda: torch.mm(x[0], b, out=bf16(4, 32)),
            lambda: torch.addmm(row, x[0], b),
            lambda: torch.addmm(bf16(4, 32), x[0], b),
            lambda: torch.addmm(row, x[0], b, alpha=2),
            lambda: functional.linear(x[0], row.new_ones(64)),  # a vector
            lambda: functional.linear(x[0].to("meta"), bf16(16, 64).to("meta")),
        )
    assert found == (
        {
            "8x32x64 bf16.nn": 5,
            "1x32x64 bf16.nn": 1,
            "4x32x64 bf16.nn": 1,
            "4x32x64 bf16.nn+bias": 1,
            "4x16x64 bf16.nt": 1,
        },
        {"added to a bfloat16 matrix": 1},
    )


class Tagged(Tensor):
    pass


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_products_of_stacks_are_counted_in_every_spelling(
    tmp_path: Path, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    """As `enable` serves them. In inference mode torch shows `einsum` and `@` whole."""
    a, b = torch.zeros(4, 32, 16).bfloat16(), torch.zeros(4, 16, 24).bfloat16()
    with hktune.record(tmp_path / "shapes.yaml") as recorder, mode():
        for product in (torch.bmm, torch.matmul, torch.linalg.matmul, hktune.matmul):
            product(a, b)
        a @ b
        a.view(2, 2, 32, 16) @ b.view(2, 2, 16, 24)
        torch.einsum("gmk,gkn->gmn", a, b)
        torch.einsum("mk,kn->mn", a[0], b[0])
        with pytest.raises(TypeError, match="must be Tensor"):
            torch.matmul(a, 3)  # type: ignore[arg-type]
    stacks, one = Problem(32, 24, 16, operation_of("batched4.bf16.nn")), Problem(32, 24, 16, operation_of("bf16.nn"))
    assert dict(recorder.calls) == {stacks: 7, one: 1}
    assert not recorder.left_out


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_a_bias_that_is_stretched_is_no_bias_of_a_table(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(4, 32, 64, BF16_NT_BIAS)), trial(Problem(4, 32, 64)))
    table = hktune.load(tmp_path, allow_modelled=True)
    x, weight = bf16(4, 64), bf16(32, 64)
    stretched = (
        lambda: functional.linear(x, weight, bf16(1)),
        lambda: torch.addmm(bf16(1), x, weight.T),
        lambda: hktune.linear(x, weight, bf16(1)),
    )
    counted, left_out = calls_in(tmp_path / "shapes.yaml", *stretched)
    assert (counted, left_out) == ({}, {"bias of shape [1]": 3})
    assert table.stats().hits == 0
    counted, left_out = calls_in(tmp_path / "shapes.yaml", lambda: hktune.linear(x, weight, bf16(32)))
    assert (counted, left_out) == ({"4x32x64 bf16.nt+bias": 1}, {})
    assert table.stats().hits == 1


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_no_table_serves_is_left_out_by_what_it_is(tmp_path: Path) -> None:
    weight, bias = bf16(32, 64), bf16(32)
    parts = [bf16(3, 64), bf16(5, 64)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    nested = torch.nested.nested_tensor(parts)
    z = torch.randn(4, 64, dtype=torch.complex64)
    found = calls_in(
        tmp_path / "shapes.yaml",
        lambda: functional.linear(jagged, weight, bias),
        lambda: jagged @ weight.T,
        lambda: functional.linear(nested, weight, bias),
        lambda: functional.linear(z, z),
        lambda: z @ z.T,
        lambda: functional.linear(bf16(4, 64).as_subclass(Tagged), weight),
        lambda: functional.linear(bf16(4, 64), weight.as_subclass(Tagged)),
        lambda: torch.vmap(lambda row: functional.linear(row, weight))(bf16(4, 64)),
        lambda: torch.export.export(nn.Linear(64, 32, dtype=torch.bfloat16), (bf16(4, 64),)),
    )
    assert found == (
        {},
        {"NestedTensor": 2, "nested": 1, "complex64": 2, "Tagged": 2, "transformed or traced": 1, "FakeTensor": 1},
    )


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_compiled_model_runs_eager_while_it_is_recorded_and_compiled_again_after(
    tmp_path: Path, fullgraph: bool
) -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(1)
        return graph.forward

    def run(x: Tensor) -> Tensor:
        return layer(x).relu() + functional.linear(x, layer.weight)

    layer, x = nn.Linear(64, 32, dtype=torch.bfloat16), bf16(4, 64)
    compiled = torch.compile(run, fullgraph=fullgraph, backend=backend)
    expected = {"4x32x64 bf16.nt+bias": 1, "4x32x64 bf16.nt": 1}, {}
    assert calls_in(tmp_path / "shapes.yaml", lambda: compiled(x)) == expected
    compiled(x)
    assert calls_in(tmp_path / "shapes.yaml", lambda: compiled(x)) == expected
    compiled(x)
    torch._dynamo.reset()
    assert len(graphs) == 1


def test_a_step_of_training_is_counted_whoever_makes_its_gradients(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)).bfloat16()
    second = bf16(16, 8).requires_grad_()

    def step() -> None:
        hidden = checkpoint(model, bf16(4, 64).requires_grad_(), use_reentrant=False)
        (gradient,) = torch.autograd.grad(hidden @ second, second, slope, create_graph=True)
        gradient.backward(bf16(16, 8))

    slope = bf16(4, 8)
    counted, left_out = calls_in(tmp_path / "shapes.yaml", step)
    assert counted == {
        "4x32x64 bf16.nt+bias": 2,  # forward, and again by the checkpoint
        "4x16x32 bf16.nt+bias": 1,  # whose output it need not have
        "4x8x16 bf16.nn": 1,
        "16x8x4 bf16.tn": 1,  # the gradient of `second`
        "4x16x8 bf16.nt": 1,  # and of that, the gradient of `hidden`
        "4x32x16 bf16.nn": 1,
        "16x32x4 bf16.tn": 1,
        "4x64x32 bf16.nn": 1,
        "32x64x4 bf16.tn": 1,
    }
    assert not left_out


def test_nothing_to_write_and_nowhere_to_write_it_are_said(tmp_path: Path) -> None:
    with pytest.raises(ShapesError, match=r"no bf16 or f16 GEMM was called \(float32: 1\): record a bf16 or f16 model"):
        record_float32(tmp_path / "shapes.yaml")
    with pytest.raises(ShapesError, match="there is no folder"):
        record_float32(tmp_path / "none" / "shapes.yaml")
    with pytest.raises(ZeroDivisionError), hktune.record(tmp_path / "shapes.yaml"):
        1 / 0  # noqa: B018
    assert not (tmp_path / "shapes.yaml").exists()


def record_float32(path: Path) -> None:
    with hktune.record(path):
        torch.randn(4, 64) @ torch.randn(64, 32)
