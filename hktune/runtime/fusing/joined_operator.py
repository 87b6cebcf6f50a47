"""Linears of one input as one torch operator, `hktune::linear_joined`: one product of all their weights.

Its result has theirs, one behind the other. With gates there are two: what the activation makes of the first, times the
second. The weights come one by one, since a graph knows no addresses: whether they follow one another in memory is
looked at when it runs. It has no gradient of its own. Where one is asked it is several operators.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from hktune.runtime import operators
from hktune.runtime.calls.forms import activated, finished_form, linear_by_torch, linear_form
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.operands import traced_refusal
from hktune.runtime.counts import Fallback
from hktune.runtime.fusing.adjacent_weights import joined
from hktune.runtime.torch_state import as_autocast, is_transformed_in_trace

_NAME = "linear_joined"
operators._library.define(
    f"{_NAME}(Tensor x, Tensor[] weights, Tensor[] biases, str activation, bool is_gated, int table, int entries=0)"
    " -> Tensor"
)
Tensors = Sequence[Tensor]


def by_parts(
    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    weights: Tensors,
    biases: Tensors,
    activation: str,
    is_gated: bool,
) -> Tensor:
    """A call of `linear` for each weight, and the rest by torch."""
    each: list[tuple[Tensor, Tensor | None]] = list(itertools.zip_longest(weights, biases))
    parts = [linear(x, weight, bias) for weight, bias in each]
    if not is_gated:
        return torch.cat(parts, -1)
    gate, up = parts
    return (activated(activation, gate) if activation else gate) * up


def _linear_joined(
    x: Tensor, weights: Tensors, biases: Tensors, activation: str, is_gated: bool, table: int, entries: int = 0
) -> Tensor:
    del entries
    server = operators.table_numbered(table)

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return server.serve(linear_form(bias), x, weight, bias)

    weight, bias = joined(weights), joined(biases) if biases else None
    if weight is None or (biases and bias is None):
        return by_parts(linear, x, weights, biases, activation, is_gated)
    if not is_gated:
        return linear(x, weight, bias)
    out = server.finished(finished_form(bias, activation or None, is_gated), x, weight, bias, None)
    # Halves of one product are not contiguous, and what torch does with them takes longer than with two products.
    return by_parts(linear, x, weights, biases, activation, is_gated) if isinstance(out, Fallback) else out


def _fake(
    x: Tensor, weights: Tensors, biases: Tensors, activation: str, is_gated: bool, table: int, entries: int = 0
) -> Tensor:
    del table, entries
    return by_parts(linear_by_torch, x, weights, biases, activation, is_gated)


def _first(
    keys: object,
    x: Tensor,
    weights: Tensors,
    biases: Tensors,
    activation: str,
    is_gated: bool,
    table: int,
    entries: int = 0,
) -> Tensor:
    """The operator as torch's dispatcher meets it first."""
    del keys
    if asks_gradient(x, *weights, *biases):

        def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return operators.linear(x, weight, bias, table, entries)

        return by_parts(linear, x, weights, biases, activation, is_gated)
    with torch._C._AutoDispatchBelowAutograd():
        return linear_joined(x, weights, biases, activation, is_gated, table, entries)


operators._library.impl(_NAME, _linear_joined, "CompositeExplicitAutograd")
torch.library.register_fake(f"hktune::{_NAME}", _fake, lib=operators._library)
operators._library.impl(_NAME, _first, "Autograd", with_keyset=True)


@register_flop_formula(torch.ops.hktune.linear_joined)
def _flops(
    x_shape: Sequence[int], weight_shapes: Sequence[Sequence[int]], *others: object, out_shape: object, **named: object
) -> int:
    """Of x [..., K] and weights [N, K]."""
    del others, out_shape, named
    return 2 * math.prod(x_shape) * sum(rows for rows, _ in weight_shapes)


linear_joined: Callable[..., Tensor] = torch.ops.hktune.linear_joined.default


def traced_gated(x: Tensor, weights: Tensors, biases: Tensors, activation: str, table: int) -> Tensor | None:
    """What torch.compile's tracer makes of two linears of which the first is a gate, without a gradient; None where no
    kernel may do it, as far as is known."""
    gate, up = weights
    if gate.shape != up.shape or is_transformed_in_trace():
        return None
    x, gate, bias = as_autocast(x, gate, biases[0] if biases else None)
    if gate is not weights[0] or traced_refusal(x, gate, bias) is not None:
        return None
    ending = f"{'+bias' if biases else ''}{f'+{activation}' if activation else ''}+gated"
    rows, k = gate.shape
    if not operators.has_rows(table, gate.dtype, ending, rows, k):
        return None
    return linear_joined(x, weights, biases, activation, True, table, operators.entries_number(table))
