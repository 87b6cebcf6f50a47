"""torch's own scaled product as tests call it, and tables of scaled operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable, operators


def scaled_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], m: int, n: int, k: int
) -> Iterator[LoadedTable]:
    """For a fixture: the current table, of these operations at one size; afterwards nothing is served."""
    monkeypatch.setattr(operators, "_current", None)
    published(folder, *(trial(Problem(m, n, k, operation_of(text))) for text in texts))
    yield hktune.load(folder, allow_modelled=True)
    hktune.disable()
    torch._dynamo.reset()


def by_operator(*given: Any) -> Tensor:
    return torch._scaled_mm(*given, out_dtype=torch.bfloat16)


def by_out(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    out = torch.full((a.shape[0], b.shape[1]), torch.nan, dtype=torch.bfloat16)
    assert torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=torch.bfloat16, out=out) is out
    return out
