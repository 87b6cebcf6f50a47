"""What a table serves on one device, by the shapes of the operands: looked up once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from hktune.core.operation import Operation
from hktune.core.problem import Key
from hktune.device.device import PreparedLaunch
from hktune.dispatch.calls import ENDINGS, FACTORED_ENDINGS, LINEAR_ENDINGS
from hktune.dispatch.choice import Choices
from hktune.runtime.calls.call_operations import CALLS, KERNEL_DTYPES
from hktune.runtime.calls.forms import FACTORED, Form
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.serving.backward_product import BY_TORCH, BackwardProduct
from hktune.runtime.serving.place import Place
from hktune.runtime.serving.route import Route, route_of
from hktune.runtime.serving.scaled_products import ScaledProducts
from hktune.runtime.serving.served_product import Backward, ServedProduct
from hktune.runtime.serving.served_shapes import ServedShapes
from hktune.runtime.serving.several_served import SeveralProducts

Shapes = tuple[torch.Size, torch.Size, Form]
"""Of the two operands, and what is made of them."""

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
        self.scaled = ScaledProducts(place, self.route, counts)
        self.several = SeveralProducts(place, self.route, counts)
        # By ending: the dtypes and layouts that the table has entries of, with their operation's text.
        self._asked: dict[str, list[tuple[torch.dtype, str, str]]] = {
            each: [] for each in (*ENDINGS, *LINEAR_ENDINGS, *FACTORED_ENDINGS)
        }
        for (dtype, ending, layout), each in CALLS.items():
            if each in operations:
                self._asked[ending].append((dtype, layout, str(each)))

    def serve(self, shapes: Shapes) -> ServedShapes | Fallback:
        """What serves calls of `shapes`, or why that is the vendor library whatever their dtype; kept in `served`."""
        left, right, form = shapes
        sizes = form.sizes(left, right)
        if sizes is None:
            return Fallback.SHAPE
        out_shape, m, n, k = sizes
        if len(self.served) >= _ROUTES_MAX:
            self.served.clear()
        if not (m and n and k):
            served: ServedShapes | Fallback = Fallback.EMPTY
        else:
            asked = self._asked[form.ending]
            routes = {(dtype, layout): self.route((m, n, k, text)) for dtype, layout, text in asked}
            served = self._served(routes, out_shape, form)
        self.served[shapes] = served
        return served

    def below(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor | None) -> Tensor | None:
        """The product as a kernel of torch's dispatcher has it, into `out` if there is one; None where torch's own is
        to be called, which is counted, and no warning says so."""
        shapes = (left.shape, right.shape, form)
        found = self.served.get(shapes) or self.serve(shapes)
        if type(found) is not ServedShapes:
            return self._left(found)
        known = found.again(left, right, bias, out)
        if known is not None:
            self._counts.torchs_own_served()
            return known

        def launched(product: ServedProduct, launch: PreparedLaunch) -> Tensor | None:
            if out is not None and not product.fits(out, left, right, bias):
                return None
            found.remember(product, launch, (left, right, bias))
            return product.result(launch, left, right, bias, out)

        return self._launched(found, left, right, bias, launched)

    def added(self, form: Form, left: Tensor, right: Tensor, to: Tensor, out: Tensor | None) -> Tensor | None:
        """`to`, which has the shape of the product, and the product; as `below` has one. `out` may be `to`."""

        def launched(product: ServedProduct, launch: PreparedLaunch) -> Tensor | None:
            into = product.holding(to, out, left, right)
            return None if into is None else product.result(launch, left, right, None, into)

        shapes = (left.shape, right.shape, form)
        return self._launched(self.served.get(shapes) or self.serve(shapes), left, right, None, launched)

    def factored(
        self, left: Tensor, right: Tensor, to: Tensor, alpha: float, beta: float, out: Tensor | None
    ) -> Tensor | None:
        """`beta` times `to`, which has the shape of the product, and `alpha` times the product; as `below` has one. A
        `beta` of 0 leaves `to` out."""

        def launched(product: ServedProduct, launch: PreparedLaunch) -> Tensor | None:
            ends = product.ends(to if beta else None, alpha, beta)
            if isinstance(ends, Fallback) or not (out is None or product.fits(out, left, right, to)):
                return None
            return product.result(launch, left, right, None, out, *ends)

        shapes = (left.shape, right.shape, FACTORED[alpha != 1 or beta == 0, beta != 0])
        return self._launched(self.served.get(shapes) or self.serve(shapes), left, right, None, launched)

    def _launched(
        self,
        found: ServedShapes | Fallback,
        left: Tensor,
        right: Tensor,
        bias: Tensor | None,
        launched: Callable[[ServedProduct, PreparedLaunch], Tensor | None],
    ) -> Tensor | None:
        """What `launched` makes of the product that serves these operands, and of its launch; None where there is none,
        and where that is None, for what it is to be added or written to does not fit."""
        served = found.find(left.dtype, left, right, bias) if isinstance(found, ServedShapes) else found
        if isinstance(served, Fallback):
            return self._left(served)
        out = launched(*served)
        if out is None:
            return self._left(Fallback.STRIDES)
        self._counts.torchs_own_served()
        return out

    def _left(self, why: Fallback) -> Tensor | None:
        """None: torch's own is to be called, for the reason `why`."""
        self._counts.torchs_own_left(why)
        return None

    def backward_product(self, form: Form, left: Tensor, right: Tensor) -> Backward:
        """What computes the product of operands of these shapes, of which autograd is not told."""
        shapes = (left.shape, right.shape, form)
        found = self.served.get(shapes) or self.serve(shapes)
        return BY_TORCH[form] if found is Fallback.NO_ENTRY else BackwardProduct(form, found, self._counts)

    def route(self, key: Key) -> Route | Fallback:
        """How `key`, whose sizes are all above 0, is launched, or why it is not; found once."""
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            route = self._routes[key] = route_of(key, self._choices.find(*key))
        return route

    def _served(
        self, routes: dict[tuple[torch.dtype, str], Route | Fallback], out_shape: tuple[int, ...], form: Form
    ) -> ServedShapes | Fallback:
        """By dtype. Where a kernel serves one, operands of a dtype without an entry are merely of the wrong one."""
        products: dict[torch.dtype, list[ServedProduct]] = {}
        chosen: set[tuple[torch.dtype, str]] = set()
        for (dtype, layout), route in routes.items():
            if isinstance(route, Route):
                product = ServedProduct(self.place, route, form, dtype, out_shape, self._counts, self)
                products.setdefault(dtype, []).append(product)
            elif route is Fallback.VENDOR_CHOSEN:
                chosen.add((dtype, layout))
        vendors = {dtype: Fallback.VENDOR_CHOSEN for dtype, _ in chosen if dtype not in products}
        if products:
            return ServedShapes(products, vendors, chosen)
        if chosen:
            return ServedShapes({}, {**dict.fromkeys(KERNEL_DTYPES, Fallback.NO_ENTRY), **vendors}, chosen)
        return Fallback.NO_ENTRY
