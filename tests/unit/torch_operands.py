"""Random torch operands."""

from __future__ import annotations

import torch
from torch import Tensor


def bf16(*shape: int) -> Tensor:
    """Standard normal numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()
