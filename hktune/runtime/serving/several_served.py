"""Batched and grouped products on one device, by the kernels that its table has for them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable

from torch import Tensor

from hktune.core.problem import Key
from hktune.device.device import PreparedLaunch
from hktune.runtime.calls.operands import PLAIN, may_hold
from hktune.runtime.calls.several_call import SeveralCall, Sizes, refusal
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.serving.place import Place
from hktune.runtime.serving.route import KernelRoute, Route
from hktune.runtime.torch_state import operator_range, profiling

_STRIDED_MAX = 1024  # launches kept, of about 3 KB each
_ROUTES_MAX = 65536  # kept; beyond, all are dropped, so that a program with ever new M does not grow


class SeveralProducts:
    """What a table serves of calls of several products. May be used by several threads."""

    def __init__(self, place: Place, route: Callable[[Key], Route | Fallback], counts: Counts) -> None:
        """`route` says how the table has a key launched."""
        self._place = place
        self._route = route
        self._counts = counts
        self._routes: dict[tuple[object, ...], Route | Fallback] = {}
        self._strided: dict[tuple[object, ...], PreparedLaunch] = {}

    def product(self, call: SeveralCall, out: Tensor | None = None) -> Tensor | Fallback:
        """Into `out` if there is one, else into a new tensor; or why torch is to be called."""
        sizes = call.sizes
        if sizes is None:
            return Fallback.SHAPE
        if 0 in sizes:
            return Fallback.EMPTY
        why = refusal(call, sizes, self._place.where)
        if call.add_to is not None:
            out = call.add_to
            why = why if type(out) in PLAIN else Fallback.TENSOR_TYPE
        if (
            why is None
            and out is not None
            and not may_hold(out, call.c_dtype, call.out_shape, self._place.where, call.tensors)
        ):
            why = Fallback.STRIDES
        if why is not None:
            return why
        route = self._found(call, sizes)
        if isinstance(route, Fallback):
            return route
        with self._place.entered():
            launch = self._ready(route, call.strides(route.layout))
            return launch if isinstance(launch, Fallback) else self._launched(launch, route, call, out)

    def _found(self, call: SeveralCall, sizes: Sizes) -> Route | Fallback:
        """Of the layouts that the operands have, the first that the table serves."""
        found: Route | Fallback = Fallback.STRIDES
        for layout in call.layouts:
            found = self._looked_up(call, sizes, layout)
            if isinstance(found, Route) and (found.takes_stacks or not call.strides(layout)):
                return found
        return Fallback.STRIDES if isinstance(found, Route) else found

    def _ready(self, route: Route, strides: dict[str, int]) -> PreparedLaunch | Fallback:
        """What launches `route` for matrices with `strides`, kept for the next call with the same."""
        launch = self._place.make_ready(route)
        if not strides or isinstance(launch, Fallback):
            return launch
        assert isinstance(route, KernelRoute), "no other takes strides"
        key = (route, *strides.items())
        strided = self._strided.get(key)
        if strided is None:
            if len(self._strided) >= _STRIDED_MAX:
                self._strided.clear()
            strided = self._strided[key] = self._place.stacked(route, strides)
        return strided

    def _looked_up(self, call: SeveralCall, sizes: Sizes, layout: str) -> Route | Fallback:
        kind = (layout, call.offsets is None, call.divides_k, call.use_fast_accum)
        key = (sizes, call.a.dtype, call.c_dtype, call.all_steps, *kind)
        known = self._routes.get(key)
        if known is None:
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            routes = [self._route((*sizes[:3], str(each))) for each in call.operations(layout, sizes[3])]
            known = next((each for each in routes if isinstance(each, Route)), (*routes, Fallback.STRIDES)[0])
            self._routes[key] = known
        return known

    def _launched(self, launch: PreparedLaunch, route: Route, call: SeveralCall, out: Tensor | None) -> Tensor:
        place = self._place
        if out is None:
            shape = call.out_shape
            strides = tuple(itertools.accumulate(shape[:0:-1], operator.mul, initial=1))[::-1]
            out = place.empty(shape, strides, call.c_dtype)
        stream = place.stream()
        workspace = place.workspace(route, stream)
        a, b, offsets, residual = call[:4]
        scales = (call.scale_a, call.scale_b) if call.has_scales else ()
        bias = None if call.bias is None else call.bias.contiguous()
        added = () if residual is None else (residual.contiguous(),)
        if profiling():
            with operator_range(_shown(call), a, b):
                launch(a, b, out, bias, *scales, offsets, workspace, *added, stream)
        else:
            launch(a, b, out, bias, *scales, offsets, workspace, *added, stream)
        self._counts.ran(route.near, route.sibling)
        return out


def _shown(call: SeveralCall) -> str:
    """What a profiler shows."""
    if call.has_scales:
        return "hktune::scaled_grouped_mm"
    return "hktune::bmm" if call.offsets is None else "hktune::grouped_mm"
