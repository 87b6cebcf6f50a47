"""Products of numbers of 8 bits or fewer on one device, by the kernels that its table has for them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hktune.core.problem import Key
from hktune.device.device import PreparedLaunch
from hktune.runtime.calls.forms import FLOAT8
from hktune.runtime.calls.operands import may_hold
from hktune.runtime.calls.scaled_call import OPERATIONS, ScaledCall, Words, is_by_columns, refusal
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.serving.place import Place
from hktune.runtime.serving.route import KernelRoute, Route
from hktune.runtime.torch_state import operator_range, profiling

_ROUTES_MAX = 65536  # kept; beyond, all are dropped, so that a program with ever new M does not grow


class ScaledProducts:
    """What a table serves of torch's products of such numbers. May be used by several threads."""

    def __init__(self, place: Place, route: Callable[[Key], Route | Fallback], counts: Counts) -> None:
        """`route` says how the table has a key launched."""
        self._place = place
        self._route = route
        self._counts = counts
        self._routes: dict[tuple[object, ...], Route | Fallback] = {}

    def product(self, call: ScaledCall, out: Tensor | None = None) -> Tensor | Fallback:
        """Into `out` if there is one, else into a new tensor; or why torch is to be called."""
        sizes = call.sizes
        if sizes is None:
            return Fallback.SHAPE
        words = call.words(*sizes)
        if words is None:
            return Fallback.SCALES
        m, n, _ = sizes
        by_columns = words[2] == "blocks" and call.scale_a is not None and is_by_columns(call.scale_a)
        route = self._routes.get((sizes, words, by_columns)) or self._found(sizes, words, by_columns)
        if isinstance(route, Fallback):
            return route
        why = refusal(call, call.b.shape[1], words[2], self._place.where)
        if (
            why is None
            and out is not None
            and not may_hold(out, call.out_dtype, (m, n), self._place.where, call.tensors)
        ):
            why = Fallback.STRIDES
        if why is not None:
            return why
        if by_columns and route.numbers["incscale_a"] == 1 and call.scale_a is not None:
            call = call._replace(scale_a=call.scale_a.contiguous())
        with self._place.entered():
            launch = self._place.make_ready(route)
            return launch if isinstance(launch, Fallback) else self._launched(launch, route, call, (m, n), out)

    def _found(self, sizes: tuple[int, int, int], words: Words, by_columns: bool) -> Route | Fallback:
        """`by_columns`: the scales of A's blocks come column by column. A kernel that does not take them so gets them
        row by row."""
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        found = self._looked_up(sizes, words)
        if by_columns and isinstance(found, KernelRoute) and found.launch.takes("incscale_a"):
            found = found.with_numbers(ldscale_a=1, incscale_a=sizes[0])
        self._routes[sizes, words, by_columns] = found
        return found

    def _looked_up(self, sizes: tuple[int, int, int], words: Words) -> Route | Fallback:
        operations = OPERATIONS.get(words)
        if operations is None:
            return Fallback.DTYPE
        if 0 in sizes:
            return Fallback.EMPTY
        routes = [self._route((*sizes, str(each))) for each in operations]
        return next((each for each in routes if isinstance(each, Route)), routes[0])

    def _launched(
        self, launch: PreparedLaunch, route: Route, call: ScaledCall, shape: tuple[int, int], out: Tensor | None
    ) -> Tensor:
        place = self._place
        if out is None:
            out = place.empty(shape, (shape[1], 1), call.out_dtype)
        stream = place.stream()
        workspace = place.workspace(route, stream)
        a, b, scale_a, scale_b, bias = call[:5]
        scales = () if scale_a is None else (scale_a, scale_b)
        ends = () if call.residual is None else (call.residual,)
        if call.out_dtype is FLOAT8:
            ends = (*ends, place.number(1.0) if call.out_scale is None else call.out_scale)
        if profiling():
            with operator_range("hktune::scaled_mm" if scales else "hktune::int_mm", a, b):
                launch(a, b, out, bias, *scales, workspace, *ends, stream)
        else:
            launch(a, b, out, bias, *scales, workspace, *ends, stream)
        self._counts.ran(route.near, route.sibling)
        return out
