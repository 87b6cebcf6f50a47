"""The steps behind a product as torch does them: by kernels of their own, or by one function where it has one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hktune.core.errors import DeviceError
from hktune.core.operand import factors_of
from hktune.core.operation import ACTIVATIONS, GATES, RESIDUALS, SWITCHED, Operation
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
    for steps in (("alpha",), SWITCHED, ACTIVATIONS, tuple(GATES), RESIDUALS):
        if left and left[0] in steps:
            left.pop(0)
    if left:
        rule = "it adds a bias, or accumulates on C, before one activation, gates and a residual"
        raise DeviceError(f"the vendor's library has no {operation}: {rule}")


def multiplied(operation: Operation) -> Operation:
    """The product that `finish` goes on from: with the bias, unless alpha comes before it."""
    first = operation.epilogue[:1]
    return replace(operation, c=operation.added_dtype.name, epilogue=first if first and first[0] in SWITCHED else ())


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
    """A matrix for the product, which gates halve and which is not rounded to float8; None where it may be in C."""
    import torch

    c = operands["c"]
    if not operation.is_gated and not operation.scales_c:
        return None
    dtype = getattr(torch, operation.added_dtype.torch_name)
    return c.new_empty(c.shape[0], operation.b_columns * c.shape[1], dtype=dtype)


def gates_and_up(operation: Operation, product: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns of a product that are gates, and those of what they gate: views."""
    if GATES[operation.gates_step] == "interleaved":
        return product[:, ::2], product[:, 1::2]
    gates, up = product.chunk(2, dim=1)
    return gates, up


def finish(operation: Operation, product: torch.Tensor, operands: OperandSet) -> None:
    """Makes C of what `multiplied` names."""
    import torch

    c = operands["c"]
    if operation.has_alpha:
        product.mul_(operands["alpha"])
        if operation.has_bias:
            product.add_(operands["bias"])
    value, up = gates_and_up(operation, product) if operation.is_gated else (product, None)
    to = value if operation.scales_c else c
    for activation in operation.activations:
        _activate(activation, value, to)
        value = to
    if up is not None:
        torch.mul(value, up, out=to)
    if operation.has_residual:
        residual = operands["residual"]
        to.add_(residual * operands["beta"] if operation.has_beta else residual)
    if operation.scales_c:
        largest = torch.finfo(c.dtype).max
        c.copy_((to * operands["scale_c"]).clamp(-largest, largest))


def _activate(activation: str, value: torch.Tensor, c: torch.Tensor) -> None:
    """`c` = the activation of `value`, which may be `c`."""
    import torch

    if activation == "relu":
        torch.clamp_min(value, 0, out=c)
    elif activation == "silu":
        torch.ops.aten.silu.out(value, out=c)
    else:
        torch.ops.aten.gelu.out(value, approximate="tanh" if activation == "gelu_tanh" else "none", out=c)
