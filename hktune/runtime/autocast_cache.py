"""The casts that torch's own autocast keeps.

Within a region torch casts a float32 leaf that requires a gradient once, and uses that cast until its outermost region
ends, though the leaf be changed meanwhile. Here the same cast is used: torch is asked for it at every call, and nothing
is remembered. A product of no rows under autocast saves the cast for its backward pass, launches nothing and costs what
a cast costs on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch
from torch import Tensor

from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.torch_state import as_autocast, autocast_dtype, grad_enabled, is_below_autograd


class _MadeBy(Protocol):
    """The node of a product: what it keeps for the backward pass of a right operand of two dimensions, or of one."""

    _saved_mat2: Tensor
    _saved_vec: Tensor


class _Product(Protocol):
    grad_fn: _MadeBy


_mm = cast("Callable[[Tensor, Tensor], _Product]", torch.mm)
_matmul = cast("Callable[[Tensor, Tensor], _Product]", torch.matmul)
_set_grad: Callable[[bool], None] = torch._C._set_grad_enabled
_cache_enabled: Callable[[], bool] = torch.is_autocast_cache_enabled
# A checkpoint's, or ones that move what is saved.
_hooks: Callable[[bool], object] = torch._C._autograd._top_saved_tensors_default_hooks
_CASTS: Mapping[torch.dtype, Callable[[Tensor], Tensor]] = {
    torch.bfloat16: Tensor.bfloat16,
    torch.float16: Tensor.half,
}
"""1.5 us each, where `tensor.to(dtype)` takes 2.4."""
_FLOAT32, _FLOAT64 = torch.float32, torch.float64
_rowless: dict[tuple[int, int, torch.dtype], Tensor] = {}
"""The left operand [0, N] of those products, by device, N and the dtype of the cast."""


def as_cached_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """`as_autocast`, with the casts that torch keeps."""
    dtype = autocast_dtype(x)
    if dtype is None or dtype not in _CASTS:
        return as_autocast(x, weight, bias)
    cast_bias = cached_cast(bias, dtype) if bias is not None and type(bias) in PLAIN else bias
    return cached_cast(x, dtype), cached_cast(weight, dtype), cast_bias


def cached_cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A plain tensor as an autocast to `dtype`, bfloat16 or float16, would have it; it must be on."""
    own = tensor.dtype
    if own is dtype:
        return tensor
    if own is _FLOAT32:
        return _kept(tensor, dtype) if tensor.requires_grad and tensor.is_leaf else _CASTS[dtype](tensor)
    return _CASTS[dtype](tensor) if own.is_floating_point and own is not _FLOAT64 else tensor


def _kept(leaf: Tensor, dtype: torch.dtype) -> Tensor:
    dims = leaf.dim()
    if dims not in (1, 2) or leaf._is_view() or not _cache_enabled() or is_below_autograd():
        return _CASTS[dtype](leaf)
    at = leaf.get_device(), len(leaf), dtype
    rowless = _rowless.get(at)
    if rowless is None:
        rowless = torch.empty(0, at[1], dtype=dtype, device=leaf.device, requires_grad=True)
        _rowless[at] = rowless
    if _hooks(False) is not None:
        with torch.autograd.graph.saved_tensors_hooks(_same, _same):
            return _saved(rowless, leaf)
    if dims == 2 and grad_enabled():
        return _mm(rowless, leaf).grad_fn._saved_mat2
    return _saved(rowless, leaf)


def _saved(rowless: Tensor, leaf: Tensor) -> Tensor:
    had_grad = grad_enabled()
    _set_grad(True)
    try:
        made_by = _matmul(rowless, leaf).grad_fn
    finally:
        _set_grad(had_grad)
    return made_by._saved_mat2 if leaf.dim() == 2 else made_by._saved_vec


def _same(tensor: Tensor) -> Tensor:
    return tensor
