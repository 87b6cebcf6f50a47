"""What serves one problem, as it is launched: a kernel, or an algorithm of the vendor's library."""

from __future__ import annotations

from copy import copy

from hktune.core.launch import Launch
from hktune.core.operand import operands_of
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Key, Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.device import CALL_OPERANDS, END_OPERANDS, SCALED_OPERANDS, SEVERAL_OPERANDS, Kernel, PreparedLaunch
from hktune.dispatch.choice import Choice
from hktune.runtime.counts import Fallback

_SCALED_SEVERAL_OPERANDS = (*SCALED_OPERANDS[:-1], *SEVERAL_OPERANDS[-2:])
"""Those of several products with scales: where groups end, and the workspace, come last."""


def _operands_of(operation: Operation) -> tuple[str, ...]:
    """What its prepared launches are called with, before the stream."""
    operands = operands_of(operation)
    usual: tuple[str, ...] = SEVERAL_OPERANDS if operation.count else CALL_OPERANDS
    if "scale_a" in operands:
        usual = _SCALED_SEVERAL_OPERANDS if operation.count else SCALED_OPERANDS
    return (*usual, *(name for name in END_OPERANDS if name in operands))


class Route:
    """A table's choice for one key. `prepared` is there once it is ready, and so is the `kernel` of a KernelRoute.
    `near` and `sibling` are those of the table's choice; `operands` what `prepared` is called with, but the stream."""

    __slots__ = ("layout", "near", "numbers", "operands", "prepared", "sibling", "workspace_bytes")

    def __init__(self, key: Key, workspace_bytes: int, near: bool, sibling: bool = False) -> None:
        m, n, k, operation = key
        problem = Problem(m, n, k, operation_of(operation))
        self.layout = problem.operation.layout
        self.numbers = problem.numbers()
        self.operands = _operands_of(problem.operation)
        self.near = near
        self.sibling = sibling
        self.workspace_bytes = workspace_bytes
        self.prepared: PreparedLaunch | None = None

    @property
    def takes_strides(self) -> bool:
        """Whether operands whose rows are apart can be launched too."""
        return False

    @property
    def takes_stacks(self) -> bool:
        """Whether the matrices of a stack may be anywhere, and so may their rows."""
        return False


class KernelRoute(Route):
    """A kernel. `name`: the sha256 of its object, and its symbol."""

    __slots__ = ("kernel", "launch", "name")

    def __init__(self, key: Key, launch: Launch, name: tuple[str, str], near: bool, sibling: bool = False) -> None:
        super().__init__(key, launch.workspace_bytes, near, sibling)
        self.launch = launch
        self.name = name
        self.kernel: Kernel | None = None

    def with_numbers(self, **numbers: int) -> KernelRoute:
        """The same kernel, not ready yet, for launches that pass other numbers."""
        other = copy(self)
        other.numbers, other.prepared = {**self.numbers, **numbers}, None
        return other

    @property
    def takes_strides(self) -> bool:
        return not self.launch.contiguous and self.launch.takes("lda") and self.launch.takes("ldb")

    @property
    def takes_stacks(self) -> bool:
        return not self.launch.contiguous and self.launch.takes("stride_a") and self.launch.takes("stride_b")


class AlgorithmRoute(Route):
    """An algorithm of the vendor's library. `refused`: that library does not take it for this problem."""

    __slots__ = ("algorithm", "problem", "refused")

    def __init__(self, key: Key, algorithm: VendorAlgorithm, sibling: bool = False) -> None:
        super().__init__(key, algorithm.workspace_bytes, near=False, sibling=sibling)
        m, n, k, operation = key
        self.algorithm = algorithm
        self.problem = Problem(m, n, k, operation_of(operation))
        self.refused = False


def route_of(key: Key, choice: Choice | None) -> Route | Fallback:
    """How the choice of a table is launched, or why torch serves `key`."""
    if choice is None:
        return Fallback.NO_ENTRY
    algorithm, kernel = choice.entry.vendor_algorithm, choice.entry.kernel
    if algorithm is not None:
        return AlgorithmRoute(key, algorithm.known, choice.sibling)
    if kernel is None or choice.launch is None:
        return Fallback.VENDOR_CHOSEN
    return KernelRoute(key, choice.launch, (kernel.object_sha256, kernel.symbol), choice.near, choice.sibling)
