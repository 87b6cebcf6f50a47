"""torch's products of numbers of 8 bits, with what torch needs another kernel for behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hktune.core.dtype import E4M3, E5M2, I8
from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import Operation
from hktune.measure.arena import OperandSet

if TYPE_CHECKING:
    import torch


def is_of_8_bits(operation: Operation) -> bool:
    """Whether torch's functions for products of 8 bits are those that are asked."""
    return {operation.a_dtype, operation.b_dtype} <= {E4M3, E5M2} or operation.a_dtype == operation.b_dtype == I8


def check_scaled(operation: Operation) -> None:
    """Raises DeviceError where torch has no function for `operation`."""
    known = ("", "tensor", "rows") if operation.a_dtype == I8 else ("tensor", "rows", "blocks")
    if operation.scales not in known or operation.epilogue not in ((), ("bias",), ("accumulate",)):
        rule = "its scales are of a tensor, of rows, or of blocks of float8, and it adds a bias, or accumulates on C"
        raise DeviceError(f"torch has no {operation}: {rule}")


class ScaledProduct:
    """torch's product of one operation. It wants the scales of A's blocks column by column: they are stored so at the
    first call with a set of operands, and kept."""

    def __init__(self, operation: Operation) -> None:
        """Raises DeviceError where torch has no function for `operation`."""
        check_scaled(operation)
        self._operation = operation
        self._stored: dict[int, torch.Tensor] = {}

    def __call__(self, operands: OperandSet) -> None:
        """Into `c`. Raises DeviceError where torch refuses the operation."""
        if self._operation.scales != "blocks":
            multiply_scaled(self._operation, operands)
            return
        of_a, of_b = operands["scale_a"], operands["scale_b"]
        at = of_a.data_ptr()
        if at not in self._stored:
            self._stored[at] = of_a.t().contiguous()
        multiply_scaled(self._operation, {**operands, "scale_a": self._stored[at].t(), "scale_b": of_b.t()})


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
    """By torch._int_mm. Its scales and bias are kernels behind it."""
    import torch

    a, b = factors_of(operation, operands)
    c = operands["c"]
    if not operation.scales:
        torch._int_mm(a, b, out=c)
        return
    scale_a, scale_b = _scales(operation, operands)
    product = torch._int_mm(a, b) * scale_a
    torch.mul(product, scale_b, out=c)
    if operation.has_bias:
        c.add_(operands["bias"])


def _scales(operation: Operation, operands: OperandSet) -> tuple[torch.Tensor, torch.Tensor]:
    scale_a, scale_b = operands["scale_a"], operands["scale_b"]
    return (scale_a[:, None], scale_b[None]) if operation.scales == "rows" else (scale_a, scale_b)
