"""The kernel that serves one problem, as it is launched."""

from __future__ import annotations

from hktune.core.launch import Launch
from hktune.core.operation import operation_of
from hktune.core.problem import Key
from hktune.device.device import Kernel, PreparedLaunch
from hktune.dispatch.choice import Choice
from hktune.runtime.counts import Fallback
from hktune.runtime.operands import row_lengths


class Route:
    """A table's kernel for one key; `prepared` and `kernel` are there once it is loaded. `name`: the sha256 of its
    object, and its symbol. `near` and `sibling` are those of the table's choice."""

    __slots__ = ("kernel", "launch", "layout", "name", "near", "numbers", "prepared", "sibling", "workspace_bytes")

    def __init__(self, key: Key, launch: Launch, name: tuple[str, str], near: bool, sibling: bool = False) -> None:
        m, n, k, operation = key
        sizes = {"m": m, "n": n, "k": k}
        self.layout = operation_of(operation).layout
        lda, ldb = row_lengths(self.layout, sizes)
        self.numbers = {**sizes, "lda": lda, "ldb": ldb, "ldc": n}
        self.launch = launch
        self.name = name
        self.near = near
        self.sibling = sibling
        self.workspace_bytes = launch.workspace_bytes
        self.prepared: PreparedLaunch | None = None
        self.kernel: Kernel | None = None

    @property
    def takes_strides(self) -> bool:
        return not self.launch.contiguous and self.launch.takes("lda") and self.launch.takes("ldb")


def route_of(key: Key, choice: Choice | None) -> Route | Fallback:
    """How the choice of a table is launched, or why the vendor library serves `key`."""
    if choice is None:
        return Fallback.NO_ENTRY
    kernel = choice.entry.kernel
    if kernel is None or choice.launch is None:
        return Fallback.VENDOR_CHOSEN
    return Route(key, choice.launch, (kernel.object_sha256, kernel.symbol), choice.near, choice.sibling)
