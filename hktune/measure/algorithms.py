"""Algorithms of the vendor's libraries, as they are proved and timed: launches on any set of operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hktune.core.errors import DeviceError
from hktune.core.operand import operands_of
from hktune.core.problem import Problem
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device.vendor_library import VendorLibrary
from hktune.measure.arena import OperandSet


def library_of(algorithm: VendorAlgorithm, libraries: Mapping[str, VendorLibrary]) -> VendorLibrary:
    """The library that `algorithm` is of. Raises DeviceError where it is none of `libraries`, which are by name."""
    library = libraries.get(algorithm.library)
    if library is None:
        there = ", ".join(libraries) or "none"
        raise DeviceError(f"{algorithm} needs {algorithm.library}, the vendor's libraries here are: {there}")
    return library


def launching(
    library: VendorLibrary, algorithm: VendorAlgorithm, problem: Problem, stream: int | None = None
) -> Callable[[OperandSet], None]:
    """What puts one launch of `algorithm` on `stream`, for any set of operands of `problem`. It has a workspace of its
    own. Raises DeviceError where the library refuses the algorithm."""
    import torch

    names = tuple(operands_of(problem.operation))
    launch = library.prepare(algorithm, problem, (*names, "workspace"))
    size_bytes = algorithm.workspace_bytes
    workspace = torch.empty(size_bytes, dtype=torch.uint8, device="cuda") if size_bytes else None

    def enqueue(operands: OperandSet) -> None:
        launch(*(operands[name] for name in names), workspace, stream)

    return enqueue
