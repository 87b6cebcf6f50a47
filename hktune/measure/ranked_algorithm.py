"""The algorithms of a vendor's library as baselines: by their rank in the library's own order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hktune.core.errors import DeviceError
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.vendor_library import VendorLibrary
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import check_steps

RANKS = 8
"""So many of a library are baselines of every problem."""


@dataclass(frozen=True)
class RankedAlgorithm:
    """Baseline: the algorithm that `library` names at `rank` (0: its own pick)."""

    library: VendorLibrary
    rank: int

    @property
    def name(self) -> str:
        return f"{self.library.name} algorithm {self.rank}"

    def prepare(self, problem: Problem, operands: OperandSet, stream: int) -> Callable[[OperandSet], None]:
        """See Baseline. Raises DeviceError when the library names fewer algorithms."""
        check_steps(problem.operation)
        algorithms = self.library.algorithms(problem)
        if self.rank >= len(algorithms):
            there = f"{self.library.name} names {len(algorithms)} algorithms for {problem}"
            raise DeviceError(f"{there}: ask for one of those")
        algorithm = algorithms[self.rank]
        enqueue = enqueuing(self.library, algorithm, problem, operands, stream)
        enqueue(operands)
        return enqueue


def enqueuing(
    library: VendorLibrary, algorithm: VendorAlgorithm, problem: Problem, operands: OperandSet, stream: int
) -> Callable[[OperandSet], None]:
    """What puts one launch of `algorithm` on `stream`, for any set of operands like these. It has a workspace of its
    own. Raises DeviceError where the library refuses the algorithm."""
    import torch

    launch = library.prepare(algorithm, problem)
    size_bytes, where = algorithm.workspace_bytes, operands["c"].device
    workspace = torch.empty(size_bytes, dtype=torch.uint8, device=where) if size_bytes else None

    def enqueue(operands: OperandSet) -> None:
        launch(operands["a"], operands["b"], operands["c"], operands.get("bias"), workspace, stream)

    return enqueue
