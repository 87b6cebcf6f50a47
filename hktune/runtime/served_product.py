"""The product of one pair of operand shapes and one dtype on one device, by the kernel that its table has for it."""

from __future__ import annotations

import itertools
import operator

import torch
from torch import Tensor

from hktune.device.device import PreparedLaunch
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.gradients import taped_linear, taped_matmul
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN, refusal, row_stride, row_strides
from hktune.runtime.place import Place
from hktune.runtime.route import Route
from hktune.runtime.torch_state import operator_range, profiling

MISALIGNED = ALIGNMENT_BYTES - 1


class ServedProduct:
    """Of one x [..., K] and weight [N, K] of `dtype`, with or without bias; the output has `out_shape` and that dtype.

    A call asks for the `launch` of its very operands, and then for that launch's `result`. Both work outside of torch's
    dispatcher and autograd.
    """

    __slots__ = ("_counts", "_dtype", "_out_shape", "_out_strides", "place", "route")
    name = "hktune::linear"
    taped = staticmethod(taped_linear)

    def __init__(
        self, place: Place, route: Route, dtype: torch.dtype, out_shape: tuple[int, ...], counts: Counts
    ) -> None:
        self.place = place
        self.route = route
        self._dtype = dtype
        self._out_shape = out_shape
        self._out_strides = tuple(itertools.accumulate(out_shape[:0:-1], operator.mul, initial=1))[::-1]
        self._counts = counts

    def launch(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> PreparedLaunch | Fallback:
        """What takes these plain tensors as they are, or why that is the vendor library."""
        place, prepared, dtype = self.place, self.route.prepared, self._dtype
        index = place.index
        try:
            # One expression, ordered by what is likely to fail; `refusal` says which part did.
            ready = (
                prepared is not None
                and x.dtype is dtype
                and weight.dtype is dtype
                and weight.get_device() == index
                and x.is_contiguous()
                and weight.is_contiguous()
                and (at := x.data_ptr())
                and (weight_at := weight.data_ptr())
                and not (at | weight_at) & MISALIGNED
                and not x.is_neg()
                and not weight.is_neg()
                and (bias is None or self._bias_fits(bias))
                and (place.current_index is None or place.current_index() == index)
            )
        except RuntimeError:  # a tensor without memory of its own
            ready = False
        if ready and prepared is not None:
            return prepared
        return self._slow_launch((x, weight) if bias is None else (x, weight, bias))

    def result(self, launch: PreparedLaunch, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The product, by a launch that was found for these operands."""
        place, route = self.place, self.route
        out = place.empty(self._out_shape, self._out_strides, self._dtype)
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

    def _bias_fits(self, bias: Tensor) -> bool:
        return (
            type(bias) in PLAIN
            and bias.dtype is self._dtype
            and bias.get_device() == self.place.index
            and bias.shape == self._out_shape[-1:]
            and bias.is_contiguous()
            and bool(at := bias.data_ptr())
            and not at & MISALIGNED
            and not bias.is_neg()
        )

    def _slow_launch(self, operands: tuple[Tensor, ...]) -> PreparedLaunch | Fallback:
        """The launch of a call that needs more questions, or why the vendor serves it. It is the first of its shapes,
        or another device is current, or its operands are not contiguous, of this dtype and on this device."""
        place, route = self.place, self.route
        n, k = route.numbers["n"], route.numbers["k"]
        why = refusal(operands, self._dtype, n, k, place.where)
        if why is not None:
            return why
        strides = self._strides(operands)
        if isinstance(strides, Fallback):
            return strides
        with place.entered():
            ready = place.make_ready(route)
            if isinstance(ready, Fallback):
                return ready
            prepared = place.strided(route, *strides) if strides else ready

        def launch(
            a: Tensor, b: Tensor, c: Tensor, bias: Tensor | None, workspace: Tensor | None, stream: int | None
        ) -> None:
            with place.entered():
                prepared(a, b, c, bias, workspace, stream)

        return launch

    def _strides(self, operands: tuple[Tensor, ...]) -> tuple[int, int] | tuple[()] | Fallback:
        """From row to row of either operand, as operands.row_strides, or why no kernel takes them so."""
        found = row_strides(operands, self.route.numbers["k"], self.route.takes_strides)
        return Fallback.STRIDES if found is None else found


class ServedMatmul(ServedProduct):
    """The same of one a [..., K] and b [K, N], which a kernel takes where it is the transposed view of a [N, K]."""

    __slots__ = ("_b_strides",)
    name = "hktune::matmul"
    taped = staticmethod(taped_matmul)

    def __init__(
        self, place: Place, route: Route, dtype: torch.dtype, out_shape: tuple[int, ...], counts: Counts
    ) -> None:
        super().__init__(place, route, dtype, out_shape, counts)
        self._b_strides = (1, route.numbers["k"])

    def launch(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> PreparedLaunch | Fallback:
        del bias
        place, prepared, dtype = self.place, self.route.prepared, self._dtype
        index = place.index
        try:
            ready = (
                prepared is not None
                and a.dtype is dtype
                and b.dtype is dtype
                and b.stride() == self._b_strides
                and b.get_device() == index
                and a.is_contiguous()
                and (at := a.data_ptr())
                and (b_at := b.data_ptr())
                and not (at | b_at) & MISALIGNED
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
        k, transposed = self.route.numbers["k"], b.detach().t()
        strides = row_strides((a, transposed), k, self.route.takes_strides)
        if strides is None:
            return Fallback.NOT_TRANSPOSED if row_stride(transposed, k) is None else Fallback.STRIDES
        return strides
