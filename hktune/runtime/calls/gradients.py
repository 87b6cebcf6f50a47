"""Gradients of the products that hktune's kernels serve.

They hold for real operands: a left one [..., K], a right one of two dimensions, and a bias. What a kernel does not take
is torch's own product, with torch's own gradient, and never comes here. The two products of a backward pass are asked
of the table like any other, and are torch's where it has no entry. So is the sum over rows of a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from hktune.device.device import PreparedLaunch
from hktune.runtime.torch_state import grad_enabled, is_below_autograd

Gradients = tuple[Tensor | None, ...]
"""One for each argument."""


class Context(Protocol):
    """What torch gives a function's two passes of one call."""

    needs_input_grad: tuple[bool, ...]
    materialize_grads: bool
    to_save: tuple[Tensor | None, ...]
    served: Served

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]: ...

    def set_materialize_grads(self, value: bool) -> None: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class Served(Protocol):
    """What computes the product of operands for which a launch was found, and the products of its backward pass."""

    @property
    def taped(self) -> Callable[..., Tensor]: ...

    def result(self, launch: PreparedLaunch, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor: ...

    def gradients(
        self, grad: Tensor, left: Tensor | None, right: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]: ...


def linear_gradients(grad: Tensor, x: Tensor | None, weight: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """By torch, of x [..., K] and weight [N, K] from that of the output [..., N]. An operand is None where only the
    gradient of the other one is needed."""
    for_x = None if weight is None else product(grad, weight)
    return for_x, None if x is None else outer(grad, x)


def matmul_gradients(
    grad: Tensor, a: Tensor | None, b: Tensor | None, b_is_transposed: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """By torch, of a [..., K] and b [K, N] from that of the output [..., N]; an operand is None as for
    `linear_gradients`. The gradient of a b that is a transposed view is one too, as torch's own is."""
    for_a = None if b is None else transposed_product(grad, b)
    if a is None:
        return for_a, None
    return for_a, outer(grad, a).t() if b_is_transposed else outer(a, grad)


def bias_gradient(grad: Tensor) -> Tensor:
    return rows(grad).sum(0)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """[M, N], by torch, of left [..., M] and right [..., N]: summed over all rows."""
    return rows(left).t().mm(rows(right))


def product(left: Tensor, right: Tensor) -> Tensor:
    """[..., N], by torch, of left [..., K] and right [K, N]."""
    return left.mm(right) if left.dim() == 2 else left @ right  # `@` takes 0.5 us more to find that it is `mm`


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """[..., N], by torch, of left [..., K] and right [N, K]."""
    return product(left, right.t())


def rows(tensor: Tensor) -> Tensor:
    """[..., K] as [M, K]; a reshape that changes nothing costs 1.2 us."""
    return tensor if tensor.dim() == 2 else tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


class Linear(torch.autograd.Function):
    """A linear that a kernel serves and that somebody will ask a gradient of. The bias comes last: an argument that is
    not there costs 0.13 us less than None."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, served: Served, launch: PreparedLaunch, bias: Tensor | None = None
    ) -> Tensor:
        ctx.materialize_grads = False  # as set_materialize_grads, which is a call
        for_x, for_weight, *_ = ctx.needs_input_grad
        ctx.to_save = x if for_weight else None, weight if for_x else None  # as save_for_backward, which is Python
        ctx.served = served
        return served.result(launch, x, weight, bias)

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None) -> Gradients:
        if grad is None:  # what follows gave none; zeros instead would move weights by their decay
            return None, None, None, None, None
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.served.gradients(grad, x, weight)
        # Where there is no bias the last argument is the launch, which needs none.
        return for_x, for_weight, None, None, bias_gradient(grad) if ctx.needs_input_grad[-1] else None


class Matmul(torch.autograd.Function):
    """A matmul that a kernel serves and that somebody will ask a gradient of."""

    @staticmethod
    def forward(ctx: Context, a: Tensor, b: Tensor, served: Served, launch: PreparedLaunch) -> Tensor:
        ctx.materialize_grads = False
        for_a, for_b, *_ = ctx.needs_input_grad
        ctx.to_save = a if for_b else None, b if for_a else None
        ctx.served = served
        return served.result(launch, a, b, None)

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None) -> Gradients:
        if grad is None:
            return None, None, None, None
        a, b = ctx.saved_tensors
        return *ctx.served.gradients(grad, a, b), None, None


# What the engine calls: torch's own looks in Python for the method to call, 1 us.
for _function in (Linear, Matmul):
    _node: Any = _function._backward_cls
    _node.apply = _function.backward

# Function.apply asks in Python whether a transform of torch.func is active, and unwraps what one left behind; it costs
# 1.9 us of a call. These are what it calls then: the runtime has asked, and no kernel takes such a tensor.
taped_linear: Callable[..., Tensor] = super(torch.autograd.Function, Linear).apply
taped_matmul: Callable[..., Tensor] = super(torch.autograd.Function, Matmul).apply


def untaped(left: Tensor, right: Tensor, served: Served, launch: PreparedLaunch, bias: Tensor | None = None) -> Tensor:
    """A product whose gradient is another's to record."""
    return served.result(launch, left, right, bias)


def asks_gradient(*operands: Tensor | None) -> bool:
    """Whether autograd may ask for a gradient of one of these."""
    return grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in operands)


def recorded_result(served: Served, launch: PreparedLaunch, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """The product by a launch that was found for these operands, passed to autograd where that asks."""
    if (
        grad_enabled()
        and (left.requires_grad or right.requires_grad or (bias is not None and bias.requires_grad))
        and not is_below_autograd()
    ):
        if bias is None:
            return served.taped(left, right, served, launch)
        return served.taped(left, right, served, launch, bias)
    return served.result(launch, left, right, bias)
