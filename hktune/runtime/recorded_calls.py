"""What a recording makes of a call: the problem that is to be tuned for it, or why no table serves it."""

from __future__ import annotations

import torch
from torch import Tensor

from hktune.core.problem import Problem
from hktune.runtime.calls.call_operations import KERNEL_DTYPES
from hktune.runtime.calls.operands import PLAIN
from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.torch_state import is_transformed


def why_left_out(tensor: Tensor) -> str | None:
    """What keeps a table from serving products of `tensor`, in a word; None where nothing does."""
    return why_not_seen(tensor) or (None if tensor.dtype in KERNEL_DTYPES else name_of(tensor.dtype))


def why_not_seen(tensor: Tensor) -> str | None:
    """The same of what a tensor is, whatever numbers it holds."""
    if is_transformed():
        return "transformed or traced"
    if type(tensor) not in PLAIN:
        return type(tensor).__name__
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    return None


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def several_problem(call: SeveralCall | None) -> Problem | str | None:
    """Of a batched or a grouped product; None for a batch of which no kernel is, and where there is nothing to do.
    A shapes file with what a template cannot do is refused as a whole, so that is none."""
    if call is None:
        return _OTHERWISE
    why = why_not_seen if call.has_scales else why_left_out
    left_out = next(filter(None, map(why, (call.a, call.b))), None)
    problem = None if left_out else _tuned(call)
    if problem is not None and problem.operation.has_residual and not _is_added(problem, call.a):
        return f"added to products in {problem.operation.layout}"
    if problem is not None:
        return problem
    is_whole = (call.offsets is not None or call.has_scales) and 0 not in (call.sizes or ())
    return (left_out or _OTHERWISE) if is_whole else None


_OTHERWISE = "grouped in another way"


def _tuned(call: SeveralCall) -> Problem | None:
    """The problem that a template for the call's device has: NVIDIA's has no grouped scales and steps. What no kernel
    does behind the products is torch's, and they are a problem of their own."""
    is_nvidia = _is_nvidia(call.a)
    if call.has_scales:
        return None if is_nvidia else call.problem
    return (None if is_nvidia and call.steps else call.problem) or call.products.problem


def _is_added(problem: Problem, tensor: Tensor) -> bool:
    """Whether a template for the device of `tensor` adds a residual to such products of a batch: all but NVIDIA's want
    A as it is read."""
    return problem.operation.layout[0] == "n" or _is_nvidia(tensor)


def _is_nvidia(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.version.hip is None
