"""`hktune.grouped_mm`, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from hktune.core.errors import TableError
from hktune.runtime import operators
from hktune.runtime.calls.gradients import asks_gradient
from hktune.runtime.calls.several_call import SeveralCall, by_torch
from hktune.runtime.loaded import LoadedTable
from hktune.runtime.torch_state import compiling, grad_enabled, is_plain


def grouped_mm(a: Tensor, b: Tensor, offs: Tensor) -> Tensor:
    """As torch._grouped_mm, by the current table: the rows of `a` [M, K] are in groups, one after another, and each is
    multiplied by a matrix of its own, of `b` [G, K, N]. `offs`, int32 [G], has the row behind the last of each group.

    `b` is read as it is stored: contiguous, or the transposed view of weights [G, N, K]. The gradient of `a` is such a
    product too; that of `b` is one of groups of K (`grouped8.bf16.tn`). What the table does not have is torch's. Rows
    behind the last group hold anything, as torch leaves them.

    Where `b` is [K, N] groups are of K, and the product is [G, M, N]. That is the gradient of such weights.

    Raises TableError when no table is loaded.
    """
    call = SeveralCall(a, b, offs)
    if compiling() or not is_plain():
        return by_torch(call)  # which `enable` has asked of the table, in a compiled graph too
    table = operators.table_numbered(operators.CURRENT)
    if not isinstance(table, LoadedTable):
        raise TableError(f"the current table is a {type(table).__name__}: load one by hktune.load")
    if asks_gradient(a, b):
        return by_torch(call) if call.divides_k else _taped(a, b, offs, table)
    return table.several(call)


class _Context(Protocol):
    needs_input_grad: tuple[bool, ...]
    table: LoadedTable

    @property
    def saved_tensors(self) -> tuple[Tensor, Tensor, Tensor]: ...

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Grouped(torch.autograd.Function):
    """A grouped product of which somebody will ask a gradient."""

    @staticmethod
    def forward(ctx: _Context, a: Tensor, b: Tensor, offs: Tensor, table: LoadedTable) -> Tensor:
        ctx.save_for_backward(a, b, offs)
        ctx.table = table
        return table.several(SeveralCall(a, b, offs))

    @staticmethod
    def backward(ctx: _Context, *grads: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
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
        return of_a, of_b, None, None


_taped: Callable[..., Tensor] = _Grouped.apply
