"""torch's scaled products of float8: which operation a call is, whether kernels take its operands, and torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.operation import SCALE_BLOCK, SCALES
from hktune.dispatch.calls import SCALED_FORMATS, SCALED_OUTPUTS, scaled_operation
from hktune.runtime.counts import Fallback
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN

_FLOAT32 = torch.float32
_Words = tuple[torch.dtype, torch.dtype, str, torch.dtype, bool, bool]
"""The formats of A and B, the scales, the format of C, whether a bias is added, whether sums may be fast."""


def _named(*words: object) -> _Words:
    return words  # type: ignore[return-value]


OPERATIONS: Mapping[_Words, tuple[str, ...]] = {
    _named(
        getattr(torch, a.torch_name), getattr(torch, b.torch_name), scales, getattr(torch, c.torch_name), bias, is_fast
    ): tuple(
        str(scaled_operation(a, b, scales, c, bias, accumulation))
        for accumulation in (("fast", "") if is_fast else ("",))
    )
    for (a, b), scales, c, bias, is_fast in itertools.product(
        SCALED_FORMATS, SCALES, SCALED_OUTPUTS, (False, True), (False, True)
    )
}
"""The texts of the operations that serve a call, the first that a table has: what may be fast may be exact."""


class ScaledCall(NamedTuple):
    """A call of torch._scaled_mm: a [M, K] and b [K, N], a view of what is stored [N, K]."""

    a: Tensor
    b: Tensor
    scale_a: Tensor
    scale_b: Tensor
    bias: Tensor | None = None
    out_dtype: torch.dtype = torch.bfloat16
    use_fast_accum: bool = False

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        own = (self.a, self.b, self.scale_a, self.scale_b)
        return own if self.bias is None else (*own, self.bias)

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """m, n and k; None where the operands are no matrices that fit."""
        a, b = self.a, self.b
        if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
            return None
        return a.shape[0], b.shape[1], a.shape[1]

    def words(self, m: int, n: int, k: int) -> _Words | None:
        """What `OPERATIONS` has its operation under; None where the scales have the shapes of none."""
        scales = _scales(self.scale_a.shape, self.scale_b.shape, m, n, k)
        if scales is None:
            return None
        return self.a.dtype, self.b.dtype, scales, self.out_dtype, self.bias is not None, self.use_fast_accum


def _scales(of_a: torch.Size, of_b: torch.Size, m: int, n: int, k: int) -> str | None:
    """Which of an operation's scales have these shapes, as torch has them."""
    if of_a.numel() == of_b.numel() == 1:
        return "tensor"
    if of_a == (m, 1) and of_b == (1, n):
        return "rows"
    blocks = -(-k // SCALE_BLOCK)
    return "blocks" if of_a == (m, blocks) and of_b == (blocks, -(-n // SCALE_BLOCK)) else None


def refusal(call: ScaledCall, n: int, scales: str, where: torch.device) -> Fallback | None:
    """Why kernels on `where` cannot take the operands of a call as they are stored; None where they can."""
    a, b, scale_a, scale_b, bias = call[:5]
    if any(type(each) not in PLAIN or each.layout is not torch.strided or each.is_neg() for each in call.tensors):
        return Fallback.TENSOR_TYPE
    if any(each.device != where for each in call.tensors):
        return Fallback.DEVICE
    if scale_a.dtype is not _FLOAT32 or scale_b.dtype is not _FLOAT32:
        return Fallback.SCALES
    stored_b = scale_b.t() if scales == "blocks" else scale_b
    if not scale_a.is_contiguous() or not stored_b.is_contiguous():
        return Fallback.SCALES
    if bias is not None and (bias.shape != (n,) or bias.dtype is not call.out_dtype):
        return Fallback.SHAPE if bias.shape != (n,) else Fallback.DTYPE
    if not a.is_contiguous() or not b.t().is_contiguous() or not (bias is None or bias.is_contiguous()):
        return Fallback.STRIDES
    try:
        at = [each.data_ptr() for each in (a, b, *(() if bias is None else (bias,)))]
    except RuntimeError:  # a wrapper, such as a transform of torch.func leaves behind
        return Fallback.TENSOR_TYPE
    return Fallback.ALIGNMENT if any(not each or each % ALIGNMENT_BYTES for each in at) else None


def by_torch(call: ScaledCall) -> Tensor:
    """torch's own. It wants the scales of A's blocks column by column, and a kernel row by row: either is taken."""
    a, b, scale_a, scale_b, bias = call[:5]
    sizes = call.sizes
    if sizes is not None and _scales(scale_a.shape, scale_b.shape, *sizes) == "blocks":
        scale_a = scale_a.t().contiguous().t()
    fast = call.use_fast_accum
    return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=call.out_dtype, use_fast_accum=fast)
