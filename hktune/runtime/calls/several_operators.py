"""Which call of several products an operator is given, as torch and the recorder have its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hktune.runtime.calls.several_call import SeveralCall

_NO_SWIZZLE: tuple[list[int], ...] = ([], [0])
_BY_ROWS = [1]
"""torch.nn.functional.ScalingType.RowWise, of both operands."""


def call_of_grouped(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> SeveralCall | None:
    """A call of torch._grouped_mm; None where it is not of groups, adds something, or C has another dtype."""
    if offs is None or bias is not None or out_dtype not in (None, a.dtype):
        return None
    return SeveralCall(a, b, offs)


def call_of_scaled_grouped(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> SeveralCall | None:
    """A call of torch._scaled_grouped_mm, whose C is bfloat16 where nothing else is said; None where something is added
    to C, or C is scaled."""
    if bias is not None or scale_result is not None:
        return None
    return call_with_scales(a, b, scale_a, scale_b, offs, out_dtype or torch.bfloat16, use_fast_accum)


def call_of_scaled_grouped_recipes(
    a: Tensor,
    b: Tensor,
    scale_a: Sequence[Tensor],
    recipe_a: Sequence[int],
    swizzle_a: Sequence[int],
    scale_b: Sequence[Tensor],
    recipe_b: Sequence[int],
    swizzle_b: Sequence[int],
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> SeveralCall | None:
    """The call that torch.nn.functional.scaled_grouped_mm makes; None where scales are not of rows, or it is another
    one."""
    are_of_rows = list(recipe_a) == list(recipe_b) == _BY_ROWS and len(scale_a) == len(scale_b) == 1
    are_plain = all(list(each) in _NO_SWIZZLE for each in (swizzle_a, swizzle_b)) and not contraction_dim
    if bias is not None or not are_of_rows or not are_plain:
        return None
    return call_with_scales(a, b, scale_a[0], scale_b[0], offs, out_dtype or torch.bfloat16, use_fast_accum)


def call_with_scales(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    offs: Tensor | None,
    out_dtype: torch.dtype,
    use_fast_accum: bool,
    bias: Tensor | None = None,
    steps: Sequence[str] | None = None,
) -> SeveralCall:
    """The arguments of hktune::scaled_grouped_mm."""
    return SeveralCall(a, b, offs, None, scale_a, scale_b, out_dtype, tuple(steps or ()), use_fast_accum, bias)


def call_with_steps(
    a: Tensor, b: Tensor, offs: Tensor | None, steps: Sequence[str], bias: Tensor | None = None
) -> SeveralCall:
    """The arguments of hktune::grouped_finished."""
    return SeveralCall(a, b, offs, steps=tuple(steps), bias=bias)


def call_that_adds(add_to: Tensor, a: Tensor, b: Tensor, offs: Tensor) -> SeveralCall:
    """The arguments of hktune::grouped_added_."""
    return SeveralCall(a, b, offs, add_to=add_to)


CALLS_OF_OPERATORS: Mapping[str, Callable[..., SeveralCall | None]] = {
    "aten::_grouped_mm": call_of_grouped,
    "aten::_scaled_grouped_mm": call_of_scaled_grouped,
    "aten::_scaled_grouped_mm_v2": call_of_scaled_grouped_recipes,
    "hktune::scaled_grouped_mm": call_with_scales,
    "hktune::grouped_finished": call_with_steps,
    "hktune::grouped_added_": call_that_adds,
}
"""By what the operators are called, the call that their arguments are; None where kernels know no such."""
