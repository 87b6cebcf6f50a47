"""Why a recorded call is of no table, in a word."""

from __future__ import annotations

import torch
from torch import Tensor

from hktune.runtime.calls.call_operations import KERNEL_DTYPES
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.torch_state import is_transformed


def why_left_out(tensor: Tensor) -> str | None:
    """What keeps a table from serving products of `tensor`, in a word; None where nothing does."""
    return why_not_seen(tensor) or (None if tensor.dtype in KERNEL_DTYPES else named_dtype(tensor.dtype))


def why_not_seen(tensor: Tensor) -> str | None:
    """The same of what a tensor is, whatever numbers it holds."""
    if is_transformed():
        return "transformed or traced"
    if type(tensor) not in PLAIN:
        return type(tensor).__name__
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    return None


def named_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
