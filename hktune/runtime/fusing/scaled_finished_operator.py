"""A scaled product of torch's with what is behind it, as one torch operator: `hktune::scaled_finished`.

An activation and a residual are behind one product. Gates may be of one too, whose first half they are, or of two:
then b, its scale and its bias come twice. A graph knows no addresses: whether two weights follow one another in memory,
as one kernel reads them, is looked at when it runs. It has no gradient, as torch's product has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from hktune.runtime import enabled, operators
from hktune.runtime.calls.forms import activated, gated
from hktune.runtime.calls.scaled_call import ScaledCall
from hktune.runtime.counts import Fallback
from hktune.runtime.fusing.adjacent_weights import joined
from hktune.runtime.loaded import LoadedTable

ENABLED = -1
"""In the place of a table's number: the one that serves torch's own products on the device when the graph runs."""
_NAME = "scaled_finished"
operators._library.define(
    f"{_NAME}(Tensor a, Tensor[] bs, Tensor scale_a, Tensor[] scale_bs, Tensor[] biases, Tensor? residual, "
    "ScalarType out_dtype, bool use_fast_accum, str activation, bool is_gated, int table) -> Tensor"
)
Tensors = Sequence[Tensor]


def _scaled_finished(
    a: Tensor,
    bs: Tensors,
    scale_a: Tensor,
    scale_bs: Tensors,
    biases: Tensors,
    residual: Tensor | None,
    out_dtype: torch.dtype,
    use_fast_accum: bool,
    activation: str,
    is_gated: bool,
    table: int,
) -> Tensor:
    server = enabled.table_on(a.device) if table == ENABLED else operators.table_numbered(table)
    b = _beside([each.t() for each in bs])
    if b is not None and isinstance(server, LoadedTable):
        scale_b, bias = _beside_or_copied([each.t() for each in scale_bs]), None
        if biases:
            bias = _beside_or_copied(biases)
        given = (b.t(), scale_a, scale_b.t(), bias, out_dtype, use_fast_accum)
        call = ScaledCall(a, *given, activation=activation, is_gated=is_gated, residual=residual)
        out = server.finished_scaled(call)
        if not isinstance(out, Fallback):
            return out

    def product(b: Tensor, scale_b: Tensor, bias: Tensor | None) -> Tensor:
        if table != ENABLED and isinstance(server, LoadedTable):
            return server.scaled_mm(ScaledCall(a, b, scale_a, scale_b, bias, out_dtype, use_fast_accum))
        named = {"bias": bias, "out_dtype": out_dtype, "use_fast_accum": use_fast_accum}
        return torch._scaled_mm(a, b, scale_a, scale_b, **named)  # type: ignore[arg-type]

    return _by_parts(product, bs, scale_bs, biases, residual, activation, is_gated)


def _by_parts(
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    bs: Tensors,
    scale_bs: Tensors,
    biases: Tensors,
    residual: Tensor | None,
    activation: str,
    is_gated: bool,
) -> Tensor:
    """A call of `product` for each b, and the rest by torch, as the program wrote it."""
    first, *others = [product(*each) for each in itertools.zip_longest(bs, scale_bs, biases)]
    if is_gated and not others:
        return gated(first, activation)
    out = activated(activation, first) if activation else first
    for up in others:
        out = out * up
    return out if residual is None else out + residual


def _beside(parts: Tensors) -> Tensor | None:
    """All of them as one, by their first dimension; None where they do not follow one another in memory."""
    return parts[0] if len(parts) == 1 else joined(parts)


def _beside_or_copied(parts: Tensors) -> Tensor:
    """The same of a scale or a bias, which is small."""
    whole = _beside(parts)
    return torch.cat(list(parts)) if whole is None else whole


def _fake(
    a: Tensor,
    bs: Tensors,
    scale_a: Tensor,
    scale_bs: Tensors,
    biases: Tensors,
    residual: Tensor | None,
    out_dtype: torch.dtype,
    use_fast_accum: bool,
    activation: str,
    is_gated: bool,
    table: int,
) -> Tensor:
    del scale_a, scale_bs, biases, residual, use_fast_accum, activation, table
    columns = sum(b.shape[1] for b in bs)
    return a.new_empty((a.shape[0], columns // 2 if is_gated else columns), dtype=out_dtype)


operators._library.impl(_NAME, _scaled_finished, "CompositeExplicitAutograd")
torch.library.register_fake(f"hktune::{_NAME}", _fake, lib=operators._library)


@register_flop_formula(torch.ops.hktune.scaled_finished)
def _flops(
    a_shape: Sequence[int], b_shapes: Sequence[Sequence[int]], *others: object, out_shape: object, **named: object
) -> int:
    """Of a [M, K] and each b [K, N]."""
    del others, out_shape, named
    return 2 * a_shape[0] * sum(k * n for k, n in b_shapes)


scaled_finished: Callable[..., Tensor] = torch.ops.hktune.scaled_finished.default
