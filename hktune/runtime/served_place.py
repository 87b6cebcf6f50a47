"""What a table serves on one device, by the shapes of the operands: looked up once, and kept."""

from __future__ import annotations

import math

import torch

from hktune.core.problem import Key
from hktune.dispatch.choice import Choices
from hktune.runtime.call_operations import CALLS, KERNEL_DTYPES
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.place import Place
from hktune.runtime.route import Route
from hktune.runtime.served_product import ServedMatmul, ServedProduct
from hktune.runtime.served_shapes import ServedShapes

Shapes = tuple[torch.Size, torch.Size, bool | None]
"""Of x [..., K] and weight [N, K], and whether there is no bias; of a [..., K] and b [K, N], and None."""

# Launches kept ready; beyond, all are dropped, so that a program with ever new M does not grow. About 1 KB each.
_ROUTES_MAX = 65536


class ServedPlace:
    """The entries of a table on one device. May be used by several threads."""

    def __init__(self, place: Place, choices: Choices, counts: Counts) -> None:
        self.place = place
        self.served: dict[Shapes, ServedShapes | Fallback] = {}
        self._routes: dict[Key, Route] = {}
        self._choices = choices
        self._counts = counts

    def serve(self, shapes: Shapes) -> ServedShapes | Fallback:
        """What serves calls of `shapes`, kept in `served`; or why none can be."""
        left, right, bare = shapes
        is_product = bare is None
        if len(right) != 2:
            return Fallback.SHAPE
        k, n = right if is_product else reversed(right)
        if not left or left[-1] != k:
            return Fallback.SHAPE
        rows = left[:-1]
        kind = ServedMatmul if is_product else ServedProduct
        products: dict[torch.dtype, ServedProduct] = {}
        left_to_torch: dict[torch.dtype, Fallback] = {}
        for dtype in KERNEL_DTYPES:
            route = self.route((math.prod(rows), n, k, str(CALLS[dtype, bare is False])))
            if route.why is None:
                products[dtype] = kind(self.place, route, dtype, (*rows, n), self._counts)
            else:
                left_to_torch[dtype] = route.why
        if len(self.served) >= _ROUTES_MAX:
            self.served.clear()
        served = self.served[shapes] = _served(products, left_to_torch)
        return served

    def route(self, key: Key) -> Route:
        """The route of `key`, found once."""
        route = self._routes.get(key)
        if route is None:
            m, n, k, operation = key
            choice = self._choices.find(m, n, k, operation) if m and n and k else None
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            route = self._routes[key] = Route(key, choice)
        return route


def _served(
    products: dict[torch.dtype, ServedProduct], left_to_torch: dict[torch.dtype, Fallback]
) -> ServedShapes | Fallback:
    """Where a kernel serves one dtype, operands of a dtype without an entry are merely of the wrong one."""
    if products:
        chosen = {dtype: why for dtype, why in left_to_torch.items() if why is Fallback.VENDOR_CHOSEN}
        return ServedShapes(products, chosen)
    why, *others = dict.fromkeys(left_to_torch.values())
    return ServedShapes({}, left_to_torch) if others else why
