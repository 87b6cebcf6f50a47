"""A loaded dispatch table: torch tensors in, the shape's kernel launched, the vendor library for everything else."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hktune.core.errors import DeviceError
from hktune.device.device import Device, PreparedLaunch
from hktune.device.vendor_libraries import open_vendor_library
from hktune.device.vendor_library import VendorLibrary
from hktune.dispatch import Validated
from hktune.dispatch.calls import CALL_OPERATIONS
from hktune.runtime import activated_operator, finished, operators, watched
from hktune.runtime.autocast_cache import as_cached_autocast
from hktune.runtime.calls.call_operations import KERNEL_DTYPES, dtypes_of
from hktune.runtime.calls.forms import LINEAR, LINEAR_BIAS, MATMUL, Form, activated, linear_form
from hktune.runtime.calls.gradients import asks_gradient, recorded_result
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.calls.scaled_call import ScaledCall, by_torch
from hktune.runtime.calls.several_by_torch import by_torch as several_by_torch
from hktune.runtime.calls.several_by_torch import finished as several_finished
from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.counts import Counts, Fallback, Stats
from hktune.runtime.serving.place import Place
from hktune.runtime.serving.route import Route
from hktune.runtime.serving.served_place import ServedPlace
from hktune.runtime.serving.served_product import ServedProduct
from hktune.runtime.serving.served_shapes import ServedShapes
from hktune.runtime.serving.table_entries import TableEntries
from hktune.runtime.torch_state import autocast_dtype, compiling, is_plain, unseen_by_guards

Found = tuple[ServedShapes, ServedProduct, PreparedLaunch]
"""What serves a call: of its shapes, of its dtype too, and the launch for the very operands."""


class LoadedTable(TableEntries):
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
        origin: str = "in memory",
        open_library: Callable[[str], VendorLibrary] | None = None,
    ) -> None:
        """`index` is torch's number of `device`, -1 of the CPU; `open_other` opens the device of another number;
        `origin` says where the table was read; `open_library` opens the vendor's library of a name for the thread's
        current GPU: by default those of the device's kind."""
        super().__init__(validated)
        self._origin = origin
        self._identity = device.identity
        self._open_other = open_other
        self._open_library = open_library or partial(open_vendor_library, device.identity.kind)
        self._counts = Counts(validated.skipped_by_reason, dtypes_of(self._operations) or KERNEL_DTYPES)
        self._places: dict[int, ServedPlace | None] = {index: self._place(device, index)}
        self._number = operators.register(self)

    def __repr__(self) -> str:
        usable, skipped = self._validated.usable, self._validated.skipped_by_reason
        sources = Counter(str(entry.source) for entry in usable)
        by_source = ", ".join(f"{source}: {count}" for source, count in sorted(sources.items()))
        held = f"{len(usable)} of {len(usable) + sum(skipped.values())} entries usable ({by_source})"
        siblings = len(self._validated.of_sibling)
        of_sibling = f", made on a sibling board: {siblings}" if siblings else ""
        not_used = "".join(f", {why}: {count}" for why, count in sorted(skipped.items()))
        return f"<hktune table {self._origin} on {self._identity.name}: {held}{of_sibling}{not_used}>"

    def linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str | None = None,
        residual: Tensor | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        out_dtype: torch.dtype | None = None,
        out_scale: Tensor | None = None,
    ) -> Tensor:
        """x [..., K] @ weight [N, K]^T (+ bias [N]) -> [..., N], and what else hktune.linear does; leading dimensions
        count as one M. Raises InputError as that does."""
        if residual is not None or not alpha == beta == 1 or out_dtype is not None or out_scale is not None:
            ends = (alpha, beta, out_dtype, out_scale)
            return finished.linear(self.linear, self._number, x, weight, bias, activation, residual, *ends)
        if compiling():
            return activated_operator.traced_linear(x, weight, bias, self._number, activation)
        form = LINEAR if bias is None else LINEAR_BIAS
        if activation is not None:
            if asks_gradient(x, weight, bias):
                return activated(activation, self.linear(x, weight, bias))
            form = linear_form(bias, activation)
        out = self.again(form, x, weight, bias)
        if out is not None:
            return out
        if not is_plain():
            return watched.linear(self.linear, self._number, x, weight, bias, activation)
        return self.plain(form, x, weight, bias)

    def gated_linear(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = "silu",
        *,
        interleaved: bool = False,
        out_dtype: torch.dtype | None = None,
        out_scale: Tensor | None = None,
    ) -> Tensor:
        """See hktune.gated_linear."""
        plain, ends = self.linear, (interleaved, out_dtype, out_scale)
        return finished.gated_linear(self.gated_linear, plain, self._number, x, weight, bias, activation, *ends)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """a [..., K] @ b [K, N] -> [..., N], as torch.matmul. Either operand is read as it is stored, if the table has
        a kernel that reads it so."""
        if compiling():
            return operators.traced_matmul(a, b, self._number)
        out = self.again(MATMUL, a, b, None)
        if out is not None:
            return out
        if not is_plain():
            return watched.matmul(self.matmul, self._number, a, b)
        return self.plain(MATMUL, a, b, None)

    def again(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor | None:
        """The product of a call that is like one before; None where all questions are to be asked."""
        if unseen_by_guards() or type(left) not in PLAIN or type(right) not in PLAIN:
            return None
        place = self._places.get(left.get_device())
        if place is None:
            return None
        try:
            found = place.served.get((left.shape, right.shape, form))
        except RuntimeError:  # nested tensors have none
            return None
        if type(found) is ServedShapes:  # isinstance takes three times as long to say that a Fallback is none
            out = found.again(left, right, bias)
            if out is not None:
                return out
            found = found.left_to_torch.get(left.dtype)
        if found is None or not is_plain():
            return None
        return self.vendor(found, form, left, right, bias)

    def plain(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The product where nothing watches. Autograd learns of hktune's only when its kernel is found."""
        found = self._find(form, left, right, bias)
        if isinstance(found, Fallback):
            return self.vendor(found, form, left, right, bias)
        served, product, launch = found
        served.remember(product, launch, (left, right, bias))
        return recorded_result(product, launch, left, right, bias)

    def autocast(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The product under autocast, which what is left to torch meets with the operands as they came."""
        cast_to = autocast_dtype(left)
        served = self._served(form, left, right)
        if not isinstance(served, Fallback) and cast_to is not None:
            served = served.left_to_torch.get(cast_to, served)
        if isinstance(served, Fallback):
            return self.vendor(served, form, left, right, bias)
        cast = as_cached_autocast(left, right, bias)
        found = served.find(cast[0].dtype, *cast)
        if isinstance(found, Fallback):
            return self.vendor(found, form, left, right, bias)
        product, launch = found
        served.remember(product, launch, (left, right, bias), cast_to)
        return recorded_result(product, launch, *cast)

    def finished(
        self,
        form: Form,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        alpha: float = 1.0,
        beta: float = 1.0,
        out_scale: Tensor | None = None,
    ) -> Tensor | Fallback:
        """A linear with what is behind it, by one kernel, below autograd; or why there is none that takes these."""
        found = self._find(form, x, weight, bias)
        if isinstance(found, Fallback):
            return found
        _, product, launch = found
        ends = product.ends(residual, alpha, beta, out_scale)
        return ends if isinstance(ends, Fallback) else product.result(launch, x, weight, bias, None, *ends)

    def serve(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """The product below torch's dispatcher and autograd, contiguous as its operator promises."""
        found = self._find(form, left, right, bias)
        if isinstance(found, Fallback):
            return self.vendor(found, form, left, right, bias).contiguous()
        _, product, launch = found
        return product.result(launch, left, right, bias)

    def vendor(self, why: Fallback, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        """What torch makes of a call that no kernel serves, for the reason `why`. The product before an activation is
        another call, which a kernel may serve."""
        if form.activation:
            return activated(form.activation, self.linear(left, right, bias))
        if why is not Fallback.TENSOR_TYPE:
            self._counts.fell_back(why, left, right)
            return self._counts.by_torch(why, form.vendor, left, right, bias)
        # A TypeError where an operand is no tensor: nothing is served then.
        out = self._counts.by_torch(why, form.vendor, left, right, bias)
        self._counts.fell_back(why, left, right)
        return out

    @property
    def dispatch_key(self) -> str:
        """What torch's dispatcher calls the table's device."""
        return "CPU" if self._identity.kind == "emulated" else "CUDA"

    def enabled(self, is_on: bool) -> None:
        """That torch's own products are asked of the table from now on, or no more."""
        self._counts.is_enabled = is_on

    def below(
        self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor | None = None
    ) -> Tensor | None:
        """The product as a kernel of torch's dispatcher has it, below autograd and whatever watches; into `out` if
        there is one. None where torch's own is to be called."""
        place = self._places.get(left.get_device()) or self._other_place(left)
        return None if place is None else place.below(form, left, right, bias, out)

    def added(self, form: Form, left: Tensor, right: Tensor, to: Tensor, out: Tensor | None = None) -> Tensor | None:
        """`to` and the product, as `below` has one; `out` may be `to`."""
        place = self._places.get(left.get_device()) or self._other_place(left)
        return None if place is None else place.added(form, left, right, to, out)

    def factored(
        self, left: Tensor, right: Tensor, to: Tensor, alpha: float, beta: float, out: Tensor | None = None
    ) -> Tensor | None:
        """`beta` times `to` and `alpha` times the product, as `below` has one."""
        place = self._places.get(left.get_device()) or self._other_place(left)
        return None if place is None else place.factored(left, right, to, alpha, beta, out)

    def scaled_mm(self, call: ScaledCall) -> Tensor:
        """torch's scaled product, where nothing watches."""
        found = self._scaled(call)
        if not isinstance(found, Fallback):
            return found
        out = self._counts.by_torch(found, by_torch, call)  # a TypeError where an operand is no tensor, as torch has it
        self._counts.fell_back(found, call.a, call.b)
        return out

    def finished_scaled(self, call: ScaledCall) -> Tensor | Fallback:
        """torch's scaled product with what is behind it, by one kernel; or why there is none, which is not counted."""
        return self._scaled(call)

    def below_scaled(self, call: ScaledCall, out: Tensor | None = None) -> Tensor | None:
        """The same as `below` has a product."""
        return self._counted_below(self._scaled(call, out))

    def _scaled(self, call: ScaledCall, out: Tensor | None = None) -> Tensor | Fallback:
        place = self._place_of(call.a, call.tensors)
        return place if isinstance(place, Fallback) else place.scaled.product(call, out)

    def several(self, call: SeveralCall) -> Tensor:
        """torch's batched or grouped product, where nothing watches. What is before steps is another call, which a
        kernel may serve."""
        found = self.several_by_kernel(call)
        return self.vendor_several(found, call) if isinstance(found, Fallback) else found

    def vendor_several(self, why: Fallback, call: SeveralCall) -> Tensor:
        """What torch makes of such a call that no kernel serves, for the reason `why`."""
        if call.is_finished:
            return several_finished(self.several(call.products), call)
        if why is not Fallback.TENSOR_TYPE:
            self._counts.fell_back(why, call.a, call.b)
            return self._counts.by_torch(why, several_by_torch, call)
        # A TypeError where an operand is no tensor: nothing is served then.
        out = self._counts.by_torch(why, several_by_torch, call)
        self._counts.fell_back(why, call.a, call.b)
        return out

    def backward_several(self, call: SeveralCall) -> Tensor:
        """The same in a backward pass: no warning speaks of it, and what has no entry is not counted."""
        found = self.several_by_kernel(call)
        if not isinstance(found, Fallback):
            return found
        if found is Fallback.NO_ENTRY:
            return several_by_torch(call)
        self._counts.left_to_torch(found)
        return self._counts.by_torch(found, several_by_torch, call)

    def below_several(self, call: SeveralCall, out: Tensor | None = None) -> Tensor | None:
        """The same as `below` has a product."""
        return self._counted_below(self.several_by_kernel(call, out))

    def below_grouped(
        self, call: SeveralCall, before: Callable[..., Tensor], *operands: object, **named: object
    ) -> Tensor:
        """The same of groups, or what torch's own `before` makes of these operands: it may end in a product of each
        group, which are all one call."""
        found = self.several_by_kernel(call)
        self._counted_below(found)
        return (
            self._counts.by_torch(found, partial(before, *operands, **named)) if isinstance(found, Fallback) else found
        )

    def several_by_kernel(self, call: SeveralCall, out: Tensor | None = None) -> Tensor | Fallback:
        """The product below autograd, into `out` if there is one; or why torch is to be called."""
        place = self._place_of(call.a, call.tensors)
        return place if isinstance(place, Fallback) else place.several.product(call, out)

    def _place_of(self, left: Tensor, tensors: tuple[Tensor, ...]) -> ServedPlace | Fallback:
        """What serves a call on these tensors, `left` among them; or why nothing does."""
        if any(type(each) not in PLAIN for each in tensors):
            return Fallback.TENSOR_TYPE
        return self._places.get(left.get_device()) or self._other_place(left) or Fallback.DEVICE

    def _counted_below(self, found: Tensor | Fallback) -> Tensor | None:
        """What torch's own call gets: the product, or None where torch's own is to be called."""
        if isinstance(found, Fallback):
            self._counts.torchs_own_left(found)
            return None
        self._counts.torchs_own_served()
        return found

    def warm(self) -> None:
        """Load every kernel that a call can reach now, on each device in use, so that no call does and a graph capture
        need not. Algorithms of the vendor's libraries are launched once."""
        problems = [entry.problem for entry in self._validated.usable]
        reached = [problem for problem in problems if problem.operation.of_any_count in CALL_OPERATIONS]
        for served in [served for served in self._places.values() if served is not None]:
            with served.place.entered():
                for problem in reached:
                    route = served.route(problem.key)
                    if isinstance(route, Route):
                        served.place.warm(route)

    def stats(self) -> Stats:
        return self._counts.stats()

    def _find(self, form: Form, left: Tensor, right: Tensor, bias: Tensor | None) -> Found | Fallback:
        """The launch that takes these very operands, or why torch does."""
        served = self._served(form, left, right)
        if isinstance(served, Fallback):
            return served
        found = served.find(left.dtype, left, right, bias)
        return found if isinstance(found, Fallback) else (served, *found)

    def _served(self, form: Form, left: Tensor, right: Tensor) -> ServedShapes | Fallback:
        """What serves operands of these shapes, or why that is the vendor library."""
        if type(left) not in PLAIN or type(right) not in PLAIN:
            return Fallback.TENSOR_TYPE
        place = self._places.get(left.get_device()) or self._other_place(left)
        if place is None:
            return Fallback.DEVICE
        try:
            shapes = (left.shape, right.shape, form)
        except RuntimeError:  # nested tensors have none
            return Fallback.TENSOR_TYPE
        return place.served.get(shapes) or place.serve(shapes)

    def _place(self, device: Device, index: int) -> ServedPlace:
        where = torch.device("cpu") if index < 0 else torch.device("cuda", index)
        place = Place(device, where, self._validated.objects, self._open_library)
        return ServedPlace(place, self._choices, self._operations, self._counts)

    def _other_place(self, x: Tensor) -> ServedPlace | None:
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
