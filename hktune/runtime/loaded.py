"""A loaded dispatch table: torch tensors in, the shape's kernel launched, the vendor library for everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from hktune.device.device import Device
from hktune.dispatch import Validated
from hktune.dispatch.choice import Choices
from hktune.errors import DeviceError
from hktune.runtime import operators
from hktune.runtime.counts import Counts, Fallback, Stats
from hktune.runtime.operands import refusal
from hktune.runtime.place import Place
from hktune.runtime.served_shapes import ServedShapes, vendor_linear
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
        self._counts = Counts(validated.skipped_by_reason)
        self._places: dict[int, Place | None] = {index: self._place(device, index)}
        self._transposes = Transposes(transpose_cache_bytes)
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
        served = self._served(x, weight, bias)
        if isinstance(served, Fallback):  # torch records its own product faster than a Function does
            return vendor_linear(self._counts, served, x, weight, bias)
        if grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
            if bias is None:
                return operators.apply_linear(x, weight, served)  # type: ignore[no-any-return]
            return operators.apply_linear(x, weight, served, bias)  # type: ignore[no-any-return]
        return served.serve_linear(x, weight, bias)

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
        served = self._served(x, weight, bias)
        if isinstance(served, Fallback):
            return vendor_linear(self._counts, served, x, weight, bias)
        return served.serve_linear(x, weight, bias)

    def _served(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> ServedShapes | Fallback:
        """What serves a call of these shapes, or why that is the vendor library."""
        place = self._places.get(x.get_device()) or self._other_place(x)
        if place is None:
            return Fallback.DEVICE
        try:
            shapes = (x.shape, weight.shape, bias is None)
        except RuntimeError:  # nested tensors have none
            return Fallback.TENSOR_TYPE
        return place.served.get(shapes) or place.serve(shapes)

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
            return vendor_linear(self._counts, Fallback.TRANSFORM, x, weight, bias)
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

    def _vendor_matmul(self, why: Fallback, a: Tensor, b: Tensor) -> Tensor:
        self._counts.fell_back(why, a, b)
        return torch.matmul(a, b)

    def _place(self, device: Device, index: int) -> Place:
        where = torch.device("cpu") if index < 0 else torch.device("cuda", index)
        return Place(device, where, self._choices, self._validated.objects, self._counts)

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
