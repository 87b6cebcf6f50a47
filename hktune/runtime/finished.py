"""A linear with gates, a residual, factors, or an output in float8. One kernel does all of it where the table has one,
and no gradient is asked. Else the product is a call of its own, which a kernel may serve, and the rest is torch's: so
are its gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from hktune.runtime import finished_operator, operators
from hktune.runtime.autocast_cache import as_cached_autocast
from hktune.runtime.calls.finish import Finish, by_parts, check_factors, check_output, in_dtype
from hktune.runtime.calls.forms import FLOAT8
from hktune.runtime.calls.given import check_bool, check_linear
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.counts import Fallback
from hktune.runtime.torch_state import (
    autocast_done,
    autocast_dtype,
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
    residual: Tensor | None,
    alpha: float = 1.0,
    beta: float = 1.0,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """A call of `public`, the linear of table `number`, with a residual, a factor, or a dtype of its output."""
    check_linear("linear", x, weight, bias, residual)
    check_factors(alpha, beta, residual)
    check_output(out_dtype, out_scale, x)
    if residual is not None and beta == 0 and _is_left_out(residual, x, weight):
        residual = None
    finish = Finish(activation, alpha=alpha, beta=beta, out_scale=out_scale, float8=out_dtype is FLOAT8)
    finish.form(bias, residual)  # what is not known is said to every caller
    if _is_for_functions(x, weight, bias, residual):
        named = {"activation": activation, "residual": residual, "alpha": alpha, "beta": beta}
        return _handled(public, named, out_dtype, out_scale, x, weight, bias)
    if residual is None and alpha == 1 and not finish.is_float8:
        return in_dtype(public(x, weight, bias, activation=activation), out_dtype)
    return in_dtype(_finished(public, number, finish, x, weight, bias, residual), out_dtype)


def gated_linear(
    public: Linear,
    plain: Linear,
    number: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """A call of `public`, the gated_linear of table `number`, whose linear is `plain`."""
    check_linear("gated_linear", x, weight, bias)
    check_bool("gated_linear", "interleaved", interleaved)
    check_output(out_dtype, out_scale, x)
    finish = Finish(activation, True, interleaved, out_scale=out_scale, float8=out_dtype is FLOAT8)
    finish.form(bias, None)
    if _is_for_functions(x, weight, bias, None):
        named = {"activation": activation, **({"interleaved": True} if interleaved else {})}
        return _handled(public, named, out_dtype, out_scale, x, weight, bias)
    return in_dtype(_finished(plain, number, finish, x, weight, bias, None), out_dtype)


def _is_left_out(residual: Tensor, x: Tensor, weight: Tensor) -> bool:
    """Whether a residual times 0 is nothing to the output. One of another shape, dtype or device is torch's to judge,
    as with any other factor."""
    if not all(isinstance(each, Tensor) and not each.is_nested for each in (residual, x, weight)):
        return False
    shape = (*x.shape[:-1], *weight.shape[:-1])
    return residual.shape == shape and residual.dtype is (autocast_dtype(x) or x.dtype) and residual.device == x.device


def _handled(
    public: Linear,
    named: Mapping[str, object],
    out_dtype: torch.dtype | None,
    out_scale: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """The call, as modes of torch's functions are told of it: with what is not left out."""
    usual = {"residual": None, "alpha": 1.0, "beta": 1.0}
    told = {name: value for name, value in named.items() if name not in usual or value != usual[name]}
    if out_dtype is not None:
        told |= {"out_dtype": out_dtype, "out_scale": out_scale}
    operands = (x, weight, bias, named.get("residual"), out_scale)
    given = tuple(each for each in operands if isinstance(each, Tensor))
    out: Tensor = handle_torch_function(public, given, x, weight, bias, **told)
    return out


def _finished(
    plain: Linear,
    number: int,
    finish: Finish,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    if compiling():
        return finished_operator.traced(plain, number, finish, x, weight, bias, residual)
    table = operators.table_numbered(number)
    if is_transformed() or asks_gradient(x, weight, bias, residual):
        return by_parts(plain, finish, x, weight, bias, residual)
    if has_dispatch_mode():
        return finished_operator.traced(plain, number, finish, x, weight, bias, residual)
    cast = as_cached_autocast(x, weight, bias) if is_autocast(x) else (x, weight, bias)
    with autocast_done(x):
        out = table.finished(finish.form(bias, residual), *cast, residual, finish.alpha, finish.beta, finish.out_scale)
    return by_parts(plain, finish, x, weight, bias, residual) if isinstance(out, Fallback) else out


def _is_for_functions(*operands: Tensor | None) -> bool:
    return not compiling() and (has_function_mode() or any(isinstance(each, torch.fx.Proxy) for each in operands))
