"""torch's scaled products of float8: which operation a call is, whether kernels take its operands, and torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hktune.core.operation import SCALE_BLOCK, SCALES, Operation
from hktune.core.problem import Problem
from hktune.dispatch.calls import SCALED_FORMATS, SCALED_OUTPUTS, scaled_operation
from hktune.runtime.counts import Fallback
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN

_FLOAT32 = torch.float32
Words = tuple[torch.dtype, torch.dtype, str, torch.dtype, bool, bool]
"""The formats of A and B, the scales, the format of C, whether a bias is added, whether sums may be fast."""


def _operations() -> dict[Words, tuple[Operation, ...]]:
    found: dict[Words, tuple[Operation, ...]] = {}
    truths = (False, True)
    for (a, b), scales, c, bias, is_fast in itertools.product(SCALED_FORMATS, SCALES, SCALED_OUTPUTS, truths, truths):
        dtype_a, dtype_b, dtype_c = (getattr(torch, each.torch_name) for each in (a, b, c))
        found[dtype_a, dtype_b, scales, dtype_c, bias, is_fast] = tuple(
            scaled_operation(a, b, scales, c, bias, accumulation)
            for accumulation in (("fast", "") if is_fast else ("",))
        )
    return found


OPERATIONS: Mapping[Words, tuple[Operation, ...]] = _operations()
"""What serves a call, the first that a table has: what may be fast may be exact."""

_NO_SWIZZLE: tuple[list[int], ...] = ([], [0])
_OF_FLOAT32 = ([0], [1], [4], [5])
"""Recipes whose scales are float32: of a tensor, of rows, of blocks of A and of B."""


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

    @property
    def problem(self) -> Problem | None:
        """What is to be tuned for it; None where no kernel computes such. Only NVIDIA's tensor cores are less exact
        where that is allowed."""
        sizes = self.sizes
        words = self.words(*sizes) if sizes else None
        found = OPERATIONS.get(words) if words else None
        if sizes is None or found is None or 0 in sizes:
            return None
        is_exact = torch.version.hip is not None or not self.a.is_cuda
        return Problem(*sizes, found[-1 if is_exact else 0])

    def words(self, m: int, n: int, k: int) -> Words | None:
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


def call_of_operator(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
    *,
    out: Tensor | None = None,
) -> ScaledCall | None:
    """A call of torch._scaled_mm; None where C has a scale, or is float8 as it is where no format is named."""
    dtype = out_dtype if out is None else out.dtype
    if scale_result is not None or dtype is None or out_dtype not in (None, dtype):
        return None
    return ScaledCall(a, b, scale_a, scale_b, bias, dtype, use_fast_accum)


def call_of_recipes(
    a: Tensor,
    b: Tensor,
    scale_a: Sequence[Tensor],
    recipe_a: Sequence[int],
    swizzle_a: Sequence[int],
    scale_b: Sequence[Tensor],
    recipe_b: Sequence[int],
    swizzle_b: Sequence[int],
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> ScaledCall | None:
    """The call that torch.nn.functional.scaled_mm makes, by torch's _scaled_mm_v2; None where it is no other."""
    recipes, swizzles = (recipe_a, recipe_b), (swizzle_a, swizzle_b)
    has_own = any(list(each) not in _OF_FLOAT32 for each in recipes) or contraction_dim
    if has_own or any(list(each) not in _NO_SWIZZLE for each in swizzles) or out_dtype is None:
        return None
    return ScaledCall(a, b, scale_a[0], scale_b[0], bias, out_dtype, use_fast_accum)


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
    sizes = call.sizes if all(isinstance(each, Tensor) for each in call.tensors) else None
    if sizes is not None and _scales(scale_a.shape, scale_b.shape, *sizes) == "blocks":
        scale_a = scale_a.t().contiguous().t()
    fast = call.use_fast_accum
    return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias, out_dtype=call.out_dtype, use_fast_accum=fast)
