"""A linear and its activation as one torch operator, `hktune::linear_activated`; else like those of `operators`.

It has no gradient of its own. Where one is asked it is two operators: the linear, and torch's activation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from hktune.runtime import operators
from hktune.runtime.calls.forms import activated, linear_by_torch, linear_form
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.operands import traced_refusal
from hktune.runtime.torch_state import as_autocast, exporting, is_plain, is_transformed_in_trace

_NAME = "linear_activated"
operators._library.define(
    f"{_NAME}(Tensor x, Tensor weight, Tensor? bias, str activation, int table, int entries=0) -> Tensor"
)


def _linear_activated(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, table: int, entries: int = 0
) -> Tensor:
    del entries
    return operators.table_numbered(table).serve(linear_form(bias, activation), x, weight, bias)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, table: int, entries: int = 0) -> Tensor:
    del table, entries
    return linear_by_torch(x, weight, bias, activation=activation).contiguous()


def _first(
    keys: object, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, table: int, entries: int = 0
) -> Tensor:
    """The operator as torch's dispatcher meets it first."""
    del keys
    if asks_gradient(x, weight, bias):
        return activated(activation, operators.linear(x, weight, bias, table, entries))
    form = linear_form(bias, activation)
    server = operators.found_table(table)
    out = None if server is None else server.again(form, x, weight, bias)
    if out is None and is_plain():
        out = operators.table_numbered(table).plain(form, x, weight, bias)
    if out is not None:
        return out.contiguous()
    with torch._C._AutoDispatchBelowAutograd():
        return linear_activated(x, weight, bias, activation, table, entries)


operators._library.impl(_NAME, _linear_activated, "CompositeExplicitAutograd")
torch.library.register_fake(f"hktune::{_NAME}", _fake, lib=operators._library)
operators._library.impl(_NAME, _first, "Autograd", with_keyset=True)
register_flop_formula(torch.ops.hktune.linear_activated)(operators._flops)

linear_activated: Callable[..., Tensor] = torch.ops.hktune.linear_activated.default


def traced_linear(x: Tensor, weight: Tensor, bias: Tensor | None, table: int, activation: str | None) -> Tensor:
    """What torch.compile's tracer makes of a linear, with an activation or without."""
    if activation is None:
        return operators.traced_linear(x, weight, bias, table)
    cast = as_autocast(x, weight, bias)
    refused = asks_gradient(*cast) or is_transformed_in_trace() or traced_refusal(*cast) is not None
    ending = f"{'' if bias is None else '+bias'}+{activation}"
    if refused or not operators.has_rows(table, cast[1].dtype, ending, *cast[1].shape):
        return activated(activation, operators.traced_linear(x, weight, bias, table))
    if exporting():
        return linear_activated(*cast, activation, operators.CURRENT)
    return linear_activated(*cast, activation, table, operators.entries_number(table))
