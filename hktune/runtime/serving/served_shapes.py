"""Calls of one pair of operand shapes on one device: kernels for operands that fit them, the vendor for others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from hktune.device.device import PreparedLaunch
from hktune.runtime.autocast_cache import cached_cast
from hktune.runtime.calls.operands import layouts_of
from hktune.runtime.counts import Fallback
from hktune.runtime.serving.seen_calls import KINDS_MAX, Kind
from hktune.runtime.serving.served_product import MISALIGNED, ServedProduct
from hktune.runtime.torch_state import grad_enabled

_autocast_dtype = torch.get_autocast_dtype


Stored = tuple[tuple[int, ...], tuple[int, ...], torch.dtype] | None
_UNREAD_MAX = 64


def _stored(left: Tensor, right: Tensor) -> Stored:
    """How operands are stored, as far as layouts go; None of those that have no strides."""
    if left.layout is not torch.strided or right.layout is not torch.strided or left.dtype is not right.dtype:
        return None
    return left.stride(), right.stride(), left.dtype


@final
class ServedShapes:
    """What serves calls of one form on operands of one pair of shapes: products by the dtype of the operands, one for
    each layout that the table has a kernel for, or a reason why they are `left_to_torch`. Any product refuses operands
    of a dtype that has neither, and says what is wrong with them; where there is none, no cast would help."""

    __slots__ = ("_chosen", "_other", "_products", "_unread", "kinds", "left_to_torch")

    def __init__(
        self,
        products: Mapping[torch.dtype, Sequence[ServedProduct]],
        left_to_torch: Mapping[torch.dtype, Fallback],
        chosen: Collection[tuple[torch.dtype, str]],
    ) -> None:
        """`chosen`: the dtypes and layouts for which the table chose the vendor library."""
        self._products = products
        self._other = next(iter(products.values()), ())
        self._chosen = chosen
        # Why operands of these strides and dtype are read by no product: to find out costs 20 us.
        self._unread: dict[Stored, Fallback] = {}
        self.left_to_torch = left_to_torch
        self.kinds: tuple[Kind, ...] = ()

    def find(
        self, dtype: torch.dtype, left: Tensor, right: Tensor, bias: Tensor | None
    ) -> tuple[ServedProduct, PreparedLaunch] | Fallback:
        """What serves these operands, the left one of `dtype`, or why that is the vendor library."""
        why = self.left_to_torch.get(dtype)
        products = self._products.get(dtype, self._other)
        if why is not None or not products:
            return why or Fallback.VENDOR_CHOSEN
        unread = self._unread.get(_stored(left, right)) if self._unread else None
        if unread is not None:
            return unread
        for product in products:
            launch = product.launch(left, right, bias)
            if launch is Fallback.ALGORITHM and len(products) == 1:
                self.left_to_torch = {**self.left_to_torch, dtype: launch}
            if launch is not Fallback.STRIDES:
                return launch if isinstance(launch, Fallback) else (product, launch)
        why = self._why_unread(products, left, right)
        if len(self._unread) < _UNREAD_MAX:
            self._unread[_stored(left, right)] = why
        return why

    def _why_unread(self, products: Sequence[ServedProduct], left: Tensor, right: Tensor) -> Fallback:
        """Why none of the products reads operands that fit them otherwise."""
        first = products[0]
        readable = set(layouts_of(first.form, left, right, first.route.numbers))
        if any((left.dtype, layout) in self._chosen for layout in readable):
            return Fallback.VENDOR_CHOSEN
        return Fallback.STRIDES if readable <= {each.route.layout for each in products} else Fallback.NO_ENTRY

    def again(self, left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor | None:
        """The product of a call that is like one which was served; None of another. With an `out` that fits it is
        written there, and no gradient is recorded."""
        kinds = self.kinds
        for kind in kinds:
            if (kind.fits(left, right) if bias is None else kind.fits(left, right, bias)) and (
                kind.cast_to is None or _autocast_dtype(kind.product.place.where.type) is kind.cast_to
            ):
                break
        else:
            return None
        if kind is not kinds[0]:  # the next call is likely to be of this kind, and each other one asked costs 0.2 us
            self.kinds = (kind, *[each for each in kinds if each is not kind])
        product = kind.product
        place, launch = product.place, product.route.prepared
        if kind.cast_to is not None:
            left, right = cached_cast(left, kind.cast_to), cached_cast(right, kind.cast_to)
            bias = None if bias is None else cached_cast(bias, kind.cast_to)
        try:
            at, right_at = left.data_ptr(), right.data_ptr()
        except RuntimeError:  # a tensor without memory of its own
            return None
        if not (at and right_at) or (at | right_at) & MISALIGNED:
            return None
        if bias is not None and (not (at := bias.data_ptr()) or at & MISALIGNED):
            return None
        if launch is None or (place.current_index is not None and place.current_index() != place.index):
            return None
        if out is not None and not product.fits(out, left, right, bias):
            return None
        if kind.asks_gradient and grad_enabled():
            if bias is None:
                return product.taped(left, right, product, launch)
            return product.taped(left, right, product, launch, bias)
        return product.result(launch, left, right, bias, out)

    def remember(
        self,
        product: ServedProduct,
        launch: PreparedLaunch,
        operands: tuple[Tensor | None, ...],
        cast_to: torch.dtype | None = None,
    ) -> None:
        """That a call of these operands is served by `launch` of `product`, so that `again` knows its like; under an
        autocast to `cast_to`, where there was one."""
        if launch is product.route.prepared and len(self.kinds) < KINDS_MAX:
            self.kinds += (Kind(product, [each for each in operands if each is not None], cast_to),)
