"""A loaded dispatch table: torch tensors in, the shape's kernel launched, the vendor library for everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function

from hktune.device.device import Device, PreparedLaunch
from hktune.dispatch import Validated
from hktune.dispatch.choice import Choices
from hktune.errors import DeviceError
from hktune.runtime import operators
from hktune.runtime.counts import Counts, Fallback, Stats
from hktune.runtime.operands import ALIGNMENT_BYTES, PLAIN, refusal, row_strides
from hktune.runtime.place import ROUTES_MAX, Place, Route, Shapes
from hktune.runtime.torch_state import (
    as_autocast,
    autocast_done,
    compiling,
    grad_enabled,
    has_dispatch_mode,
    has_function_mode,
    is_capturing,
    is_plain,
    is_transformed,
)
from hktune.runtime.transposes import Transposes

TRANSPOSE_BYTES = 1 << 30
_BF16 = torch.bfloat16
_MISALIGNED = ALIGNMENT_BYTES - 1


class LoadedTable:
    """The usable entries of a table on one device, and on others of its model as their tensors come.

    Kernels are loaded at their first use, or all by `warm`. Calls may come from several threads. Raises DeviceError
    when the device refuses a kernel that validation let pass.
    """

    def __init__(
        self,
        validated: Validated,
        device: Device,
        index: int = -1,
        open_other: Callable[[int], Device] | None = None,
        transpose_cache_bytes: int = TRANSPOSE_BYTES,
    ) -> None:
        """`index` is torch's number of `device`, -1 of the CPU; `open_other` opens the device of another number."""
        self._identity = device.identity
        self._choices = Choices(validated)
        self._validated = validated
        self._open_other = open_other
        self._places: dict[int, Place | None] = {index: self._place(device, index)}
        self._transposes = Transposes(transpose_cache_bytes)
        self._counts = Counts(validated.skipped_by_reason)
        self._vendors: dict[Shapes, Fallback] = {}
        self._number = operators.register(self)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] @ weight [N, K]^T (+ bias [N]) -> [..., N]; leading dimensions count as one M."""
        if compiling():
            return operators.traced_linear(x, weight, bias, self._number)
        return self.eager_linear(x, weight, bias)

    def eager_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`linear` for who knows that no compiler traces it."""
        if not is_plain():
            return self._watched_linear(x, weight, bias)
        if grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
            if x.is_nested:  # it has no shape
                return self._vendor(Fallback.TENSOR_TYPE, x, weight, bias)
            why = self._vendors.get((x.shape, weight.shape, bias is None)) if self._vendors else None
            if why is not None:  # torch records its own products faster than a Function does
                return self._vendor(why, x, weight, bias)
            if bias is None:
                return operators.apply_linear(x, weight, self)  # type: ignore[no-any-return]
            return operators.apply_linear(x, weight, self, bias)  # type: ignore[no-any-return]
        return self.serve_linear(x, weight, bias)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a [..., K] @ b [K, N] -> [..., N], as torch.matmul. A b that is a transposed view of [N, K] is read as it
        lies; another is transposed once it comes back unchanged, and the copy kept while it does (see Transposes)."""
        if compiling():
            return operators.traced_matmul(a, b, self._number)
        return self.eager_matmul(a, b)

    def eager_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` for who knows that no compiler traces it."""
        if not is_plain():
            return self._watched_matmul(a, b)
        if grad_enabled() and (a.requires_grad or b.requires_grad):
            return operators.apply_matmul(a, b, self)  # type: ignore[no-any-return]
        return self.serve_matmul(a, b)

    def warm(self) -> None:
        """Load every kernel now, on each device in use, so that no call does and a graph capture need not."""
        for place in [place for place in self._places.values() if place is not None]:
            with place.entered():
                for entry in self._validated.usable:
                    m, n, k, _, epilogue = entry.problem.key
                    place.make_ready(place.route((m, n, k, epilogue == "none")))

    def stats(self) -> Stats:
        return self._counts.stats()

    def serve_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` outside of dispatcher and autograd."""
        index = x.get_device()
        place = self._places.get(index) or self._other_place(x)
        if place is None:
            return self._vendor(Fallback.DEVICE, x, weight, bias)
        try:
            shapes = (x.shape, weight.shape, bias is None)
        except RuntimeError:  # nested tensors have none
            return self._vendor(Fallback.TENSOR_TYPE, x, weight, bias)
        served = place.served.get(shapes) or place.serve(shapes)
        if served is None:
            return self._vendor(Fallback.SHAPE, x, weight, bias)
        route, out_shape = served
        if route.why is not None:
            self._remember(shapes, route.why)
            return self._vendor(route.why, x, weight, bias)
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
                return self._vendor(found, x, weight, bias)
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

    def _remember(self, shapes: Shapes, why: Fallback) -> None:
        """No kernel will ever serve `shapes`: their next call need not ask."""
        if len(self._vendors) >= ROUTES_MAX:
            self._vendors.clear()
        self._vendors[shapes] = why

    def serve_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` outside of dispatcher and autograd."""
        if b.dim() != 2 or not a.dim():
            return self._vendor_matmul(Fallback.SHAPE, a, b)
        k, n = b.shape
        if b.stride(0) == 1 and b.stride(1) >= k:
            return self.serve_linear(a, b.t(), None)
        place = self._places.get(a.get_device()) or self._other_place(a)
        if place is None:
            return self._vendor_matmul(Fallback.DEVICE, a, b)
        route = place.route((a.numel() // (k or 1), n, k, True))
        why = route.why or refusal((a, b), n, k, place.where)
        if why is not None:
            return self._vendor_matmul(why, a, b)
        # A graph that read a kept copy would not see b change.
        bt = None if is_capturing() else self._transposes.of(b, place.stream())
        return self._vendor_matmul(Fallback.TRANSPOSE, a, b) if bt is None else self.serve_linear(a, bt, None)

    def _watched_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        operands = (x, weight) if bias is None else (x, weight, bias)
        if has_function_mode():
            return handle_torch_function(self.linear, operands, *operands)
        if is_transformed():
            return self._vendor(Fallback.TRANSFORM, x, weight, bias)
        x, weight, bias = as_autocast(x, weight, bias)
        with autocast_done(x):
            if has_dispatch_mode():
                return operators.linear(x, weight, bias, self._number)  # type: ignore[no-any-return]
            return operators.Linear.apply(x, weight, self, bias)  # type: ignore[no-any-return, no-untyped-call]

    def _watched_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        if has_function_mode():
            return handle_torch_function(self.matmul, (a, b), a, b)
        if is_transformed():
            return self._vendor_matmul(Fallback.TRANSFORM, a, b)
        a, b, _ = as_autocast(a, b, None)
        with autocast_done(a):
            if has_dispatch_mode():
                return operators.matmul(a, b, self._number)  # type: ignore[no-any-return]
            return operators.Matmul.apply(a, b, self)  # type: ignore[no-any-return, no-untyped-call]

    def _vendor(self, why: Fallback, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        self._counts.fell_back(why, x, weight)
        return functional.linear(x, weight, bias)

    def _vendor_matmul(self, why: Fallback, a: Tensor, b: Tensor) -> Tensor:
        self._counts.fell_back(why, a, b)
        return torch.matmul(a, b)

    def _place(self, device: Device, index: int) -> Place:
        where = torch.device("cpu") if index < 0 else torch.device("cuda", index)
        return Place(device, where, self._choices, self._validated.objects)

    def _other_place(self, x: Tensor) -> Place | None:
        """The place of a tensor on a GPU that no call came from yet; None where the table does not hold there."""
        index = x.get_device()
        if index not in self._places:
            self._places[index] = None
            if self._open_other is not None and x.is_cuda:
                with torch.cuda.device(index), contextlib.suppress(DeviceError):
                    other = self._open_other(index)
                    if other.identity == self._identity:
                        self._places[index] = self._place(other, index)
        return self._places[index]


def _prepared_slowly(
    place: Place, route: Route, x: Tensor, weight: Tensor, bias: Tensor | None
) -> PreparedLaunch | Fallback:
    """The launch of a call that is the first of its route, whose operands are no contiguous bf16 of this device, or
    that comes while another device is the current one; or why the vendor serves it."""
    n, k = weight.shape
    operands = (x, weight) if bias is None else (x, weight, bias)
    why = route.why or refusal(operands, n, k, place.where)
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
