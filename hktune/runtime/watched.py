"""Calls that something watches: a mode, a tracer, a transform, autocast. A kernel launched from Python shows itself to
none of them, so each gets what it can work with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from hktune.runtime import activated_operator, operators
from hktune.runtime.calls.forms import MATMUL, Form, linear_form
from hktune.runtime.calls.operands import traced_refusal
from hktune.runtime.counts import Fallback
from hktune.runtime.torch_state import (
    as_autocast,
    autocast_done,
    has_dispatch_mode,
    has_function_mode,
    is_transformed,
)

Function = Callable[..., Tensor]


def linear(
    public: Function, number: int, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None
) -> Tensor:
    """A call of `public`, the linear of table `number`."""
    operands = (x, weight) if bias is None else (x, weight, bias)
    if _is_for_functions(operands):
        named = {"activation": activation} if activation else {}
        return handle_torch_function(public, operands, *operands, **named)
    return _product(linear_form(bias, activation), number, x, weight, bias)


def matmul(public: Function, number: int, a: Tensor, b: Tensor) -> Tensor:
    """A call of `public`, the matmul of table `number`."""
    if _is_for_functions((a, b)):
        return handle_torch_function(public, (a, b), a, b)
    return _product(MATMUL, number, a, b, None)


def _product(form: Form, number: int, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    if is_transformed():
        return operators.table_numbered(number).vendor(Fallback.TRANSFORM, form, left, right, bias)
    if not has_dispatch_mode():
        return operators.table_numbered(number).autocast(form, left, right, bias)
    cast = as_autocast(left, right, bias)
    why = traced_refusal(*cast)
    if why is not None:
        table = operators.found_table(number)
        return table.vendor(why, form, left, right, bias) if table else form.vendor(left, right, bias)
    with autocast_done(left):
        number = operators.number_in_graph(number)
        if form.activation:
            return activated_operator.linear_activated(*cast, form.activation, number)
        return operators.call(form, *cast, number)


def _is_for_functions(operands: tuple[object, ...]) -> bool:
    """Whether a mode of torch's functions is on, or torch.fx traces an operand: both take the function as it is."""
    return has_function_mode() or any(isinstance(operand, torch.fx.Proxy) for operand in operands)
