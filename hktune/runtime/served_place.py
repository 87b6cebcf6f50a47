"""What a table serves on one device, by the shapes of the operands: looked up once, and kept."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from hktune.core.operation import Operation
from hktune.core.problem import Key
from hktune.dispatch.choice import Choices
from hktune.runtime.call_operations import CALLS, KERNEL_DTYPES
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.place import Place
from hktune.runtime.route import Route, route_of
from hktune.runtime.served_product import ServedMatmul, ServedProduct
from hktune.runtime.served_shapes import ServedShapes

Shapes = tuple[torch.Size, torch.Size, bool | None]
"""Of x [..., K] and weight [N, K], and whether there is no bias; of a [..., K] and b [K, N], and None."""

# Launches kept ready; beyond, all are dropped, so that a program with ever new M does not grow. About 1 KB each.
_ROUTES_MAX = 65536


class ServedPlace:
    """The entries of a table, which are of `operations`, on one device. May be used by several threads."""

    def __init__(self, place: Place, choices: Choices, operations: Collection[Operation], counts: Counts) -> None:
        self.place = place
        self.served: dict[Shapes, ServedShapes | Fallback] = {}
        self._routes: dict[Key, Route | Fallback] = {}
        self._choices = choices
        self._counts = counts
        # By whether there is a bias: the dtypes that the table has entries of, each with the text of its operation.
        self._asked = tuple(
            [(dtype, str(each)) for (dtype, biased), each in CALLS.items() if biased is has_bias and each in operations]
            for has_bias in (False, True)
        )

    def serve(self, shapes: Shapes) -> ServedShapes | Fallback:
        """What serves calls of `shapes`, or why that is the vendor library whatever their dtype; kept in `served`."""
        left, right, bare = shapes
        is_product = bare is None
        if len(right) != 2:
            return Fallback.SHAPE
        k, n = right if is_product else reversed(right)
        if not left or left[-1] != k:
            return Fallback.SHAPE
        rows = left[:-1]
        m = math.prod(rows)
        if len(self.served) >= _ROUTES_MAX:
            self.served.clear()
        if not (m and n and k):
            served: ServedShapes | Fallback = Fallback.EMPTY
        else:
            routes = {dtype: self.route((m, n, k, text)) for dtype, text in self._asked[bare is False]}
            served = self._served(routes, (*rows, n), ServedMatmul if is_product else ServedProduct)
        self.served[shapes] = served
        return served

    def route(self, key: Key) -> Route | Fallback:
        """How `key`, whose sizes are all above 0, is launched, or why it is not; found once."""
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            route = self._routes[key] = route_of(key, self._choices.find(*key))
        return route

    def _served(
        self, routes: dict[torch.dtype, Route | Fallback], out_shape: tuple[int, ...], kind: type[ServedProduct]
    ) -> ServedShapes | Fallback:
        """By dtype. Where a kernel serves one, operands of a dtype without an entry are merely of the wrong one."""
        products: dict[torch.dtype, ServedProduct] = {}
        chosen: dict[torch.dtype, Fallback] = {}
        for dtype, route in routes.items():
            if isinstance(route, Route):
                products[dtype] = kind(self.place, route, dtype, out_shape, self._counts)
            elif route is Fallback.VENDOR_CHOSEN:
                chosen[dtype] = route
        if products:
            return ServedShapes(products, chosen)
        if chosen:
            return ServedShapes({}, {**dict.fromkeys(KERNEL_DTYPES, Fallback.NO_ENTRY), **chosen})
        return Fallback.NO_ENTRY
