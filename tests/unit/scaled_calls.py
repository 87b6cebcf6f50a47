"""torch's own scaled product, as tests call it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def by_operator(*given: Any) -> Tensor:
    return torch._scaled_mm(*given, out_dtype=torch.bfloat16)


def by_out(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
    out = torch.full((a.shape[0], b.shape[1]), torch.nan, dtype=torch.bfloat16)
    assert torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=torch.bfloat16, out=out) is out
    return out
