"""`hktune.linear` with an activation: one kernel where the table has it, torch's function of the product elsewhere.

The kernels are gfx950's own, on the emulator; the truth is torch in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import TORCH, K, M, N, close, finished_table, hits, operands
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.errors import InputError
from hktune.core.operation import ACTIVATIONS
from hktune.runtime import FallbackWarning, LoadedTable

FUSED = ("bf16.nt+gelu", "bf16.nt+bias+silu", "bf16.nt+bias+gelu_tanh", "f16.nn+relu")


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    """Of four kernels with an activation, and two without one."""
    return finished_table(tmp_path, FUSED)


def expected(activation: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    total = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return TORCH[activation](total).to(x.dtype)


@pytest.mark.parametrize("call", ["hktune.linear", "table.linear"])
def test_one_kernel_does_both_where_the_table_has_it(table: LoadedTable, call: str) -> None:
    linear: Callable[..., Tensor] = hktune.linear if call == "hktune.linear" else table.linear
    x, weight, bias = operands()
    for _ in range(3):  # the first asks all questions, the others are like it
        out, count = hits(table, lambda: linear(x, weight, activation="gelu"))
        assert count == 1
        close(out, expected("gelu", x, weight))
        out, count = hits(table, lambda: linear(x, weight, bias, activation="silu"))
        assert count == 1
        close(out, expected("silu", x, weight, bias))
    assert table.stats().fallbacks == {}


def test_it_is_rounded_once_where_torch_rounds_twice(table: LoadedTable) -> None:
    x, weight, _ = operands()
    exact = TORCH["gelu"](functional.linear(x.double(), weight.double()))
    once = (hktune.linear(x, weight, activation="gelu").double() - exact).abs()
    twice = (functional.gelu(functional.linear(x, weight)).double() - exact).abs()
    assert once.mean() < 0.9 * twice.mean()
    assert table.stats().hits == 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_without_such_a_kernel_it_is_torchs_function_of_a_served_product(
    table: LoadedTable, activation: str, has_bias: bool
) -> None:
    x, weight, bias = operands()
    given = (x, weight, bias) if has_bias else (x, weight)
    out, count = hits(table, lambda: hktune.linear(*given, activation=activation))
    assert count == 1
    close(out, expected(activation, *given), steps=2.0)
    product = hktune.linear(*given)
    fused = f"bf16.nt{'+bias' if has_bias else ''}+{activation}" in FUSED
    assert torch.equal(out, TORCH[activation](product)) is not fused or activation == "relu"
    assert table.stats().fallbacks == {}


def test_a_weight_is_read_as_it_is_stored(table: LoadedTable) -> None:
    x, weight, _ = operands(torch.float16)
    out, count = hits(table, lambda: hktune.linear(x, weight.t().contiguous().t(), activation="relu"))
    assert count == 1
    close(out, expected("relu", x, weight))


def test_without_any_kernel_it_is_torchs(table: LoadedTable) -> None:
    x, weight, bias = operands()
    weight, bias = weight[: N // 2], bias[: N // 2]
    with pytest.warns(hktune.runtime.FallbackWarning, match="no entry"):
        out = hktune.linear(x, weight, bias, activation="gelu_tanh")
    assert torch.equal(out, TORCH["gelu_tanh"](functional.linear(x, weight, bias)))
    assert table.stats().fallbacks == {"no entry for the shape": 1}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_torchs_formulas(table: LoadedTable, activation: str) -> None:
    x, weight, bias = (each.requires_grad_() for each in operands())
    out, count = hits(table, lambda: hktune.linear(x, weight, bias, activation=activation))
    assert count == 1
    out.sum().backward()
    copies = [each.detach().double().requires_grad_() for each in (x, weight, bias)]
    TORCH[activation](functional.linear(*copies)).sum().backward()
    for each, copy in zip((x, weight, bias), copies, strict=True):
        assert each.grad is not None
        assert copy.grad is not None
        torch.testing.assert_close(each.grad.double(), copy.grad, rtol=0.03, atol=0.1)
    with torch.no_grad():
        close(hktune.linear(x, weight, bias, activation=activation), out.detach(), steps=2.0)


def test_autocast_casts_first(table: LoadedTable) -> None:
    x, weight, _ = (each.float() for each in operands())
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            out, count = hits(table, lambda: hktune.linear(x, weight, activation="gelu"))
        assert count == 1
        close(out, expected("gelu", x.bfloat16(), weight.bfloat16()))


def test_a_compiled_call_is_one_operator_and_two_where_a_gradient_is_asked(table: LoadedTable) -> None:
    x, weight, bias = operands()
    graphs: list[list[str]] = []

    def seen(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return module

    def call(x: Tensor, weight: Tensor) -> Tensor:
        return hktune.linear(x, weight, bias, activation="silu")

    fused = torch.compile(call, backend=seen, fullgraph=True)
    out, count = hits(table, lambda: fused(x, weight))
    assert count == 1
    close(out, expected("silu", x, weight, bias))
    assert graphs == [["hktune.linear_activated.default"]]
    weight.requires_grad_()
    fused(x, weight).sum().backward()
    assert "hktune.linear.default" in graphs[1]
    assert "hktune.linear_activated.default" not in graphs[1]
    assert weight.grad is not None


def test_a_weight_whose_sizes_only_the_run_tells_is_compiled_too(table: LoadedTable) -> None:
    x, weight, bias = operands()

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return hktune.linear(x, weight, bias, activation="silu")

    any_sizes = torch.compile(call, backend="eager", fullgraph=True, dynamic=True)
    out, count = hits(table, lambda: any_sizes(x, weight, bias))
    assert count == 1, "the product, whose activation is torch's"
    close(out, expected("silu", x, weight, bias), steps=3)
    narrow = weight[: N // 2], bias[: N // 2]
    with pytest.warns(FallbackWarning, match="no entry"):
        close(any_sizes(x, *narrow), expected("silu", x, *narrow), steps=3)


def test_the_operator_keeps_torchs_rules(table: LoadedTable) -> None:
    x, weight, bias = operands()
    linear_activated = torch.ops.hktune.linear_activated.default
    torch.library.opcheck(linear_activated, (x, weight, bias, "silu", 0), rtol=2e-2, atol=1e-3)
    weight.requires_grad_()
    linear_activated(x, weight, bias, "silu", 0).sum().backward()
    copy = weight.detach().double().requires_grad_()
    functional.silu(functional.linear(x.double(), copy, bias.double())).sum().backward()
    assert weight.grad is not None
    assert copy.grad is not None
    torch.testing.assert_close(weight.grad.double(), copy.grad, rtol=0.03, atol=0.1)


def test_a_recording_names_it_where_one_kernel_would_do_it(tmp_path: Path) -> None:
    x, weight, bias = operands()
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        out = hktune.linear(x, weight, bias, activation="gelu")
        hktune.linear(x, weight.requires_grad_(), activation="relu")
    assert torch.equal(out, functional.gelu(functional.linear(x, weight, bias)).detach())
    counted = {str(problem): count for problem, count in recorder.calls.items()}
    assert counted == {f"{M}x{N}x{K} bf16.nt+bias+gelu": 1, f"{M}x{N}x{K} bf16.nt": 1}


def test_an_activation_that_is_not_known_is_one_line(table: LoadedTable) -> None:
    x, weight, _ = operands()
    for call in (hktune.linear, table.linear):
        with pytest.raises(
            InputError, match=r"^activation 'mish' is not known: known are relu, gelu, gelu_tanh, silu$"
        ):
            call(x, weight, activation="mish")
        with pytest.raises(InputError, match="activation 'mish' is not known"):
            call(x, weight.detach().requires_grad_(), activation="mish")


def test_a_transformed_call_is_torchs(table: LoadedTable) -> None:
    x, weight, _ = operands()
    with pytest.warns(hktune.runtime.FallbackWarning, match="functorch"):
        out = torch.func.vmap(lambda row: hktune.linear(row, weight, activation="gelu"))(x[:, None])
    close(out[:, 0], expected("gelu", x, weight), steps=2.0)
