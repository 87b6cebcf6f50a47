"""The steps behind a product as torch does them: by kernels of their own, or by one function where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import ACTIVATIONS, Operation
from hktune.measure.arena import OperandSet

if TYPE_CHECKING:
    import torch

_ACTIVATED = {("bias", "relu"): False, ("bias", "gelu_tanh"): True}
"""Steps that torch hands to the vendor's library together, and whether they are gelu."""
FUSED = frozenset([*_ACTIVATED, ("residual",)])
"""Epilogues that torch has a function for, with the product."""


def check_steps(operation: Operation) -> None:
    """Raises DeviceError where the epilogue has other steps than a model would write behind a linear, in this order."""
    left = list(operation.epilogue)
    for steps in (("bias", "accumulate"), ACTIVATIONS, ("gated",), ("residual",)):
        if left and left[0] in steps:
            left.pop(0)
    if left:
        rule = "it adds a bias, or accumulates on C, before one activation, gates and a residual"
        raise DeviceError(f"the vendor's library has no {operation}: {rule}")


def multiply_fused(operation: Operation, operands: OperandSet) -> None:
    """C of an epilogue that is one of FUSED."""
    import torch

    a, b = factors_of(operation, operands)
    if operation.has_residual:
        add = torch.addmm if a.ndim == 2 else torch.baddbmm
        add(operands["residual"], a, b, out=operands["c"])
    else:
        use_gelu = _ACTIVATED[operation.epilogue]  # type: ignore[index]
        torch._addmm_activation(operands["bias"], a, b, use_gelu=use_gelu, out=operands["c"])


def product_of(operation: Operation, operands: OperandSet) -> torch.Tensor | None:
    """A matrix for the product, which gates halve; None where it may be in C."""
    c = operands["c"]
    return c.new_empty(c.shape[0], 2 * c.shape[1]) if operation.is_gated else None


def finish(operation: Operation, product: torch.Tensor, operands: OperandSet) -> None:
    """Makes C of the product and what is added to it before all other steps."""
    import torch

    c = operands["c"]
    value, up = product.chunk(2, dim=1) if operation.is_gated else (product, None)
    for activation in operation.activations:
        _activate(activation, value, c)
        value = c
    if up is not None:
        torch.mul(value, up, out=c)
    if operation.has_residual:
        c.add_(operands["residual"])


def _activate(activation: str, value: torch.Tensor, c: torch.Tensor) -> None:
    """C = the activation of `value`, which may be C."""
    import torch

    if activation == "relu":
        torch.clamp_min(value, 0, out=c)
    elif activation == "silu":
        torch.ops.aten.silu.out(value, out=c)
    else:
        torch.ops.aten.gelu.out(value, approximate="tanh" if activation == "gelu_tanh" else "none", out=c)
