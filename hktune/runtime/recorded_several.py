"""What a recording makes of several products: the problem that is to be tuned, or why no table serves them."""

from __future__ import annotations

import torch
from torch import Tensor

from hktune.core.problem import Problem
from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.left_out import why_left_out, why_not_seen


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
    otherwise = f"scaled and {_OTHERWISE}" if call.has_scales else _OTHERWISE
    return (left_out or otherwise) if is_whole else None


_OTHERWISE = "grouped in another way"


def _tuned(call: SeveralCall) -> Problem | None:
    """The problem that a template for the call's device has: NVIDIA's adds products of groups of K to float32 alone,
    and has no scales of batches; its sums of float8 may be fast, and it alone has activations and gates of float8. What
    no kernel does behind the products is torch's, and they are a problem of their own."""
    if not _is_nvidia(call.a):
        is_known = not (call.has_scales and call.steps)
        return (call.problem if is_known else None) or call.products.problem
    if call.has_scales and call.offsets is None:
        return None
    is_known = call.add_to is None or call.c_dtype is torch.float32
    return (call.fastest if is_known else None) or call.products.fastest


def _is_added(problem: Problem, tensor: Tensor) -> bool:
    """Whether a template for the device of `tensor` adds a residual to such products of a batch: all but NVIDIA's want
    A as it is read."""
    return problem.operation.layout[0] == "n" or _is_nvidia(tensor)


def _is_nvidia(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.version.hip is None
