"""Calls that are like one which was served: the same questions, answered in one call of torch's.

A call is found to be served by many questions: what watches, the operands' types, layouts, strides. torch's compiler
has a guard that asks most of them at once, in C++: of each operand the type, dtype, device, sizes, strides, and whether
it requires a gradient. It also asks for the operand's dispatch keys, with those that the thread adds or takes away:
modes, transforms, traces, inference, what runs below autograd, negated views, autocast. A guard is made of the operands
of a served call. It holds none of them. What it lets pass needs no other question than those in `unseen_by_guards`,
whether gradients are on, autocast's dtype, and an address on 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from hktune.runtime.serving.served_product import ServedProduct
from hktune.runtime.torch_state import is_below_autograd

Fits = Callable[..., bool]
"""Whether operands, and the thread's state, are like those that a guard was made of."""


class _Made(Protocol):
    check: Fits


_Guards = cast("Callable[..., _Made]", torch._C._dynamo.guards.TensorGuards)

# More kinds of one shape than gradients, inference and autocast make are asked about one by one, as before.
KINDS_MAX = 8


class Kind:
    """Calls of one shape that are alike, and what serves them: on their operands as they are, or as an autocast to the
    dtype `cast_to` has them."""

    __slots__ = ("asks_gradient", "cast_to", "fits", "product")

    def __init__(self, product: ServedProduct, operands: Sequence[Tensor], cast_to: torch.dtype | None) -> None:
        sizes, strides = [list(each.shape) for each in operands], [list(each.stride()) for each in operands]
        self.fits: Fits = _Guards(*operands, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
        self.asks_gradient = any(each.requires_grad for each in operands) and not is_below_autograd()
        self.product = product
        self.cast_to = cast_to
