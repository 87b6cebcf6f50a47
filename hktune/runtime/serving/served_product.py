"""The product of one pair of operand shapes and one dtype on one device, by the kernel that its table has for it."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from hktune.device.device import PreparedLaunch
from hktune.runtime.calls.forms import FLOAT8, LINEAR, MATMUL, OUTER, Form
from hktune.runtime.calls.gradients import linear_gradients, matmul_gradients
from hktune.runtime.calls.operands import ALIGNMENT_BYTES, PLAIN, refusal, row_lengths, row_strides
from hktune.runtime.counts import Counts, Fallback
from hktune.runtime.serving.place import Place
from hktune.runtime.serving.route import KernelRoute, Route
from hktune.runtime.torch_state import grad_enabled, operator_range, profiling, unseen_by_guards

MISALIGNED = ALIGNMENT_BYTES - 1
Backward = Callable[[Tensor, Tensor], Tensor]


class Home(Protocol):
    """Where a product was found, which finds those of its backward pass too."""

    def backward_product(self, form: Form, left: Tensor, right: Tensor) -> Backward:
        """What computes the product of operands of these shapes; autograd is not told of it. The program says nothing
        of that product. So no warning speaks of it, and it is counted only where the table has an entry."""


class ServedProduct:
    """Of two operands of `dtype` whose shapes are those of `form`, stored as the route's layout says, with or without
    bias; the output has `out_shape` and that dtype, or float32 where the form says so. So has the bias.

    A call asks for the `launch` of its very operands, and then for that launch's `result`. Both work outside of torch's
    dispatcher and autograd.
    """

    __slots__ = (
        "_bias_dtype",
        "_bias_shape",
        "_counts",
        "_dtype",
        "_for_left",
        "_for_right",
        "_home",
        "_left_strides",
        "_out_dtype",
        "_out_shape",
        "_out_strides",
        "_right_strides",
        "_workspaces",
        "form",
        "place",
        "route",
        "taped",
    )

    def __init__(
        self,
        place: Place,
        route: Route,
        form: Form,
        dtype: torch.dtype,
        out_shape: tuple[int, ...],
        counts: Counts,
        home: Home,
    ) -> None:
        self.place = place
        self.route = route
        self.form = form
        self.taped = form.taped
        self._workspaces = place.workspaces_of(route)
        self._dtype = dtype
        self._out_dtype = torch.float32 if form.is_float32 else FLOAT8 if form.is_float8 else dtype
        self._bias_dtype = dtype if form.is_float8 else self._out_dtype
        self._out_shape = out_shape
        self._bias_shape = (out_shape[-1] * (2 if form.is_gated else 1),)
        self._out_strides = tuple(itertools.accumulate(out_shape[:0:-1], operator.mul, initial=1))[::-1]
        self._counts = counts
        self._home = home
        # Of the backward pass, by which the gradients of either operand are made; found at the first one.
        self._for_left: Backward | None = None
        self._for_right: Backward | None = None
        # Of a transposed view whose rows are adjacent; None of an operand that is contiguous.
        self._left_strides, self._right_strides = (
            None if own == letter else (1, length)
            for own, letter, length in zip(
                form.letters, route.layout, row_lengths(route.layout, route.numbers), strict=True
            )
        )

    def launch(self, left: Tensor, right: Tensor, bias: Tensor | None) -> PreparedLaunch | Fallback:
        """What takes these plain tensors as they are, or why that is the vendor library."""
        place, prepared, dtype = self.place, self.route.prepared, self._dtype
        index = place.index
        try:
            # One expression, ordered by what is likely to fail; `refusal` says which part did.
            ready = (
                prepared is not None
                and left.dtype is dtype
                and right.dtype is dtype
                and right.get_device() == index
                and (left.is_contiguous() if self._left_strides is None else left.stride() == self._left_strides)
                and (right.is_contiguous() if self._right_strides is None else right.stride() == self._right_strides)
                and (at := left.data_ptr())
                and (right_at := right.data_ptr())
                and not (at | right_at) & MISALIGNED
                and not left.is_neg()
                and not right.is_neg()
                and (bias is None or self._bias_fits(bias))
                and (place.current_index is None or place.current_index() == index)
            )
        except RuntimeError:  # a tensor without memory of its own
            ready = False
        if ready and prepared is not None:
            return prepared
        return self._slow_launch((left, right) if bias is None else (left, right, bias))

    def ends(
        self, residual: Tensor | None, alpha: float, beta: float, out_scale: Tensor | None = None
    ) -> tuple[Tensor, ...] | Fallback:
        """What a launch takes for the end of the form, in the order of the route's operands; or why it takes these not
        as they are. A residual has the dtype of a bias, a scale is a float32 of one element, and 1 without one."""
        form, place = self.form, self.place
        if residual is not None and (type(residual) not in PLAIN or not self._is_whole(residual, self._bias_dtype)):
            return Fallback.STRIDES
        if out_scale is not None and (
            type(out_scale) not in PLAIN or out_scale.get_device() != place.index or out_scale.is_neg()
        ):
            return Fallback.SCALES
        if out_scale is None and form.is_float8:
            out_scale = place.number(1.0)
        return (
            *(() if residual is None else (residual,)),
            *((place.number(alpha),) if form.has_alpha else ()),
            *((place.number(beta),) if form.has_beta else ()),
            *(() if out_scale is None else (out_scale,)),
        )

    def result(
        self,
        launch: PreparedLaunch,
        left: Tensor,
        right: Tensor,
        bias: Tensor | None,
        out: Tensor | None = None,
        *ends: Tensor,
    ) -> Tensor:
        """The product, by a launch that was found for these operands; into an `out` that `fits`, or a new tensor. What
        the end of the form reads comes last, in the order of the route's operands."""
        place, route = self.place, self.route
        if out is None:
            out = place.empty(self._out_shape, self._out_strides, self._out_dtype)
        stream = place.stream()
        workspace = self._workspaces.of(stream, route.workspace_bytes) if route.workspace_bytes else None
        if profiling():
            with operator_range(self.form.name, left, right):
                launch(left, right, out, bias, workspace, *ends, stream)
        else:
            launch(left, right, out, bias, workspace, *ends, stream)
        if route.sibling:
            self._counts.sibling_hits += 1
        elif route.near:
            self._counts.near_hits += 1
        else:
            self._counts.hits += 1
        return out

    def fits(self, out: Tensor, *operands: Tensor | None) -> bool:
        """Whether the product of `operands` may be written to `out`."""
        return self._is_whole(out, self._out_dtype) and not any(
            each is not None and torch._C._overlaps(out, each) for each in operands
        )

    def _is_whole(self, matrix: Tensor, dtype: torch.dtype) -> bool:
        """Whether a matrix of the product's shape is stored as a kernel has it."""
        return (
            matrix.dtype is dtype
            and matrix.shape == self._out_shape
            and matrix.get_device() == self.place.index
            and matrix.is_contiguous()
            and not matrix.is_neg()
            and bool(at := matrix.data_ptr())  # none of a tensor on meta, which has the CPU's index
            and not at & MISALIGNED
        )

    def holding(self, to: Tensor, out: Tensor | None, *operands: Tensor) -> Tensor | None:
        """What holds `to`, for the product of `operands` to be added: a new tensor, or an `out` that fits. None where
        neither can be."""
        if to.dtype is not self._out_dtype or to.shape != self._out_shape or to.get_device() != self.place.index:
            return None
        if out is None:
            out = self.place.empty(self._out_shape, self._out_strides, self._out_dtype)
        elif not self.fits(out, *operands):
            return None
        elif to is out or (to.data_ptr() == out.data_ptr() and to.is_contiguous() and not to.is_neg()):
            return out
        elif torch._C._overlaps(out, to):
            return None
        return out.copy_(to)

    def gradients(self, grad: Tensor, left: Tensor | None, right: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Of the left and the right operand, from that of the product; an operand is None where only the gradient of
        the other one is needed. The gradient of a right operand that is a transposed view is one too.

        Where something watches, or would have gradients of these, they are torch's own products.
        """
        if grad_enabled() or unseen_by_guards():
            if self.form.letters == "nt":
                return linear_gradients(grad, left, right)
            return matmul_gradients(grad, left, right, self._right_strides is not None)
        for_left = None
        if right is not None:
            product = self._for_left
            if product is None:
                form = MATMUL if self.form.letters == "nt" else LINEAR
                product = self._for_left = self._home.backward_product(form, grad, right)
            for_left = product(grad, right)
        if left is None:
            return for_left, None
        product = self._for_right
        if product is None:
            product = self._for_right = self._outer(grad, left)
        return for_left, product(grad, left)

    def _outer(self, grad: Tensor, left: Tensor) -> Backward:
        """What makes the gradient of a right operand of tensors of these shapes."""
        is_transposed = self._right_strides is not None
        if (self.form.letters == "nt") is not is_transposed:  # it is stored [N, K]
            found = self._home.backward_product(OUTER, grad, left)
            return (lambda grad, left: found(grad, left).t()) if is_transposed else found
        turned = self._home.backward_product(OUTER, left, grad)
        if is_transposed:
            return lambda grad, left: turned(left, grad).t()
        return lambda grad, left: turned(left, grad)

    def _bias_fits(self, bias: Tensor) -> bool:
        return (
            type(bias) in PLAIN
            and bias.dtype is self._bias_dtype
            and bias.get_device() == self.place.index
            and bias.shape == self._bias_shape
            and bias.is_contiguous()
            and bool(at := bias.data_ptr())
            and not at & MISALIGNED
            and not bias.is_neg()
        )

    def _slow_launch(self, operands: tuple[Tensor, ...]) -> PreparedLaunch | Fallback:
        """The launch of a call that needs more questions, or why the vendor serves it. It is the first of its shapes,
        or another device is current, or its operands' rows are apart, or not of this dtype and on this device."""
        place, route = self.place, self.route
        why = refusal(operands, (self._dtype, self._dtype, self._bias_dtype), *self._bias_shape, place.where)
        if why is not None:
            return why
        strides = self._strides(operands)
        if isinstance(strides, Fallback):
            return strides
        with place.entered():
            ready = place.make_ready(route)
            if isinstance(ready, Fallback):
                return ready
            prepared = place.strided(route, *strides) if strides and isinstance(route, KernelRoute) else ready

        def launch(*tensors_and_stream: Tensor | int | None) -> None:
            with place.entered():
                prepared(*tensors_and_stream)

        return launch

    def _strides(self, operands: tuple[Tensor, ...]) -> tuple[int, int] | tuple[()] | Fallback:
        """From row to row of either operand; () where all rows are adjacent, or why no kernel takes them so."""
        route = self.route
        found = row_strides(self.form, route.layout, operands[0], operands[1], route.numbers)
        if found is None or not all(each.is_contiguous() for each in operands[2:]):
            return Fallback.STRIDES
        if found == row_lengths(route.layout, route.numbers):
            return ()
        return found if route.takes_strides else Fallback.STRIDES
