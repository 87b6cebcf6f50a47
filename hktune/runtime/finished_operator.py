"""A linear with gates, or with a residual, as one torch operator: `hktune::linear_finished`.

It has no gradient of its own. Where one is asked it is several: the linear, and torch's own of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from hktune.runtime import operators
from hktune.runtime.counts import Fallback
from hktune.runtime.forms import activated, finished_form, gated, linear_by_torch, linear_form
from hktune.runtime.gradients import asks_gradient
from hktune.runtime.operands import traced_refusal
from hktune.runtime.torch_state import as_autocast, autocast_done, compiling, exporting, is_transformed_in_trace

_NAME = "linear_finished"
operators._library.define(
    f"{_NAME}(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation, bool is_gated, int table,"
    " int entries=0) -> Tensor"
)


def by_parts(
    linear: Callable[..., Tensor],
    is_gated: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    """A call of `linear`, and the rest by torch."""
    if is_gated:
        return gated(linear(x, weight, bias), activation)
    product = linear(x, weight, bias, activation=activation)
    return product if residual is None else product + residual


def _linear_finished(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
) -> Tensor:
    del entries
    server = operators.table_numbered(table)
    named = activation or None
    out = server.finished(finished_form(bias, named, is_gated), x, weight, bias, residual)
    if not isinstance(out, Fallback):
        return out

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
        return server.serve(linear_form(bias, activation), x, weight, bias)

    return by_parts(linear, is_gated, x, weight, bias, residual, named).contiguous()


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
) -> Tensor:
    del table, entries
    return by_parts(linear_by_torch, is_gated, x, weight, bias, residual, activation or None).contiguous()


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
) -> Tensor:
    """The operator as torch's dispatcher meets it first."""
    del keys
    if asks_gradient(x, weight, bias, residual):
        parts = _operators_of(table, entries)
        return by_parts(parts, is_gated, x, weight, bias, residual, activation or None)
    with torch._C._AutoDispatchBelowAutograd():
        return linear_finished(x, weight, bias, residual, activation, is_gated, table, entries)


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
    is_gated: bool,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    """What a tracer or a mode makes of a call: the operator where a kernel may take it, as far as is known, else a call
    of `plain` and the rest by torch."""
    given = as_autocast(x, weight, bias)
    asks = asks_gradient(*given, residual) or is_transformed_in_trace()
    if asks or traced_refusal(*given) is not None or not _adds(given[0], given[1], residual):
        return by_parts(plain, is_gated, x, weight, bias, residual, activation)
    word = activation or ""
    if not compiling():
        with autocast_done(x):
            return linear_finished(*given, residual, word, is_gated, operators.number_in_graph(number))
    if exporting():
        return linear_finished(*given, residual, word, is_gated, operators.CURRENT)
    return linear_finished(*given, residual, word, is_gated, number, operators.entries_number(number))


def _adds(x: Tensor, weight: Tensor, residual: Tensor | None) -> bool:
    """Whether a kernel could add `residual`: of the product's shape and dtype."""
    if residual is None:
        return True
    return residual.dtype is x.dtype and residual.shape == (*x.shape[:-1], weight.shape[0])
