"""Experts with gates, and of float8: recorded, tuned on the emulated device as they were recorded, and served there by
the gfx950 GEMM. The truth is float64 of the very operands."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from gemm_bf16_variants import ROOT, space
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.dispatch.calls import SEVERAL_OPERATIONS
from hktune.runtime import operators
from hktune.space.search_space import load_space

M, FEATURES, HIDDEN, EXPERTS = 40, 32, 64, 4
ENDS = [3, 3, 30, M]
FLOAT8 = torch.float8_e4m3fn


def test_what_calls_ask_for_is_what_a_template_has() -> None:
    """All but a residual behind a transposed A, and what is float8's alone of groups: fast sums, and what is behind
    them but a bias, is gfx950's."""
    sm90a = load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml").template
    others = [each for each in SEVERAL_OPERATIONS if not space().template.does(each)]
    gates = [(each, last) for each in ("silu", "gelu", "gelu_tanh") for last in ("gated", "gated_interleaved")]
    behind_float8 = [("relu",), ("gelu",), ("gelu_tanh",), ("silu",), *gates]
    assert {(each.kind, each.layout[0], each.accumulation, each.epilogue) for each in others} == {
        ("batched", "t", "", ("residual",)),
        *(("grouped", "n", "fast", steps) for steps in ((), ("bias",), *behind_float8)),
        *(("grouped", "n", "", steps) for steps in behind_float8),
    }
    assert all(sm90a.does(each) for each in others)


class Layer:
    """A layer of experts: SwiGLU in bf16, then float8 with scales of rows, and a batch of these."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.x = torch.randn((M, HIDDEN), generator=random).bfloat16()
        self.gates_and_up = torch.randn((EXPERTS, 2 * FEATURES, HIDDEN), generator=random).bfloat16() / 8
        self.down = torch.randn((EXPERTS, HIDDEN, FEATURES), generator=random).to(FLOAT8)
        self.scale_down = torch.rand((EXPERTS, HIDDEN), generator=random) + 0.5
        self.ends = torch.tensor(ENDS, dtype=torch.int32)

    def __call__(self) -> tuple[Tensor, ...]:
        gated = hktune.gated_grouped_mm(self.x, self.gates_and_up.mT, self.ends)
        activated = hktune.grouped_mm(self.x, self.gates_and_up.mT, self.ends, activation="silu")
        scale = gated.float().abs().amax(1) / 448
        scale = torch.where(scale > 0, scale, 1.0)
        small = (gated / scale[:, None]).to(FLOAT8)
        out = hktune.scaled_grouped_mm(small, self.down.mT, scale, self.scale_down, self.ends)
        stack, scales = torch.stack([small] * EXPERTS), torch.stack([scale] * EXPERTS)
        batch = hktune.scaled_grouped_mm(stack, self.down.mT, scales, self.scale_down)
        return gated, activated, small, scale, out, batch

    def exact(self, x: Tensor, weights: Tensor) -> Tensor:
        """x [M, K] in groups, and weights [G, N, K], in float64."""
        ranges = enumerate(itertools.pairwise([0, *ENDS]))
        return torch.cat([x[first:end].double() @ weights[group].double().T for group, (first, end) in ranges])


@pytest.mark.slow
def test_a_layer_of_experts_is_recorded_tuned_and_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    layer = Layer()
    with hktune.record(tmp_path / "shapes.yaml"):
        layer()
    text = (tmp_path / "shapes.yaml").read_text()
    assert "tokens" in text
    result = hktune.tune(tmp_path / "shapes.yaml", device="emulated", out=tmp_path / "table", trials=2)
    table = result.load(allow_modelled=True)
    gated, activated, small, scale, out, batch = layer()
    assert (table.stats().hits, table.stats().fallbacks) == (4, {}), "exactly what was recorded"

    product = layer.exact(layer.x, layer.gates_and_up)
    gate, up = product.chunk(2, 1)
    torch.testing.assert_close(gated.double(), functional.silu(gate) * up, rtol=2**-7, atol=2**-10)
    torch.testing.assert_close(activated.double(), functional.silu(product), rtol=2**-7, atol=2**-10)
    wide = small.double() * scale.double()[:, None]
    down = layer.down.double() * layer.scale_down.double()[..., None]
    torch.testing.assert_close(out.double(), layer.exact(wide, down), rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(batch.double(), wide @ down.mT, rtol=2**-8, atol=1e-4)

    layer.scale_down[2, 5] = torch.nan
    assert layer()[4].isnan().nonzero().tolist() == [[row, 5] for row in range(3, 30)], "of the third expert"
    layer.ends = torch.tensor([M, M, M, M], dtype=torch.int32)
    monkeypatch.setitem(globals(), "ENDS", [M, M, M, M])
    again = layer()
    torch.testing.assert_close(
        again[1].double(), functional.silu(layer.exact(layer.x, layer.gates_and_up)), rtol=2**-7, atol=2**-10
    )
    assert table.stats().hits == 12, "entries are of any division of the rows"
