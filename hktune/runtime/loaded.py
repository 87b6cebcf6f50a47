"""A loaded dispatch table: torch tensors in, the shape's kernel launched, the vendor library for everything else."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hktune.core.errors import DeviceError
from hktune.device.device import Device, PreparedLaunch
from hktune.dispatch import Validated
from hktune.dispatch.calls import CALL_OPERATIONS
from hktune.dispatch.choice import Choices
from hktune.runtime import operators, watched
from hktune.runtime.autocast_cache import as_cached_autocast
from hktune.runtime.call_operations import KERNEL_DTYPES, dtypes_of
from hktune.runtime.counts import Counts, Fallback, Stats
from hktune.runtime.gradients import linear_result, matmul_result
from hktune.runtime.operands import PLAIN
from hktune.runtime.place import Place
from hktune.runtime.prepared_matrix import PreparedMatrix
from hktune.runtime.route import Route
from hktune.runtime.served_place import ServedPlace
from hktune.runtime.served_product import ServedProduct
from hktune.runtime.served_shapes import ServedShapes
from hktune.runtime.torch_state import autocast_dtype, compiling, is_plain, unseen_by_guards

Found = tuple[ServedShapes, ServedProduct, PreparedLaunch]
"""What serves a call: of its shapes, of its dtype too, and the launch for the very operands."""


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
        origin: str = "in memory",
    ) -> None:
        """`index` is torch's number of `device`, -1 of the CPU; `open_other` opens the device of another number;
        `origin` says where the table was read."""
        self._origin = origin
        self._identity = device.identity
        self._choices = Choices(validated)
        self._validated = validated
        self._open_other = open_other
        self._operations = frozenset(entry.problem.operation for entry in validated.usable)
        self._counts = Counts(validated.skipped_by_reason, dtypes_of(self._operations) or KERNEL_DTYPES)
        self._places: dict[int, ServedPlace | None] = {index: self._place(device, index)}
        self._number = operators.register(self)

    def __repr__(self) -> str:
        usable, skipped = self._validated.usable, self._validated.skipped_by_reason
        sources = Counter(str(entry.source) for entry in usable)
        by_source = ", ".join(f"{source}: {count}" for source, count in sorted(sources.items()))
        held = f"{len(usable)} of {len(usable) + sum(skipped.values())} entries usable ({by_source})"
        not_used = "".join(f", {why}: {count}" for why, count in sorted(skipped.items()))
        return f"<hktune table {self._origin} on {self._identity.name}: {held}{not_used}>"

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., K] @ weight [N, K]^T (+ bias [N]) -> [..., N]; leading dimensions count as one M."""
        if compiling():
            return operators.traced_linear(x, weight, bias, self._number)
        out = self.again(x, weight, bias, bias is None)
        if out is not None:
            return out
        if not is_plain():
            return watched.linear(self.linear, self._number, x, weight, bias)
        return self.plain_linear(x, weight, bias)

    def again(self, left: Tensor, right: Tensor, bias: Tensor | None, bare: bool | None) -> Tensor | None:
        """The product of a call that is like one before; None where all questions are to be asked. `bare` as in
        served_place.Shapes."""
        if unseen_by_guards() or type(left) not in PLAIN or type(right) not in PLAIN:
            return None
        place = self._places.get(left.get_device())
        if place is None:
            return None
        try:
            found = place.served.get((left.shape, right.shape, bare))
        except RuntimeError:  # nested tensors have none
            return None
        if type(found) is ServedShapes:  # isinstance takes three times as long to say that a Fallback is none
            out = found.again(left, right, bias)
            if out is not None:
                return out
            found = found.left_to_torch.get(left.dtype)
        if found is None or not is_plain():
            return None
        return self.vendor_matmul(found, left, right) if bare is None else self.vendor_linear(found, left, right, bias)

    def plain_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` where nothing watches. Autograd learns of hktune's product only when its kernel is found."""
        found = self._find(x, weight, bias, bias is None)
        if isinstance(found, Fallback):
            return self.vendor_linear(found, x, weight, bias)
        served, product, launch = found
        served.remember(product, launch, (x, weight, bias))
        return linear_result(product, launch, x, weight, bias)

    def autocast_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` under autocast, which what is left to torch meets with the operands as they came."""
        cast_to = autocast_dtype(x)
        found = self._product(x, weight, bias is None, cast_to)
        if isinstance(found, Fallback):
            return self.vendor_linear(found, x, weight, bias)
        served, product = found
        cast = as_cached_autocast(x, weight, bias)
        launch = product.launch(*cast)
        if isinstance(launch, Fallback):
            return self.vendor_linear(launch, x, weight, bias)
        served.remember(product, launch, (x, weight, bias), cast_to)
        return linear_result(product, launch, *cast)

    def serve_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` below torch's dispatcher and autograd, contiguous as its operator promises."""
        found = self._find(x, weight, bias, bias is None)
        if isinstance(found, Fallback):
            return self.vendor_linear(found, x, weight, bias).contiguous()
        _, product, launch = found
        return product.result(launch, x, weight, bias)

    def vendor_linear(self, why: Fallback, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What torch makes of a call that no kernel serves, for the reason `why`."""
        if why is not Fallback.TENSOR_TYPE:
            self._counts.fell_back(why, x, weight)
            return functional.linear(x, weight, bias)
        out = functional.linear(x, weight, bias)  # a TypeError where an operand is no tensor: nothing is served then
        self._counts.fell_back(why, x, weight)
        return out

    def matmul(self, a: Tensor, b: Tensor | PreparedMatrix) -> Tensor:
        """a [..., K] @ b [K, N] -> [..., N], as torch.matmul. A b that is a transposed view of [N, K] is read as it
        stored, and so is what `prepare` made of one; any other is torch's."""
        if compiling():
            right = b.operand_in_graph() if isinstance(b, PreparedMatrix) else b
            return operators.traced_matmul(a, right, self._number)
        if not isinstance(b, PreparedMatrix):
            out = self.again(a, b, None, None)
            if out is not None:
                return out
        if not is_plain():
            return watched.matmul(self.matmul, self._number, a, b)
        return self.plain_matmul(a, b.operand() if isinstance(b, PreparedMatrix) else b)

    def plain_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` where nothing watches."""
        found = self._find(a, b, None, None)
        if isinstance(found, Fallback):
            return self.vendor_matmul(found, a, b)
        served, product, launch = found
        served.remember(product, launch, (a, b))
        return matmul_result(product, launch, a, b)

    def autocast_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` under autocast."""
        cast_to = autocast_dtype(a)
        found = self._product(a, b, None, cast_to)
        if isinstance(found, Fallback):
            return self.vendor_matmul(found, a, b)
        served, product = found
        a_cast, b_cast, _ = as_cached_autocast(a, b, None)
        launch = product.launch(a_cast, b_cast, None)
        if isinstance(launch, Fallback):
            return self.vendor_matmul(launch, a, b)
        served.remember(product, launch, (a, b), cast_to)
        return matmul_result(product, launch, a_cast, b_cast)

    def serve_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` below torch's dispatcher and autograd, contiguous as its operator promises."""
        found = self._find(a, b, None, None)
        if isinstance(found, Fallback):
            return self.vendor_matmul(found, a, b).contiguous()
        _, product, launch = found
        return product.result(launch, a, b, None)

    def vendor_matmul(self, why: Fallback, a: Tensor, b: Tensor) -> Tensor:
        """As `vendor_linear`."""
        if why is not Fallback.TENSOR_TYPE:
            self._counts.fell_back(why, a, b)
            return torch.matmul(a, b)
        out = torch.matmul(a, b)
        self._counts.fell_back(why, a, b)
        return out

    def warm(self) -> None:
        """Load every kernel that a call can reach now, on each device in use, so that no call does and a graph capture
        need not."""
        problems = [entry.problem for entry in self._validated.usable]
        reached = [problem for problem in problems if problem.operation in CALL_OPERATIONS]
        for served in [served for served in self._places.values() if served is not None]:
            with served.place.entered():
                for problem in reached:
                    route = served.route(problem.key)
                    if isinstance(route, Route):
                        served.place.make_ready(route)

    def stats(self) -> Stats:
        return self._counts.stats()

    def _find(self, left: Tensor, right: Tensor, bias: Tensor | None, bare: bool | None) -> Found | Fallback:
        """The launch that takes these very operands, or why torch does; `bare` as in served_place.Shapes."""
        found = self._product(left, right, bare)
        if isinstance(found, Fallback):
            return found
        launch = found[1].launch(left, right, bias)
        return launch if isinstance(launch, Fallback) else (*found, launch)

    def _product(
        self, left: Tensor, right: Tensor, bare: bool | None, cast_to: torch.dtype | None = None
    ) -> tuple[ServedShapes, ServedProduct] | Fallback:
        """What serves operands of these shapes and of the left one's dtype, or of the one that autocast casts to."""
        served = self._served(left, right, bare)
        if isinstance(served, Fallback):
            return served
        product = served.find(cast_to or left.dtype)
        return product if isinstance(product, Fallback) else (served, product)

    def _served(self, left: Tensor, right: Tensor, bare: bool | None) -> ServedShapes | Fallback:
        """What serves operands of these shapes, or why that is the vendor library."""
        if type(left) not in PLAIN or type(right) not in PLAIN:
            return Fallback.TENSOR_TYPE
        place = self._places.get(left.get_device()) or self._other_place(left)
        if place is None:
            return Fallback.DEVICE
        try:
            shapes = (left.shape, right.shape, bare)
        except RuntimeError:  # nested tensors have none
            return Fallback.TENSOR_TYPE
        return place.served.get(shapes) or place.serve(shapes)

    def _place(self, device: Device, index: int) -> ServedPlace:
        where = torch.device("cpu") if index < 0 else torch.device("cuda", index)
        place = Place(device, where, self._validated.objects)
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
