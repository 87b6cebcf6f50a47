"""Calls that something watches: a mode, a tracer, a transform, autocast. A kernel launched from Python shows itself to
none of them, so each gets what it can work with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function

from hktune.runtime import operators
from hktune.runtime.counts import Fallback
from hktune.runtime.operands import traced_refusal
from hktune.runtime.prepared_matrix import PreparedMatrix
from hktune.runtime.torch_state import (
    as_autocast,
    autocast_done,
    has_dispatch_mode,
    has_function_mode,
    is_transformed,
)

Function = Callable[..., Tensor]


def linear(public: Function, number: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A call of `public`, the linear of table `number`."""
    operands = (x, weight) if bias is None else (x, weight, bias)
    if _is_for_functions(operands):
        return handle_torch_function(public, operands, *operands)
    if is_transformed():
        return operators.table_numbered(number).vendor_linear(Fallback.TRANSFORM, x, weight, bias)
    if not has_dispatch_mode():
        return operators.table_numbered(number).autocast_linear(x, weight, bias)
    cast = as_autocast(x, weight, bias)
    why = traced_refusal(*cast)
    if why is not None:
        table = operators.found_table(number)
        return table.vendor_linear(why, x, weight, bias) if table else functional.linear(x, weight, bias)
    with autocast_done(x):
        return operators.linear(*cast, operators.number_in_graph(number))


def matmul(public: Function, number: int, a: Tensor, b: Tensor | PreparedMatrix) -> Tensor:
    """A call of `public`, the matmul of table `number`."""
    if isinstance(b, PreparedMatrix):
        b = b.operand_if_watched()
    if _is_for_functions((a, b)):
        return handle_torch_function(public, (a, b), a, b)
    if is_transformed():
        return operators.table_numbered(number).vendor_matmul(Fallback.TRANSFORM, a, b)
    if not has_dispatch_mode():
        return operators.table_numbered(number).autocast_matmul(a, b)
    a_cast, b_cast, _ = as_autocast(a, b, None)
    why = traced_refusal(a_cast, b_cast, None, is_product=True)
    if why is not None:
        table = operators.found_table(number)
        return table.vendor_matmul(why, a, b) if table else torch.matmul(a, b)
    with autocast_done(a):
        return operators.matmul(a_cast, b_cast, operators.number_in_graph(number))


def _is_for_functions(operands: tuple[object, ...]) -> bool:
    """Whether a mode of torch's functions is on, or torch.fx traces an operand: both take the function as it is."""
    return has_function_mode() or any(isinstance(operand, torch.fx.Proxy) for operand in operands)
