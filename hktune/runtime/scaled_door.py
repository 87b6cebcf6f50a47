"""torch's own scaled products on one device, asked of a table: `torch._scaled_mm`, and what
`torch.nn.functional.scaled_mm` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hktune.runtime.loaded import LoadedTable
from hktune.runtime.scaled_call import ScaledCall

Keys = torch._C.DispatchKeySet

SCALED = tuple(
    f"{name}{overload}"
    for name in ("_scaled_mm", "_scaled_mm_v2")
    if hasattr(torch.ops.aten, name)  # the second since torch 2.10
    for overload in ("", ".out")
)
"""The operators that a `ScaledDoor` has a kernel for."""
_NO_SWIZZLE = ([], [0])
_OF_FLOAT32 = ([0], [1], [4], [5])
"""Recipes whose scales are float32: of a tensor, of rows, of blocks of A and of B."""


class ScaledDoor:
    """Kernels of torch's dispatcher for its scaled products."""

    table: LoadedTable
    _before: dict[str, Callable[..., Tensor]]

    def _scaled_mm(
        self,
        keys: Keys,
        a: Tensor,
        b: Tensor,
        scale_a: Tensor,
        scale_b: Tensor,
        bias: Tensor | None = None,
        scale_result: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        use_fast_accum: bool = False,
    ) -> Tensor:
        if scale_result is None and out_dtype is not None:
            call = ScaledCall(a, b, scale_a, scale_b, bias, out_dtype, use_fast_accum)
            found = self.table.below_scaled(call)
            if found is not None:
                return found
        own = self._before["_scaled_mm"]
        return own(keys, a, b, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum)

    def _scaled_mm_out(
        self,
        keys: Keys,
        a: Tensor,
        b: Tensor,
        scale_a: Tensor,
        scale_b: Tensor,
        bias: Tensor | None = None,
        scale_result: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        use_fast_accum: bool = False,
        *,
        out: Tensor,
    ) -> Tensor:
        if scale_result is None and out_dtype in (None, out.dtype):
            call = ScaledCall(a, b, scale_a, scale_b, bias, out.dtype, use_fast_accum)
            if self.table.below_scaled(call, out) is not None:
                return out
        own = self._before["_scaled_mm.out"]
        return own(keys, a, b, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum, out=out)

    def _scaled_mm_v2(self, keys: Keys, *operands: object, **named: object) -> Tensor:
        call = _call_of(*operands, **named)
        found = None if call is None else self.table.below_scaled(call)
        return self._before["_scaled_mm_v2"](keys, *operands, **named) if found is None else found

    def _scaled_mm_v2_out(self, keys: Keys, *operands: object, out: Tensor, **named: object) -> Tensor:
        call = _call_of(*operands, **named)
        if call is not None and call.out_dtype is out.dtype and self.table.below_scaled(call, out) is not None:
            return out
        return self._before["_scaled_mm_v2.out"](keys, *operands, **named, out=out)


def _call_of(
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
    """The same call as torch._scaled_mm has it; None where it has no such."""
    recipes, swizzles = (recipe_a, recipe_b), (swizzle_a, swizzle_b)
    has_own = any(list(each) not in _OF_FLOAT32 for each in recipes) or contraction_dim
    if has_own or any(list(each) not in _NO_SWIZZLE for each in swizzles) or out_dtype is None:
        return None
    return ScaledCall(a, b, scale_a[0], scale_b[0], bias, out_dtype, use_fast_accum)
