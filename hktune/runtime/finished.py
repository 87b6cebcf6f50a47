"""A linear with gates, or with a residual. One kernel does all of it where the table has one, and no gradient is asked.
Else the product is a call of its own, which a kernel may serve, and the rest is torch's: so are its gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from hktune.runtime import finished_operator, operators
from hktune.runtime.autocast_cache import as_cached_autocast
from hktune.runtime.counts import Fallback
from hktune.runtime.finished_operator import by_parts
from hktune.runtime.forms import finished_form
from hktune.runtime.gradients import asks_gradient
from hktune.runtime.torch_state import (
    autocast_done,
    compiling,
    has_dispatch_mode,
    has_function_mode,
    is_autocast,
    is_transformed,
)

Linear = Callable[..., Tensor]


def linear(
    public: Linear,
    number: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    residual: Tensor,
) -> Tensor:
    """A call of `public`, the linear of table `number`, with a residual."""
    form = finished_form(bias, activation, is_gated=False)
    if _is_for_functions(x, weight, bias, residual):
        named = {"activation": activation, "residual": residual}
        return handle_torch_function(public, _given(x, weight, bias, residual), x, weight, bias, **named)
    return _finished(public, number, form.is_gated, x, weight, bias, residual, activation)


def gated_linear(
    public: Linear,
    plain: Linear,
    number: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
) -> Tensor:
    """A call of `public`, the gated_linear of table `number`, whose linear is `plain`."""
    form = finished_form(bias, activation, is_gated=True)
    if _is_for_functions(x, weight, bias, None):
        given = _given(x, weight, bias, None)
        return handle_torch_function(public, given, x, weight, bias, activation=activation)
    return _finished(plain, number, form.is_gated, x, weight, bias, None, activation)


def _finished(
    plain: Linear,
    number: int,
    is_gated: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    if compiling():
        return finished_operator.traced(plain, number, is_gated, x, weight, bias, residual, activation)
    table = operators.table_numbered(number)
    if is_transformed() or asks_gradient(x, weight, bias, residual):
        return by_parts(plain, is_gated, x, weight, bias, residual, activation)
    if has_dispatch_mode():
        return finished_operator.traced(plain, number, is_gated, x, weight, bias, residual, activation)
    cast = as_cached_autocast(x, weight, bias) if is_autocast(x) else (x, weight, bias)
    with autocast_done(x):
        out = table.finished(finished_form(bias, activation, is_gated), *cast, residual)
    if isinstance(out, Fallback):
        return by_parts(plain, is_gated, x, weight, bias, residual, activation)
    return out


def _given(*operands: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(each for each in operands if each is not None)


def _is_for_functions(*operands: Tensor | None) -> bool:
    return not compiling() and (has_function_mode() or any(isinstance(each, torch.fx.Proxy) for each in operands))
