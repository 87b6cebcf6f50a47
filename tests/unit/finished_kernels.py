"""Kernels of gfx950 that finish a linear (its activation, gates, residual, factors), and tables of them and of products
alone: what tests of such calls share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from gemm_bf16_variants import compiled, space
from naive_gemm import EMULATED, OBJECTS, SHA256, launch_of, trial
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.config import Config
from hktune.core.launch_rule import LaunchRule
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.variant import CodeObject
from hktune.dispatch import write_table
from hktune.runtime import LoadedTable
from hktune.tables import build_table

M, N, K = 8, 64, 64
TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
PLAIN = ("bf16.nt", "bf16.nt+bias")


@lru_cache
def config() -> Config:
    return space().config({"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1})


@lru_cache
def built(text: str) -> CodeObject:
    return compiled(space().for_operation(operation_of(text).code).template.render(config()))


def row(text: str) -> Trial:
    problem = Problem(M, N, K, operation_of(text))
    if text in PLAIN:
        return trial(problem)
    return trial(problem, object_sha256=hashlib.sha256(built(text).data).hexdigest())


def launched(row: Trial) -> tuple[str, LaunchRule]:
    if row.object_sha256 == SHA256:
        return launch_of(row)
    template = space().for_operation(row.operation).template
    return template.symbol(config()), template.launch_rule(config(), row.n, row.k)


def finished_table(folder: Path, fused: Sequence[str], wide: bool = False) -> LoadedTable:
    """The current table, of kernels for the operations `fused` and of plain products; `wide` ones have 2N columns."""
    rows = [row(text) for text in (*fused, *PLAIN)]
    if wide:
        rows += [trial(Problem(M, 2 * N, K, operation_of(text))) for text in PLAIN]
    made = build_table(rows, launched, EMULATED, "clang 22", "0.1.0", "2026-11-30T05:00:00+00:00")
    objects = {**OBJECTS, **{hashlib.sha256(built(text).data).hexdigest(): built(text).data for text in fused}}
    write_table(made, objects, folder)
    return hktune.load(folder, allow_modelled=True)


def operands(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """x [M, K], weight [N, K] and bias [N], whose products are around 1."""
    chance = torch.Generator().manual_seed(5)
    x, weight, bias = (torch.randn(*shape, generator=chance) for shape in ((M, K), (N, K), (N,)))
    return x.to(dtype), (weight / 8).to(dtype), bias.to(dtype)


def residual() -> Tensor:
    return torch.randn(M, N, generator=torch.Generator().manual_seed(6)).bfloat16()


def truth(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    total = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return total if activation is None else TORCH[activation](total)


def close(out: Tensor, right: Tensor, steps: float = 1.0) -> None:
    torch.testing.assert_close(out, right, rtol=steps * torch.finfo(out.dtype).eps, atol=1e-4)


def hits(table: LoadedTable, call: Callable[[], Any]) -> tuple[Any, int]:
    """What `call` returns, and how many products kernels computed in it."""
    before = table.stats().hits
    return call(), table.stats().hits - before
