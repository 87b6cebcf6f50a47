"""A small transformer from its first call to being served by a table: record, tune, load, serve.

    python examples/transformer.py [DIR]

Everything runs on the emulated gfx950, so no GPU is needed: in under a minute on two cores, from an empty cache too.
The logits are compared with the same model in float32; torch's own bf16 sets what error is to be expected.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import hktune
from hktune.cli import main as run_command


class Block(nn.Module):
    """Attention and a gated MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class Transformer(nn.Module):
    """Tokens in, logits out."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2, vocabulary: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


@dataclass(frozen=True)
class Outcome:
    """Relative errors of the logits against float32, and what the table served."""

    torch_error: float
    hktune_error: float
    stats: hktune.runtime.Stats


@torch.no_grad()
def run(directory: Path, trials: int = 3) -> Outcome:
    """Record a model's shapes, tune them with so many trials each, load the table and serve the model by it."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    reference = Transformer()
    model = copy.deepcopy(reference).bfloat16()
    tokens = torch.randint(96, (2, 16))

    with hktune.record(directory / "shapes.yaml"):
        expected = model(tokens)
    out = directory / "table"
    tune = ["tune", "--shapes", str(directory / "shapes.yaml"), "--device", "emulated", "--trials", str(trials)]
    if run_command([*tune, "--strategy", "random", "--out", str(out)]):
        raise SystemExit("the tuning failed: its last lines say why")

    table = hktune.load(out, allow_modelled=True)
    hktune.patch(model)
    served = model(tokens)

    exact = reference.bfloat16().float()(tokens)  # the very weights of the bf16 model
    return Outcome(_error(expected, exact), _error(served, exact), table.stats())


def _error(logits: Tensor, exact: Tensor) -> float:
    return float((logits.float() - exact).norm() / exact.norm())


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        outcome = run(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary))
    print(f"relative error of the logits against float32: torch {outcome.torch_error:.1e}, ", end="")
    print(f"hktune {outcome.hktune_error:.1e}")
    print(outcome.stats)


if __name__ == "__main__":
    main()
