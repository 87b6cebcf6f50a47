"""One pair of operand shapes on one device: its kernel for operands that fit it, the vendor library for others."""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hktune.device.device import PreparedLaunch
from hktune.runtime.autocast_cache import bf16
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.gradients import taped_linear, taped_matmul
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN, refusal, row_stride, row_strides
from hktune.runtime.seen_calls import KINDS_MAX, Kind
from hktune.runtime.torch_state import grad_enabled, operator_range, profiling

if TYPE_CHECKING:
    from hktune.runtime.place import Place, Route

_BF16 = torch.bfloat16
_MISALIGNED = ALIGNMENT_BYTES - 1


class ServedShapes:
    """What serves calls of one x [..., K] and weight [N, K], with or without bias, whose output has `out_shape`.

    A call asks for the `launch` of its very operands, and then for that launch's `result`. Both work outside of torch's
    dispatcher and autograd.
    """

    __slots__ = ("_counts", "_out_shape", "_out_strides", "_place", "_route", "kinds")
    name = "hktune::linear"
    taped = staticmethod(taped_linear)

    def __init__(self, place: Place, route: Route, out_shape: tuple[int, ...], counts: Counts) -> None:
        self._place = place
        self._route = route
        self._out_shape = out_shape
        self._out_strides = tuple(itertools.accumulate(out_shape[:0:-1], operator.mul, initial=1))[::-1]
        self._counts = counts
        self.kinds: tuple[Kind, ...] = ()

    def launch(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> PreparedLaunch | Fallback:
        """What takes these plain tensors as they lie, or why that is the vendor library."""
        place, prepared = self._place, self._route.prepared
        index = place.index
        try:
            # One expression, ordered by what is likely to fail; `refusal` says which part did.
            ready = (
                prepared is not None
                and x.dtype is _BF16
                and weight.dtype is _BF16
                and weight.get_device() == index
                and x.is_contiguous()
                and weight.is_contiguous()
                and (at := x.data_ptr())
                and (weight_at := weight.data_ptr())
                and not (at | weight_at) & _MISALIGNED
                and not x.is_neg()
                and not weight.is_neg()
                and (bias is None or _bias_fits(bias, self._out_shape[-1], index))
                and (place.current_index is None or place.current_index() == index)
            )
        except RuntimeError:  # a tensor without memory of its own
            ready = False
        if ready and prepared is not None:
            return prepared
        return self._slow_launch((x, weight) if bias is None else (x, weight, bias))

    def again(self, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor | None:
        """The product of a call that is like one which was served; None of another."""
        kinds = self.kinds
        for kind in kinds:
            if kind.fits(left, right) if bias is None else kind.fits(left, right, bias):
                break
        else:
            return None
        if kind is not kinds[0]:  # the next call is likely to be of this kind, and each other one asked costs 0.2 us
            self.kinds = (kind, *[each for each in kinds if each is not kind])
        place, launch = self._place, self._route.prepared
        if kind.is_autocast:
            if torch.get_autocast_dtype(place.where.type) is not _BF16:
                return None
            left, right, bias = bf16(left), bf16(right), None if bias is None else bf16(bias)
        try:
            at, right_at = left.data_ptr(), right.data_ptr()
        except RuntimeError:  # a tensor without memory of its own
            return None
        if not (at and right_at) or (at | right_at) & _MISALIGNED:
            return None
        if bias is not None and (not (at := bias.data_ptr()) or at & _MISALIGNED):
            return None
        if launch is None or (place.current_index is not None and place.current_index() != place.index):
            return None
        if kind.asks_gradient and grad_enabled():
            if bias is None:
                return self.taped(left, right, self, launch)
            return self.taped(left, right, self, launch, bias)
        return self.result(launch, left, right, bias)

    def remember(self, launch: PreparedLaunch, operands: tuple[Tensor | None, ...], is_autocast: bool = False) -> None:
        """That a call of these operands is served by `launch`, so that `again` knows its like."""
        if launch is self._route.prepared and len(self.kinds) < KINDS_MAX:
            self.kinds += (Kind([each for each in operands if each is not None], is_autocast),)

    def result(self, launch: PreparedLaunch, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The product, by a launch that was found for these operands."""
        place, route = self._place, self._route
        out = place.empty(self._out_shape, self._out_strides, _BF16)
        stream = place.stream()
        workspace = place.workspaces.of(stream, route.workspace_bytes) if route.workspace_bytes else None
        if profiling():
            with operator_range(self.name, left, right):
                launch(left, right, out, bias, workspace, stream)
        else:
            launch(left, right, out, bias, workspace, stream)
        if route.near:
            self._counts.near_hits += 1
        else:
            self._counts.hits += 1
        return out

    def _slow_launch(self, operands: tuple[Tensor, ...]) -> PreparedLaunch | Fallback:
        """The launch of a call that is the first of its shapes, whose operands are no contiguous bf16 of this device,
        or that comes while another device is the current one; or why the vendor serves it."""
        place, route = self._place, self._route
        n, k = route.numbers["n"], route.numbers["k"]
        why = refusal(operands, n, k, place.where)
        if why is not None:
            return why
        strides = self._strides(operands)
        if isinstance(strides, Fallback):
            return strides
        with place.entered():
            why = place.make_ready(route)
            if why is not None or route.prepared is None:
                return why or Fallback.NO_ENTRY
            prepared = place.strided(route, *strides) if strides else route.prepared

        def launch(a: Any, b: Any, c: Any, bias: Any, workspace: Any, stream: int | None) -> None:
            with place.entered():
                prepared(a, b, c, bias, workspace, stream)

        return launch

    def _strides(self, operands: tuple[Tensor, ...]) -> tuple[int, int] | tuple[()] | Fallback:
        """From row to row of either operand, as operands.row_strides, or why no kernel takes them so."""
        found = row_strides(operands, self._route.numbers["k"], self._route.takes_strides)
        return Fallback.STRIDES if found is None else found


class ServedProducts(ServedShapes):
    """The same of one a [..., K] and b [K, N], which a kernel takes where it is the transposed view of a [N, K]."""

    __slots__ = ("_b_strides",)
    name = "hktune::matmul"
    taped = staticmethod(taped_matmul)

    def __init__(self, place: Place, route: Route, out_shape: tuple[int, ...], counts: Counts) -> None:
        super().__init__(place, route, out_shape, counts)
        self._b_strides = (1, route.numbers["k"])

    def launch(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> PreparedLaunch | Fallback:
        del bias
        place, prepared = self._place, self._route.prepared
        index = place.index
        try:
            ready = (
                prepared is not None
                and a.dtype is _BF16
                and b.dtype is _BF16
                and b.stride() == self._b_strides
                and b.get_device() == index
                and a.is_contiguous()
                and (at := a.data_ptr())
                and (b_at := b.data_ptr())
                and not (at | b_at) & _MISALIGNED
                and not a.is_neg()
                and not b.is_neg()
                and (place.current_index is None or place.current_index() == index)
            )
        except RuntimeError:
            ready = False
        if ready and prepared is not None:
            return prepared
        return self._slow_launch((a, b))

    def _strides(self, operands: tuple[Tensor, ...]) -> tuple[int, int] | tuple[()] | Fallback:
        a, b = operands
        k, transposed = self._route.numbers["k"], b.detach().t()
        strides = row_strides((a, transposed), k, self._route.takes_strides)
        if strides is None:
            return Fallback.NOT_TRANSPOSED if row_stride(transposed, k) is None else Fallback.STRIDES
        return strides


def _bias_fits(bias: Tensor, n: int, index: int) -> bool:
    return (
        type(bias) in PLAIN
        and bias.dtype is _BF16
        and bias.get_device() == index
        and bias.shape == (n,)
        and bias.is_contiguous()
        and bool(at := bias.data_ptr())
        and not at & _MISALIGNED
        and not bias.is_neg()
    )
