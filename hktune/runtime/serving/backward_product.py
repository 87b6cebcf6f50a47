"""A product of a backward pass: its shapes are those of its forward product, so what serves it is found once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from hktune.runtime.calls.forms import LINEAR, MATMUL, OUTER, Form
from hktune.runtime.calls.gradients import outer, product, transposed_product
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.serving.served_shapes import ServedShapes

BY_TORCH: Mapping[Form, Callable[[Tensor, Tensor], Tensor]] = {
    MATMUL: product,
    LINEAR: transposed_product,
    OUTER: outer,
}
"""What torch makes of two operands."""
_OF_STRIDES = (Fallback.NO_ENTRY, Fallback.STRIDES, Fallback.VENDOR_CHOSEN)


@final
class BackwardProduct:
    """Of two operands, by a kernel or by torch; autograd is not told of it."""

    __slots__ = ("_by_torch", "_counts", "_served", "_unread", "_why")

    def __init__(self, form: Form, found: ServedShapes | Fallback, counts: Counts) -> None:
        """`found`: what serves operands of these shapes, or why that is the vendor library."""
        self._by_torch = BY_TORCH[form]
        self._served = found if isinstance(found, ServedShapes) else None
        self._why = found if isinstance(found, Fallback) else Fallback.STRIDES
        # Strides of operands that no kernel reads, and `_why` says so: to ask again costs 2 us.
        self._unread: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._counts = counts

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        served = self._served
        if served is None or self._unread == (left.stride(), right.stride()):
            return self._left_to_torch(self._why, left, right)
        out = served.again(left, right, None)
        if out is not None:
            return out
        found = served.find(left.dtype, left, right, None)
        if isinstance(found, Fallback):
            if found in _OF_STRIDES and left.layout is right.layout is torch.strided:
                self._why, self._unread = found, (left.stride(), right.stride())
            return self._left_to_torch(found, left, right)
        served.remember(*found, (left, right))
        kernels, launch = found
        return kernels.result(launch, left, right, None)

    def _left_to_torch(self, why: Fallback, left: Tensor, right: Tensor) -> Tensor:
        if why is Fallback.NO_ENTRY:
            return self._by_torch(left, right)
        self._counts.left_to_torch(why)
        return self._counts.by_torch(why, self._by_torch, left, right)
