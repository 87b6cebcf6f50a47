"""torch's products of numbers of 8 bits, with what torch needs another kernel for behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hktune.core.dtype import E4M3, E5M2, I8
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.core.torch_limits import INT_MM_ROWS_FEW
from hktune.measure.arena import OperandSet
from hktune.measure.torch_epilogue import check_steps, finish, multiplied, product_of

if TYPE_CHECKING:
    import torch


def is_of_8_bits(operation: Operation) -> bool:
    """Whether torch's functions for products of 8 bits are those that are asked."""
    return {operation.a_dtype, operation.b_dtype} <= {E4M3, E5M2} or operation.a_dtype == operation.b_dtype == I8


def check_scaled(operation: Operation) -> None:
    """Raises DeviceError where torch has no function for `operation`."""
    known = ("", "tensor", "rows") if operation.a_dtype == I8 else ("tensor", "rows", "blocks")
    if operation.scales not in known:
        raise DeviceError(f"torch has no {operation}: its scales are of a tensor, of rows, or of blocks of float8")
    check_steps(operation)


class ScaledProduct:
    """torch's product of one operation, and kernels of torch's for the steps behind it. It wants the scales of A's
    blocks column by column, and of integers more than INT_MM_ROWS_FEW rows of A: they are stored so at the first call
    with a set of operands, and kept. So is a matrix for the product, where that is not C."""

    def __init__(self, operation: Operation) -> None:
        """Raises DeviceError where torch has no function for `operation`."""
        check_scaled(operation)
        self._operation, self._product = operation, multiplied(operation)
        self._own: torch.Tensor | None = None
        self._stored: dict[int, torch.Tensor] = {}

    def __call__(self, operands: OperandSet) -> None:
        """Into `c`. Raises DeviceError where torch refuses the operation."""
        if self._own is None:
            self._own = product_of(self._operation, operands)
        c = operands["c"] if self._own is None else self._own
        multiply_scaled(self._product, {**operands, **self._stored_otherwise(operands), "c": c})
        finish(self._operation, c, operands)

    def _stored_otherwise(self, operands: OperandSet) -> dict[str, torch.Tensor]:
        """Operands that torch wants in another order, or with more rows."""
        a = operands["a"]
        if self._operation.scales == "blocks":
            of_a = self._kept(operands["scale_a"], lambda of_a: of_a.t().contiguous())
            return {"scale_a": of_a.t(), "scale_b": operands["scale_b"].t()}
        if self._operation.a_dtype == I8 and a.is_cuda and len(a) <= INT_MM_ROWS_FEW:
            return {"a": self._kept(a, _with_more_rows)}
        return {}

    def _kept(self, tensor: torch.Tensor, stored: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """As `stored` makes it, once."""
        at = tensor.data_ptr()
        if at not in self._stored:
            self._stored[at] = stored(tensor)
        return self._stored[at]


def _with_more_rows(a: torch.Tensor) -> torch.Tensor:
    more = a.new_zeros((INT_MM_ROWS_FEW + 1, a.shape[1]))
    more[: len(a)] = a
    return more


def multiply_scaled(operation: Operation, operands: OperandSet) -> None:
    """Into `c`, with scales of blocks as torch has them. Raises DeviceError where torch refuses the operation."""
    try:
        if operation.a_dtype == I8:
            _multiply_integers(operation, operands)
        else:
            _multiply_floats(operation, operands)
    except (RuntimeError, NotImplementedError, ValueError) as refused:
        reason = str(refused).strip().splitlines()[0][:200]
        raise DeviceError(f"torch refuses {operation}: {reason}") from None


def _multiply_floats(operation: Operation, operands: OperandSet) -> None:
    """By torch._scaled_mm. It neither accumulates nor adds a bias to float32: these are kernels behind it."""
    import torch

    a, b = factors_of(operation, operands)
    c, (scale_a, scale_b) = operands["c"], _scales(operation, operands)
    bias = None if c.dtype == torch.float32 else operands.get("bias")
    is_fast = operation.accumulation == "fast"
    out = torch.empty_like(c) if operation.accumulates else c
    torch._scaled_mm(a, b, scale_a, scale_b, bias, out_dtype=c.dtype, use_fast_accum=is_fast, out=out)
    if operation.accumulates:
        c.add_(out)
    elif operation.has_bias and bias is None:
        c.add_(operands["bias"])


def _multiply_integers(operation: Operation, operands: OperandSet) -> None:
    """By torch._int_mm. Its scales and bias are kernels behind it. A may have more rows than C."""
    import torch

    a, b = factors_of(operation, operands)
    c = operands["c"]
    if not operation.scales and len(a) == len(c):
        torch._int_mm(a, b, out=c)
        return
    sums = torch._int_mm(a, b)[: len(c)]
    if not operation.scales:
        c.copy_(sums)
        return
    scale_a, scale_b = _scales(operation, operands)
    product = sums * scale_a
    torch.mul(product, scale_b, out=c)
    if operation.has_bias:
        c.add_(operands["bias"])


def _scales(operation: Operation, operands: OperandSet) -> tuple[torch.Tensor, torch.Tensor]:
    scale_a, scale_b = operands["scale_a"], operands["scale_b"]
    return (scale_a[:, None], scale_b[None]) if operation.scales == "rows" else (scale_a, scale_b)
