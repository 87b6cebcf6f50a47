"""`hktune.linear` with a residual and `hktune.gated_linear`: one kernel where the table has it, torch's functions of a
served product elsewhere. The kernels are gfx950's own, on the emulator; the truth is torch in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import (
    TORCH,
    K,
    M,
    N,
    close,
    finished_table,
    hits,
    operands,
    residual,
    truth,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import hktune
from hktune.core.errors import InputError
from hktune.runtime import FallbackWarning, LoadedTable

FUSED = ("bf16.nt+residual", "bf16.nt+bias+gelu+residual", "bf16.nt+silu+gated", "bf16.nt+bias+gelu_tanh+gated")


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    """Of four kernels that finish a product, and of those of products alone."""
    return finished_table(tmp_path, FUSED, wide=True)


def gated_operands() -> tuple[Tensor, Tensor, Tensor]:
    """x [M, K], weight [2N, K] and bias [2N]."""
    x, gate, bias = operands()
    up = torch.randn(N, K, generator=torch.Generator().manual_seed(7)).bfloat16() / 8
    return x, torch.cat([gate, up]), torch.cat([bias, -bias])


def gated_truth(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    gate, up = truth(x, weight, bias, None).chunk(2, -1)
    return (gate if activation is None else TORCH[activation](gate)) * up


@pytest.mark.parametrize("call", ["hktune", "table"])
def test_one_kernel_does_all_where_the_table_has_it(table: LoadedTable, call: str) -> None:
    where: Any = hktune if call == "hktune" else table
    x, weight, bias = operands()
    added, (_, wide, wide_bias) = residual(), gated_operands()
    for _ in range(2):
        out, count = hits(table, lambda: where.linear(x, weight, residual=added))
        assert count == 1
        close(out, (truth(x, weight, None, None) + added.double()).bfloat16())
        out, count = hits(table, lambda: where.linear(x, weight, bias, activation="gelu", residual=added))
        assert count == 1
        close(out, (truth(x, weight, bias, "gelu") + added.double()).bfloat16())
        out, count = hits(table, lambda: where.gated_linear(x, wide))
        assert count == 1
        close(out, gated_truth(x, wide, None, "silu").bfloat16())
        out, count = hits(table, lambda: where.gated_linear(x, wide, wide_bias, activation="gelu_tanh"))
        assert count == 1
        close(out, gated_truth(x, wide, wide_bias, "gelu_tanh").bfloat16())
    assert table.stats().fallbacks == {}
    stacked = where.gated_linear(x.view(2, M // 2, K), wide)
    assert torch.equal(stacked.view(M, N), where.gated_linear(x, wide))


def test_it_is_rounded_once_where_torch_rounds_three_times(table: LoadedTable) -> None:
    x, wide, _ = gated_operands()
    exact = gated_truth(x, wide, None, "silu")
    gate, up = functional.linear(x, wide).chunk(2, -1)
    once = (hktune.gated_linear(x, wide).double() - exact).abs()
    thrice = ((functional.silu(gate) * up).double() - exact).abs()
    assert once.mean() < 0.7 * thrice.mean()


RESIDUALS: dict[str, Callable[[Tensor], Tensor]] = {
    "a row": lambda r: r[:1],
    "float32": lambda r: r.float(),
    "transposed": lambda r: r.t().contiguous().t(),
    "misaligned": lambda r: torch.empty(r.numel() + 1, dtype=r.dtype)[1:].view_as(r).copy_(r),
    "rows apart": lambda r: torch.cat([r, r], 1)[:, :N],
}


@pytest.mark.parametrize("kind", RESIDUALS)
def test_another_residual_is_added_by_torch_to_a_served_product(table: LoadedTable, kind: str) -> None:
    x, weight, _ = operands()
    added = RESIDUALS[kind](residual())
    out, count = hits(table, lambda: hktune.linear(x, weight, residual=added))
    assert count == 1
    torch.testing.assert_close(out, hktune.linear(x, weight) + added, rtol=0, atol=0)
    torch.testing.assert_close(out.double(), truth(x, weight, None, None) + added.double(), rtol=0.02, atol=0.02)


def test_a_residual_without_memory_is_torchs_to_refuse(table: LoadedTable) -> None:
    x, weight, _ = operands()
    with pytest.raises(RuntimeError, match="Tensor on device meta is not on the expected device cpu"):
        hktune.linear(x, weight, residual=residual().to("meta"))


def test_without_such_a_kernel_the_product_is_served_and_the_rest_is_torchs(table: LoadedTable) -> None:
    x, weight, bias = operands()
    out, count = hits(table, lambda: hktune.linear(x, weight, bias, residual=residual()))
    assert count == 1
    assert torch.equal(out, hktune.linear(x, weight, bias) + residual())
    wide = gated_operands()[1]
    out, count = hits(table, lambda: hktune.gated_linear(x, wide, activation="relu"))
    assert count == 1
    gate, up = hktune.linear(x, wide).chunk(2, -1)
    assert torch.equal(out, functional.relu(gate) * up)


def test_gradients_are_those_of_torchs_formulas(table: LoadedTable) -> None:
    x, wide, bias = (each.requires_grad_() for each in gated_operands())
    added = residual().requires_grad_()
    weight = wide.detach()[:N].requires_grad_()
    out = hktune.gated_linear(x, wide, bias, activation="gelu_tanh") + hktune.linear(x, weight, residual=added)
    out.sum().backward()
    given = [x, wide, bias, weight, added]
    copies = [each.detach().double().requires_grad_() for each in given]
    gate, up = functional.linear(*copies[:3]).chunk(2, -1)
    (TORCH["gelu_tanh"](gate) * up + functional.linear(copies[0], copies[3]) + copies[4]).sum().backward()
    for each, copy in zip(given, copies, strict=True):
        assert each.grad is not None
        assert copy.grad is not None
        torch.testing.assert_close(each.grad.double(), copy.grad, rtol=0.03, atol=0.3)


def test_autocast_casts_first(table: LoadedTable) -> None:
    x, wide, _ = (each.float() for each in gated_operands())
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            out, count = hits(table, lambda: hktune.gated_linear(x, wide))
        assert count == 1
        close(out, gated_truth(x.bfloat16(), wide.bfloat16(), None, "silu").bfloat16())


def test_a_compiled_call_is_one_operator_and_several_where_a_gradient_is_asked(table: LoadedTable) -> None:
    x, wide, _ = gated_operands()
    added, weight = residual(), operands()[1]
    graphs: list[list[str]] = []

    def seen(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return module

    def call(x: Tensor, wide: Tensor) -> Tensor:
        return hktune.gated_linear(x, wide) * hktune.linear(x, weight, residual=added)

    fused = torch.compile(call, backend=seen, fullgraph=True)
    out, count = hits(table, lambda: fused(x, wide))
    assert count == 2
    assert torch.equal(out, call(x, wide))
    assert graphs[0].count("hktune.linear_finished.default") == 2
    wide.requires_grad_()
    fused(x, wide).sum().backward()
    assert "hktune.linear.default" in graphs[1]
    assert wide.grad is not None


def test_the_operator_keeps_torchs_rules_and_knows_shapes_without_numbers(table: LoadedTable) -> None:
    x, wide, bias = gated_operands()
    weight, plus = wide[:N].clone(), residual()
    finished = torch.ops.hktune.linear_finished.default
    torch.library.opcheck(finished, (x, wide, bias, None, "gelu_tanh", True, 0), rtol=2e-2, atol=1e-3)
    torch.library.opcheck(finished, (x, wide[:N], None, residual(), "", False, 0), rtol=2e-2, atol=1e-3)
    with FakeTensorMode() as mode:
        narrow, wider, whole, other = (mode.from_tensor(each) for each in (x, weight, wide, plus))
        fake, added = hktune.gated_linear(narrow, whole), hktune.linear(narrow, wider, residual=other)
    assert (fake.shape, fake.dtype, added.shape) == ((M, N), torch.bfloat16, (M, N))
    with pytest.warns(FallbackWarning, match="on meta"):
        out = hktune.gated_linear(x.to("meta"), wide.to("meta"))
    assert (out.shape, out.device.type) == ((M, N), "meta")


def test_a_recording_names_what_one_kernel_would_do(tmp_path: Path) -> None:
    x, weight, bias = operands()
    _, wide, wide_bias = gated_operands()
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        out = hktune.gated_linear(x, wide, wide_bias, "silu")
        hktune.linear(x, weight, bias, activation="gelu", residual=residual())
        hktune.linear(x, weight, residual=residual().float())
        hktune.gated_linear(x, wide.requires_grad_())
    gate, up = functional.linear(x, wide, wide_bias).chunk(2, -1)
    assert torch.equal(out, functional.silu(gate) * up)
    counted = {str(problem): count for problem, count in recorder.calls.items()}
    assert counted == {
        f"{M}x{N}x{K} bf16.nt+bias+silu+gated": 1,
        f"{M}x{N}x{K} bf16.nt+bias+gelu+residual": 1,
        f"{M}x{N}x{K} bf16.nt": 1,
        f"{M}x{2 * N}x{K} bf16.nt": 1,
    }


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_is_no_tensor_is_torchs_to_refuse(table: LoadedTable) -> None:
    x, wide, _ = gated_operands()
    for call in (hktune.gated_linear, lambda x, weight: hktune.linear(x, weight, residual=residual())):
        with pytest.raises(TypeError, match=r"argument 'input' \(position 1\) must be Tensor, not list"):
            call(x.tolist(), wide)  # type: ignore[arg-type, operator]


def test_what_cannot_be_is_one_line(table: LoadedTable) -> None:
    x, wide, _ = gated_operands()
    with pytest.raises(InputError, match=r"^activation 'mish' is not known"):
        hktune.gated_linear(x, wide, activation="mish")
    with (
        pytest.warns(FallbackWarning),
        pytest.raises(InputError, match=r"^a gated weight has 127 rows: it must have as many gates as rows"),
    ):
        hktune.gated_linear(x, wide[:-1])
    hktune.unload()
    with pytest.raises(hktune.core.errors.TableError, match="no dispatch table is loaded"):
        hktune.gated_linear(x, wide)
