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
from hktune.dispatch.choice import Choices
from hktune.runtime import operators, watched
from hktune.runtime.autocast_cache import as_cached_autocast
from hktune.runtime.counts import Counts, Fallback, Stats
from hktune.runtime.gradients import linear_result, matmul_result
from hktune.runtime.operands import PLAIN
from hktune.runtime.place import Place
from hktune.runtime.prepared_matrix import PreparedMatrix
from hktune.runtime.served_shapes import ServedShapes
from hktune.runtime.torch_state import compiling, is_autocast, is_plain, unseen_by_guards

Found = tuple[ServedShapes, PreparedLaunch]
"""What serves a call, and its launch for the very operands."""


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
        self._counts = Counts(validated.skipped_by_reason)
        self._places: dict[int, Place | None] = {index: self._place(device, index)}
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
        place.Shapes."""
        if unseen_by_guards() or type(left) not in PLAIN or type(right) not in PLAIN:
            return None
        place = self._places.get(left.get_device())
        if place is None:
            return None
        try:
            served = place.served.get((left.shape, right.shape, bare))
        except RuntimeError:  # nested tensors have none
            return None
        if not isinstance(served, Fallback):
            return None if served is None else served.again(left, right, bias)
        if not is_plain():
            return None
        if bare is None:
            return self.vendor_matmul(served, left, right)
        return self.vendor_linear(served, left, right, bias)

    def plain_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` where nothing watches. Autograd is told of a product of hktune's only when its kernel is found."""
        found = self._find(x, weight, bias, bias is None)
        if isinstance(found, Fallback):
            return self.vendor_linear(found, x, weight, bias)
        served, launch = found
        served.remember(launch, (x, weight, bias))
        return linear_result(served, launch, x, weight, bias)

    def autocast_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` under autocast, which what is left to torch meets with the operands as they came."""
        served = self._served(x, weight, bias is None)
        if isinstance(served, Fallback):
            return self.vendor_linear(served, x, weight, bias)
        x_cast, weight_cast, bias_cast = as_cached_autocast(x, weight, bias)
        launch = served.launch(x_cast, weight_cast, bias_cast)
        if isinstance(launch, Fallback):
            return self.vendor_linear(launch, x, weight, bias)
        served.remember(launch, (x, weight, bias), is_autocast=is_autocast(x))
        return linear_result(served, launch, x_cast, weight_cast, bias_cast)

    def serve_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`linear` below torch's dispatcher and autograd, contiguous as its operator promises."""
        found = self._find(x, weight, bias, bias is None)
        if isinstance(found, Fallback):
            return self.vendor_linear(found, x, weight, bias).contiguous()
        served, launch = found
        return served.result(launch, x, weight, bias)

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
        lies, and so is what `prepare` made of one; any other is torch's."""
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
        served, launch = found
        served.remember(launch, (a, b))
        return matmul_result(served, launch, a, b)

    def autocast_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` under autocast."""
        served = self._served(a, b, None)
        if isinstance(served, Fallback):
            return self.vendor_matmul(served, a, b)
        a_cast, b_cast, _ = as_cached_autocast(a, b, None)
        launch = served.launch(a_cast, b_cast, None)
        if isinstance(launch, Fallback):
            return self.vendor_matmul(launch, a, b)
        served.remember(launch, (a, b), is_autocast=is_autocast(a))
        return matmul_result(served, launch, a_cast, b_cast)

    def serve_matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """`matmul` below torch's dispatcher and autograd, contiguous as its operator promises."""
        found = self._find(a, b, None, None)
        if isinstance(found, Fallback):
            return self.vendor_matmul(found, a, b).contiguous()
        served, launch = found
        return served.result(launch, a, b, None)

    def vendor_matmul(self, why: Fallback, a: Tensor, b: Tensor) -> Tensor:
        """As `vendor_linear`."""
        if why is not Fallback.TENSOR_TYPE:
            self._counts.fell_back(why, a, b)
            return torch.matmul(a, b)
        out = torch.matmul(a, b)
        self._counts.fell_back(why, a, b)
        return out

    def warm(self) -> None:
        """Load every kernel now, on each device in use, so that no call does and a graph capture need not."""
        for place in [place for place in self._places.values() if place is not None]:
            with place.entered():
                for entry in self._validated.usable:
                    problem = entry.problem
                    place.make_ready(place.route((problem.m, problem.n, problem.k, not problem.operation.has_bias)))

    def stats(self) -> Stats:
        return self._counts.stats()

    def _find(self, left: Tensor, right: Tensor, bias: Tensor | None, bare: bool | None) -> Found | Fallback:
        """The launch that takes these very operands, or why torch does; `bare` as in place.Shapes."""
        served = self._served(left, right, bare)
        if isinstance(served, Fallback):
            return served
        launch = served.launch(left, right, bias)
        return launch if isinstance(launch, Fallback) else (served, launch)

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
