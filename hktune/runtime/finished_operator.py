"""A linear with what is behind it, as one torch operator: `hktune::linear_finished`.

It has no gradient of its own. Where one is asked it is several: the linear, and torch's own of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from hktune.runtime import operators
from hktune.runtime.calls.finish import Finish, by_parts
from hktune.runtime.calls.forms import activated, linear_by_torch, linear_form
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.operands import traced_refusal
from hktune.runtime.counts import Fallback
from hktune.runtime.torch_state import as_autocast, autocast_done, compiling, exporting, is_transformed_in_trace

_NAME = "linear_finished"
operators._library.define(
    f"{_NAME}(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation, bool is_gated, int table,"
    " int entries=0, *, bool interleaved=False, float alpha=1., float beta=1., Tensor? out_scale=None) -> Tensor"
)


def _linear_finished(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
    *,
    interleaved: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    out_scale: Tensor | None = None,
) -> Tensor:
    del entries
    server = operators.table_numbered(table)
    finish = Finish(activation or None, is_gated, interleaved, alpha, beta, out_scale)
    out = server.finished(finish.form(bias, residual), x, weight, bias, residual, alpha, beta, out_scale)
    if not isinstance(out, Fallback):
        return out

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
        return server.serve(linear_form(bias, activation), x, weight, bias)

    return by_parts(linear, finish, x, weight, bias, residual).contiguous()


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
    *,
    interleaved: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    out_scale: Tensor | None = None,
) -> Tensor:
    del table, entries
    finish = Finish(activation or None, is_gated, interleaved, alpha, beta, out_scale)
    return by_parts(linear_by_torch, finish, x, weight, bias, residual).contiguous()


def _first(
    keys: object,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
    **ends: Any,
) -> Tensor:
    """The operator as torch's dispatcher meets it first."""
    del keys
    if asks_gradient(x, weight, bias, residual):
        finish = Finish(activation or None, is_gated, **ends)
        return by_parts(_operators_of(table, entries), finish, x, weight, bias, residual)
    with torch._C._AutoDispatchBelowAutograd():
        return linear_finished(x, weight, bias, residual, activation, is_gated, table, entries, **ends)


def _operators_of(table: int, entries: int) -> Callable[..., Tensor]:
    def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
        product = operators.linear(x, weight, bias, table, entries)
        return product if activation is None else activated(activation, product)

    return linear


operators._library.impl(_NAME, _linear_finished, "CompositeExplicitAutograd")
torch.library.register_fake(f"hktune::{_NAME}", _fake, lib=operators._library)
operators._library.impl(_NAME, _first, "Autograd", with_keyset=True)


@register_flop_formula(torch.ops.hktune.linear_finished)
def _flops(
    left_shape: Sequence[int], right_shape: Sequence[int], *others: object, out_shape: Sequence[int], **named: object
) -> int:
    """Of left [..., K] and a weight [N, K]."""
    del others, named
    return 2 * math.prod(out_shape[:-1]) * right_shape[0] * left_shape[-1]


linear_finished: Callable[..., Tensor] = torch.ops.hktune.linear_finished.default


def traced(
    plain: Callable[..., Tensor],
    number: int,
    finish: Finish,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """What a tracer or a mode makes of a call: the operator where a kernel may take it, as far as is known, else a call
    of `plain` and the rest by torch."""
    given = as_autocast(x, weight, bias)
    asks = asks_gradient(*given, residual) or is_transformed_in_trace()
    if asks or traced_refusal(*given) is not None or not _adds(given[0], given[1], residual):
        return by_parts(plain, finish, x, weight, bias, residual)
    words, ends = (finish.activation or "", finish.is_gated), _ends(finish, x)
    if not compiling():
        with autocast_done(x):
            return linear_finished(*given, residual, *words, operators.number_in_graph(number), **ends)
    if exporting():
        return linear_finished(*given, residual, *words, operators.CURRENT, **ends)
    return linear_finished(*given, residual, *words, number, operators.entries_number(number), **ends)


def _ends(finish: Finish, x: Tensor) -> dict[str, Any]:
    """What a call names, as far as it is not the usual: an older hktune reads graphs without it."""
    numbers = {"interleaved": finish.interleaved, "alpha": finish.alpha, "beta": finish.beta}
    usual = {"interleaved": False, "alpha": 1.0, "beta": 1.0}
    named = {name: value for name, value in numbers.items() if value != usual[name]}
    if not finish.is_float8:
        return named
    scale = finish.out_scale
    return {**named, "out_scale": torch.ones((), dtype=torch.float32, device=x.device) if scale is None else scale}


def _adds(x: Tensor, weight: Tensor, residual: Tensor | None) -> bool:
    """Whether a kernel could add `residual`: of the product's shape and dtype."""
    if residual is None:
        return True
    return residual.dtype is x.dtype and residual.shape == (*x.shape[:-1], weight.shape[0])
