"""What is done behind the product of a linear, as a call asks for it: the words of an operation, and torch's own.

C = act(alpha (A @ B) + bias) + beta residual, or act(gate) * up of alpha (A @ B) + bias; then times a scale, and
rounded to float8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hktune.core.errors import InputError
from hktune.runtime.calls.forms import FLOAT8, Form, activated, form_ending, gated, linear_by_torch


@dataclass(frozen=True)
class Finish:
    """`alpha` and `beta` are numbers; `out_scale`, float32 of one element, is there where C is float8."""

    activation: str | None = None
    is_gated: bool = False
    interleaved: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    out_scale: Tensor | None = None

    def form(self, bias: Tensor | None, residual: Tensor | None) -> Form:
        """Raises InputError for an activation that is not known."""
        last = ""
        if self.is_gated:
            last = "gated_interleaved" if self.interleaved else "gated"
        elif residual is not None:
            last = "residual" if self.beta == 1 else "beta_residual"
        return form_ending(bias is not None, self.activation, last, self.alpha != 1, self.out_scale is not None)


def out_scale_of(out_dtype: torch.dtype | None, out_scale: Tensor | None, x: Tensor) -> Tensor | None:
    """The scale of an output in float8, 1 where none is given; None where the output has the dtype of `x`. Raises
    InputError for any other dtype, and for a scale that is no float32 of one element."""
    if out_dtype is not None and out_dtype not in (x.dtype, FLOAT8):
        raise InputError(f"out_dtype is {out_dtype}: it must be that of x, or torch.float8_e4m3fn")
    check_out_scale(out_dtype, out_scale)
    if out_dtype is not FLOAT8:
        return None
    return torch.ones((), dtype=torch.float32, device=x.device) if out_scale is None else out_scale


def check_out_scale(out_dtype: torch.dtype | None, out_scale: Tensor | None) -> None:
    """Raises InputError for a scale of an output that has none, and for one that is no float32 of one element."""
    if out_scale is None:
        return
    if out_dtype is not FLOAT8:
        raise InputError("out_scale is what an output in float8 is multiplied by: pass out_dtype=torch.float8_e4m3fn")
    if not isinstance(out_scale, Tensor):
        got = type(out_scale).__name__
        raise InputError(f"out_scale must be float32, of one element, got a {got}: pass torch.tensor({out_scale})")
    if out_scale.dtype is not torch.float32 or out_scale.numel() != 1:
        got = f"{tuple(out_scale.shape)} {out_scale.dtype}"
        raise InputError(f"out_scale must be float32, of one element, got {got}: pass such")


def by_parts(
    linear: Callable[..., Tensor],
    finish: Finish,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """A call of `linear`, and the rest by torch."""
    if finish.alpha == 1:
        product = linear(x, weight, bias, activation=None if finish.is_gated else finish.activation)
    else:
        product = linear(x, weight, None) * finish.alpha
        product = product if bias is None else product + bias
        if finish.activation is not None and not finish.is_gated:
            product = activated(finish.activation, product)
    if finish.is_gated:
        product = gated(product, finish.activation, finish.interleaved)
    if residual is not None:
        product = product + residual if finish.beta == 1 else torch.add(product, residual, alpha=finish.beta)
    return product if finish.out_scale is None else in_float8(product, finish.out_scale)


def linear_without_table(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """hktune.linear where there is no table."""
    finish = Finish(activation, alpha=alpha, beta=beta, out_scale=out_scale_of(out_dtype, out_scale, x))
    return by_parts(linear_by_torch, finish, x, weight, bias, residual if beta else None)


def gated_without_table(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = "silu",
    *,
    interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """hktune.gated_linear where there is no table."""
    finish = Finish(activation, True, interleaved, out_scale=out_scale_of(out_dtype, out_scale, x))
    return by_parts(linear_by_torch, finish, x, weight, bias, None)


def in_float8(product: Tensor, scale: Tensor | None) -> Tensor:
    """`product` times `scale`, if any, rounded. Beyond the largest number is that one, and a NaN stays one."""
    largest = torch.finfo(FLOAT8).max
    scaled = product.float() if scale is None else product.float() * scale.reshape(())
    return scaled.clamp(-largest, largest).to(FLOAT8)
