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
from hktune.runtime.calls.given import check_bool, check_linear, check_number
from hktune.runtime.torch_state import autocast_dtype


@dataclass(frozen=True)
class Finish:
    """`alpha` and `beta` are numbers; `out_scale` is float32 of one element. C is float8 where there is one, and where
    `float8` says so: then the scale is 1."""

    activation: str | None = None
    is_gated: bool = False
    interleaved: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    out_scale: Tensor | None = None
    float8: bool = False

    @property
    def is_float8(self) -> bool:
        return self.float8 or self.out_scale is not None

    def form(self, bias: Tensor | None, residual: Tensor | None) -> Form:
        """Raises InputError for an activation that is not known."""
        last = ""
        if self.is_gated:
            last = "gated_interleaved" if self.interleaved else "gated"
        elif residual is not None:
            last = "residual" if self.beta == 1 else "beta_residual"
        return form_ending(bias is not None, self.activation, last, self.alpha != 1, self.is_float8)


def check_output(out_dtype: torch.dtype | None, out_scale: Tensor | None, x: Tensor) -> None:
    """Raises InputError for an output that is neither float8 nor of the dtype of `x` or of autocast, and for a scale
    that is no float32 of one element."""
    if out_dtype not in (None, FLOAT8) and out_dtype not in (x.dtype, autocast_dtype(x)):
        raise InputError(f"out_dtype is {out_dtype}: it must be that of x, or torch.float8_e4m3fn")
    check_out_scale(out_dtype, out_scale)


def check_factors(alpha: float, beta: float, residual: Tensor | None) -> None:
    """Raises TypeError for a factor that is no number, and InputError for a factor of nothing."""
    check_number("linear", "alpha", alpha)
    check_number("linear", "beta", beta)
    if residual is None and beta not in (0, 1):
        raise InputError(f"beta is {beta}, the factor of a residual, and there is none: pass it, or leave beta out")


def in_dtype(out: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    """`out` in the dtype that was asked for, where one was: autocast, or a residual, may have made it another."""
    return out if out_dtype is None or out.dtype is out_dtype else out.to(out_dtype)


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
        product = _added(product, residual, finish.beta)
    return in_float8(product, finish.out_scale) if finish.is_float8 else product


def _added(product: Tensor, residual: Tensor, beta: float) -> Tensor:
    if beta == 1:
        return product + residual
    if beta == 0:  # whatever it holds is left out, NaN too; its shape and dtype must fit as ever
        return product + residual.new_zeros(()).expand(residual.shape)
    return torch.add(product, residual, alpha=beta)


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
    check_linear("linear", x, weight, bias, residual)
    check_factors(alpha, beta, residual)
    check_output(out_dtype, out_scale, x)
    finish = Finish(activation, alpha=alpha, beta=beta, out_scale=out_scale, float8=out_dtype is FLOAT8)
    return in_dtype(by_parts(linear_by_torch, finish, x, weight, bias, residual), out_dtype)


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
    check_linear("gated_linear", x, weight, bias)
    check_bool("gated_linear", "interleaved", interleaved)
    check_output(out_dtype, out_scale, x)
    finish = Finish(activation, True, interleaved, out_scale=out_scale, float8=out_dtype is FLOAT8)
    return in_dtype(by_parts(linear_by_torch, finish, x, weight, bias, None), out_dtype)


def in_float8(product: Tensor, scale: Tensor | None) -> Tensor:
    """`product` times `scale`, if any, rounded. Beyond the largest number is that one, and a NaN stays one."""
    largest = torch.finfo(FLOAT8).max
    scaled = product.float() if scale is None else product.float() * scale.reshape(())
    return scaled.clamp(-largest, largest).to(FLOAT8)
