"""What torch itself makes of a product, as the truth for hktune's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Product = Callable[..., Tensor]
# Two kernels round one float32 sum, each by half a step; gradients sum what was rounded.
_TOLERANCES = {torch.bfloat16: {"rtol": 2**-6, "atol": 2**-5}, torch.float16: {"rtol": 2**-9, "atol": 2**-8}}


def leaf(tensor: Tensor) -> Tensor:
    """A tensor of the same memory, strides and wish for a gradient, with a history of its own."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def outcome(product: Product, operands: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The output of `product` and the gradients that it leaves in those operands that want one."""
    own = [None if each is None else leaf(each) for each in operands]
    out = product(*own)
    if out.requires_grad:
        slope = torch.linspace(-1, 2, out.numel(), dtype=torch.float32).reshape(out.shape)
        out.backward(slope.to(out.dtype))
    return [out.detach(), *(None if each is None else each.grad for each in own)]


def assert_alike(ours: Product, theirs: Product, operands: Sequence[Tensor | None]) -> None:
    """`ours` gives what `theirs` gives, forward and backward, errors included."""
    try:
        expected = outcome(theirs, operands)
    except (RuntimeError, TypeError) as error:
        try:
            found = outcome(ours, operands)
        except type(error):
            return
        raise AssertionError(f"torch refuses ({error}), and this gives {found}") from error
    for mine, torchs in zip(outcome(ours, operands), expected, strict=True):
        same(mine, torchs)


def same(found: Tensor | None, expected: Tensor | None) -> None:
    """Of one type, shape and, within the rounding of its type, value."""
    if expected is None or found is None:
        assert found is expected
        return
    assert type(found) is type(expected)
    tolerance: dict[str, Any] = _TOLERANCES.get(expected.dtype, {})
    torch.testing.assert_close(found, expected, equal_nan=True, **tolerance)
