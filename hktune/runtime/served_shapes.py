"""One pair of operand shapes on one device: its kernel for operands that fit it, the vendor library for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from hktune.device.device import PreparedLaunch
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN, refusal, row_strides

if TYPE_CHECKING:
    from hktune.runtime.place import Place, Route

_BF16 = torch.bfloat16
_MISALIGNED = ALIGNMENT_BYTES - 1


class ServedShapes:
    """What serves calls of one x [..., K] and weight [N, K], with or without bias, whose output has `out_shape`."""

    __slots__ = ("_counts", "_out_shape", "_place", "_route")

    def __init__(self, place: Place, route: Route, out_shape: tuple[int, ...], counts: Counts) -> None:
        self._place = place
        self._route = route
        self._out_shape = out_shape
        self._counts = counts

    def serve_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product, outside of torch's dispatcher and autograd."""
        place, route, out_shape = self._place, self._route, self._out_shape
        index = place.index
        prepared = route.prepared
        try:
            # One expression, ordered by what is likely to fail; `refusal` says which part did.
            ready = (
                prepared is not None
                and x.dtype is _BF16
                and weight.dtype is _BF16
                and type(x) in PLAIN
                and type(weight) in PLAIN
                and weight.get_device() == index
                and x.is_contiguous()
                and weight.is_contiguous()
                and (at := x.data_ptr())
                and (weight_at := weight.data_ptr())
                and not (at | weight_at) & _MISALIGNED
                and (bias is None or _bias_fits(bias, out_shape[-1], index))
                and (place.current_index is None or place.current_index() == index)
            )
        except RuntimeError:  # a tensor without memory of its own
            ready = False
        if not ready or prepared is None:
            found = _prepared_slowly(place, route, x, weight, bias)
            if isinstance(found, Fallback):
                return vendor_linear(self._counts, found, x, weight, bias)
            prepared = found
        out = x.new_empty(*out_shape)  # its sizes one by one: as one tuple they cost torch 0.45 us more
        stream = place.stream()
        workspace = place.workspaces.of(stream, route.workspace_bytes) if route.workspace_bytes else None
        prepared(x, weight, out, bias, workspace, stream)
        if route.near:
            self._counts.near_hits += 1
        else:
            self._counts.hits += 1
        return out


def vendor_linear(counts: Counts, why: Fallback, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What torch makes of a call that no kernel serves, for the reason `why`."""
    counts.fell_back(why, x, weight)
    return functional.linear(x, weight, bias)


def _prepared_slowly(
    place: Place, route: Route, x: Tensor, weight: Tensor, bias: Tensor | None
) -> PreparedLaunch | Fallback:
    """The launch of a call that is the first of its route, whose operands are no contiguous bf16 of this device, or
    that comes while another device is the current one; or why the vendor serves it."""
    n, k = weight.shape
    operands = (x, weight) if bias is None else (x, weight, bias)
    why = refusal(operands, n, k, place.where)
    strides = None if why else row_strides(operands, k, route.takes_strides)
    if why is not None or strides is None:
        return why or Fallback.STRIDES
    with place.entered():
        why = place.make_ready(route)
        if why is not None or route.prepared is None:
            return why or Fallback.NO_ENTRY
        prepared = place.strided(route, *strides) if strides else route.prepared

    def launch(a: Any, bt: Any, c: Any, bias: Any, workspace: Any, stream: int | None) -> None:
        with place.entered():
            prepared(a, bt, c, bias, workspace, stream)

    return launch


def _bias_fits(bias: Tensor, n: int, index: int) -> bool:
    return (
        bias.dtype is _BF16
        and type(bias) in PLAIN
        and bias.get_device() == index
        and bias.shape == (n,)
        and bias.is_contiguous()
        and not bias.data_ptr() & _MISALIGNED
    )
