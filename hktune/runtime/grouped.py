"""`hktune.grouped_mm` and its gradients; `hktune.gated_grouped_mm`, and `hktune.scaled_grouped_mm`, which has none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from hktune.core.errors import InputError
from hktune.runtime import grouped_operator
from hktune.runtime.calls.given import check_bool, check_dtype, check_tensors
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.several_by_torch import by_torch, checked, finished, steps_of
from hktune.runtime.calls.several_call import SeveralCall
from hktune.runtime.calls.several_operators import call_with_scales
from hktune.runtime.counts import Fallback
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.torch_state import compiling, grad_enabled, is_plain, is_transformed


def grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor,
    *,
    activation: str | None = None,
    bias: Tensor | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """As torch._grouped_mm, by the current table: the rows of `a` [M, K] are in groups, one after another, and each is
    multiplied by a matrix of its own, of `b` [G, K, N]. `offs`, int32 [G], has the row behind the last of each group.

    `b` is read as it is stored: contiguous, or the transposed view of weights [G, N, K]. The gradient of `a` is such a
    product too; that of `b` is one of groups of K (`grouped8.bf16.tn`). What the table does not have is torch's. Rows
    behind the last group hold anything, and so do those of the gradient of `a`, as torch leaves them.

    Where `b` is [K, N] groups are of K, and the product is [G, M, N]. That is the gradient of such weights. It is added
    to `add_to` [G, M, N], of the dtype of `a` or float32, if there is one: in place, and that is returned. What a group
    without any K would be added to stays as it is. By a kernel the sum is rounded once; by torch the product is, too.

    `bias` [G, N], of the dtype of `a`, has a row for each group. `activation` is one of hktune.linear. Both are done by
    the same kernel where the table has one, in float32 before the one rounding. Else, and where a gradient is asked,
    they are torch's own of the product.

    Raises TableError when no table is loaded. Raises InputError, one line, for an activation that is not known, for a
    `bias` or an `add_to` that is none of these, and for an `add_to` where a gradient is asked.
    """
    _check(a, b, offs)
    if add_to is not None:
        return _added(SeveralCall(a, b, offs, steps=_steps_of(activation), add_to=add_to, bias=bias))
    if activation is not None or bias is not None:
        return _finished(checked("grouped_mm", SeveralCall(a, b, offs, steps=_steps_of(activation), bias=bias)))
    return _product(SeveralCall(a, b, offs))


def _steps_of(activation: str | None) -> tuple[str, ...]:
    return () if activation is None else steps_of(activation)


def gated_grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor,
    activation: str | None = "silu",
    *,
    interleaved: bool = False,
    bias: Tensor | None = None,
    scale_a: Tensor | None = None,
    scale_b: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """`activation` of a gate, times what it gates, of a grouped product: a [M, K], b [G, K, 2N] -> [M, N].

    `b` is read as it is stored, as that of `grouped_mm` is: contiguous, or the transposed view of weights [G, 2N, K].
    Of each matrix the first N columns make the gates, the others what these gate; with `interleaved` the columns of
    both take turns: gate 0, up 0, gate 1, up 1. `bias` [G, 2N], of the dtype of `a`, has a row for each group, and its
    columns are in the order of those of `b`. With silu this is SwiGLU, with gelu_tanh or gelu GeGLU; None leaves the
    gate as it is. One kernel does it where the table has one, in float32 before the one rounding. Else, and where a
    gradient is asked, the product is a call of `grouped_mm`, and the rest torch's own.

    With scales `a`, `b`, `out_dtype` (None is bfloat16) and `use_fast_accum` are those of `scaled_grouped_mm`, and
    `bias` is of `out_dtype`. `scale_a` is [M], and `scale_b` [G, 2N], in the order of the columns of `b`. Without a
    kernel the product is a call of `scaled_grouped_mm`, rounded to `out_dtype`. No gradient of it is recorded.

    Raises TableError when no table is loaded. Raises InputError for an activation that is not known, for a `bias` or
    scales that are none of these, for one scale alone, and for matrices with an odd number of columns.
    """
    name = "gated_grouped_mm"
    check_bool(name, "interleaved", interleaved)
    check_dtype(name, "out_dtype", out_dtype)
    check_bool(name, "use_fast_accum", use_fast_accum)
    steps = steps_of(activation, "gated_interleaved" if interleaved else "gated")
    if scale_a is not None and scale_b is not None:
        _check_scaled(a, b, scale_a, scale_b, offs)
        how = (out_dtype or torch.bfloat16, use_fast_accum, bias, steps)
        return _scaled(checked(name, call_with_scales(a, b, scale_a, scale_b, offs, *how)))
    if any(each is not None for each in (scale_a, scale_b, out_dtype)) or use_fast_accum:
        raise InputError(f"{name}: scale_a, scale_b, out_dtype and use_fast_accum go together: pass both scales")
    _check(a, b, offs)
    return _finished(checked(name, SeveralCall(a, b, offs, steps=steps, bias=bias)))


def scaled_grouped_mm(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    offs: Tensor | None = None,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    use_fast_accum: bool = False,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """As torch._scaled_grouped_mm, by the current table: a grouped product of float8_e4m3fn, or of int8, with a scale
    of each row of `a` and of each column of each matrix of `b`. It is summed and scaled in float32, and rounded once.

    `a` [M, K] is contiguous, and `b` [G, K, N] the transposed view of contiguous weights [G, N, K]. `scale_a` [M] and
    `scale_b` [G, N] are contiguous, and float32. `offs` is that of `grouped_mm`, and rows behind the last group hold
    anything. Without `offs` there is a product for each matrix of `a` [G, M, K], whose `scale_a` is [G, M].
    `out_dtype` is bfloat16, float16 or float32. `bias` [G, N], of this dtype, has a row for each group; it goes with
    `offs`. With `use_fast_accum` sums may be as fast, and as inexact, as NVIDIA's tensor cores make them: a kernel
    with such is taken where the table has one, and else an exact one. `activation` is one of hktune.linear. A kernel
    does it in float32 before the one rounding. Without one it is torch's own of the product.

    What the table does not have is torch's own, which is for float8 on GPUs. For others it is computed product by
    product, of which a GPU's host waits for `offs`. No gradient is recorded: torch has none either.

    Raises TableError when no table is loaded. Raises InputError, one line, for an activation that is not known, and for
    operands and scales that are none of these, where torch has no such product to refuse them.
    """
    _check_scaled(a, b, scale_a, scale_b, offs)
    check_dtype("scaled_grouped_mm", "out_dtype", out_dtype)
    check_bool("scaled_grouped_mm", "use_fast_accum", use_fast_accum)
    how = (out_dtype or torch.bfloat16, use_fast_accum, bias, _steps_of(activation))
    return _scaled(checked("scaled_grouped_mm", call_with_scales(a, b, scale_a, scale_b, offs, *how)))


def _check_scaled(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, offs: Tensor | None) -> None:
    needed = (a, b, scale_a, scale_b)
    check_tensors(partial(torch._scaled_grouped_mm, *needed, offs=offs), *needed, perhaps=(offs,))


def _scaled(call: SeveralCall) -> Tensor:
    """A grouped product with scales, and perhaps more behind."""
    asks = asks_gradient(call.a, call.b, call.scale_a, call.scale_b, call.bias)
    if compiling():
        return by_torch(call) if asks else grouped_operator.traced_scaled(call)
    if is_plain():
        table = grouped_operator.current_table()
        return by_torch(call) if asks else table.several(call)
    noted = grouped_operator.noted_without_table(call)
    if noted is not None:
        return noted
    return by_torch(call) if asks else grouped_operator.scaled_grouped_mm(call)


def _check(a: Tensor, b: Tensor, offs: Tensor) -> None:
    check_tensors(partial(torch._grouped_mm, a, b, offs=offs), a, b, perhaps=(offs,))


def _product(call: SeveralCall) -> Tensor:
    """A grouped product with nothing behind."""
    if compiling() or not is_plain():
        return by_torch(call)  # which `enable` has asked of the table, in a compiled graph too
    table = grouped_operator.current_table()
    if asks_gradient(call.a, call.b):
        if call.divides_k:
            return by_torch(call)
        found = table.several_by_kernel(call)
        if isinstance(found, Fallback):
            return table.vendor_several(found, call)  # with torch's gradient, which takes what torch takes
        return _taped(call.a, call.b, call.offsets, table, [found])
    return table.several(call)


def _added(call: SeveralCall) -> Tensor:
    """Groups of K, added to what is there."""
    checked("grouped_mm", call)
    if asks_gradient(call.a, call.b, call.add_to):
        raise InputError("grouped_mm: add_to records no gradient: call it under torch.no_grad()")
    if compiling():
        return grouped_operator.traced_finished(call)
    if is_plain():
        return grouped_operator.current_table().several(call)
    if is_transformed():
        return finished(_product(call.products), call)
    noted = grouped_operator.noted_without_table(call)
    if noted is None:
        grouped_operator.grouped_added(call.add_to, *call[:3])
    assert call.add_to is not None, "what is added to"
    return call.add_to


def _finished(call: SeveralCall) -> Tensor:
    """A grouped product with a bias, gates or an activation behind."""
    if compiling():
        return grouped_operator.traced_finished(call)
    asks = asks_gradient(call.a, call.b, call.bias)
    if is_plain() and not asks:
        return grouped_operator.current_table().several(call)
    if asks or is_transformed():
        return finished(_product(call.products), call)
    noted = grouped_operator.noted_without_table(call)
    if noted is not None:
        return noted
    return grouped_operator.grouped_finished(call.a, call.b, call.offsets, list(call.steps), call.bias)


class _Context(Protocol):
    needs_input_grad: tuple[bool, ...]
    table: LoadedTable

    @property
    def saved_tensors(self) -> tuple[Tensor, Tensor, Tensor]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Grouped(torch.autograd.Function):
    """A grouped product by a kernel, of which somebody will ask a gradient. It is made already, and is all of `made`:
    a list, of which autograd asks nothing."""

    @staticmethod
    def forward(ctx: _Context, a: Tensor, b: Tensor, offs: Tensor, table: LoadedTable, made: list[Tensor]) -> Tensor:
        ctx.save_for_backward(a, b, offs)
        ctx.table = table
        return made.pop()

    @staticmethod
    def backward(ctx: _Context, *grads: Any) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (grad,), (a, b, offs) = grads, ctx.saved_tensors
        for_a, for_b, *_ = ctx.needs_input_grad
        of_a = of_b = None
        if for_a:
            call = SeveralCall(grad.contiguous(), b.mT, offs)
            of_a = by_torch(call) if grad_enabled() else ctx.table.backward_several(call)
        if for_b:
            # Weights that are stored transposed get a gradient that is.
            left, right = (grad, a) if b.mT.is_contiguous() else (a, grad)
            call = SeveralCall(left.contiguous().mT, right.contiguous(), offs)
            of_b = by_torch(call) if grad_enabled() else ctx.table.backward_several(call)
            of_b = of_b.mT if left is grad else of_b
        return of_a, of_b, None, None, None


_taped: Callable[..., Tensor] = _Grouped.apply
