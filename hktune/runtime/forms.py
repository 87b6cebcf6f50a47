"""What a call makes of its two operands: torch's linear, torch's matmul, or the gradient of a weight.

All are C = A @ B. They differ in which way a contiguous operand is stored, in the words of an operation: a weight
[N, K] is a B that is stored transposed. Each operand may be a transposed view too, and is then stored the other way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.runtime.gradients import outer, taped_linear, taped_matmul, untaped

Sizes = tuple[tuple[int, ...], int, int, int]
"""The shape of C, and m, n, k."""
Vendor = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class Form:
    """One of the forms below. Compared by identity: it is a part of a key that each call looks up."""

    name: str
    """What a profiler shows."""
    letters: str
    """How contiguous operands are stored: the layout of the operation."""
    ending: str
    """What is done with the product, in the words of an operation: see `hktune.dispatch.calls`."""
    vendor: Vendor
    """The product by torch."""
    taped: Callable[..., Tensor]
    """The product by a kernel, recorded by autograd where that is ever asked."""
    activation: str = ""
    """The last step of the ending, if it is one. No gradient is asked of such a form."""

    is_gated: bool = False
    """Whether the weight has gates, and then as many rows that they gate."""
    has_residual: bool = False

    @property
    def is_float32(self) -> bool:
        """Whether C is float32, whatever the operands are; a bias is then too."""
        return self.ending.startswith("->f32")

    def sizes(self, left: Sequence[int], right: Sequence[int]) -> Sizes | None:
        """Of operands of these shapes; None where they do not fit each other."""
        if not left or (len(right) != 2 and (self is not OUTER or not right)):
            return None
        if self is OUTER:
            rows, n, k = left[-1:], right[-1], math.prod(left[:-1])
            return ((*rows, n), rows[0], n, k) if left[:-1] == right[:-1] else None
        n, k = right if self.letters[1] == "t" else reversed(right)
        if self.is_gated:
            n, odd = divmod(n, 2)
            if odd:
                return None
        return ((*left[:-1], n), math.prod(left[:-1]), n, k) if left[-1] == k else None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(x, weight, bias)


def _matmul(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.matmul(a, b) if bias is None else torch.addmm(bias, a, b)


def _matmul_float32(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(bias, a, b, out_dtype=torch.float32)


def _outer(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    return outer(left, right)


LINEAR = Form("hktune::linear", "nt", "", _linear, taped_linear)
"""x [..., K] and weight [N, K]."""
LINEAR_BIAS = Form("hktune::linear", "nt", "+bias", _linear, taped_linear)
MATMUL = Form("hktune::matmul", "nn", "", _matmul, taped_matmul)
"""a [..., K] and b [K, N]."""
MATMUL_BIAS = Form("hktune::matmul", "nn", "+bias", _matmul, untaped)
ADDED = Form("hktune::matmul", "nn", "+accumulate", _matmul, untaped)
"""What C holds, and the product."""
MATMUL_FLOAT32 = Form("hktune::matmul", "nn", "->f32", _matmul_float32, untaped)
MATMUL_BIAS_FLOAT32 = Form("hktune::matmul", "nn", "->f32+bias", _matmul_float32, untaped)
ADDED_FLOAT32 = Form("hktune::matmul", "nn", "->f32+accumulate", _matmul_float32, untaped)
OUTER = Form("hktune::matmul", "tn", "", _outer, untaped)
"""The gradient [M, N] of a weight: of left [..., M] and right [..., N], whose rows are summed over."""


_BY_TORCH: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
}
"""The activations of an operation."""


def activated(activation: str, product: Tensor) -> Tensor:
    """What torch makes of `product`. Raises InputError for an activation that is not known."""
    return _BY_TORCH[_known(activation)](product)


def _known(activation: str) -> str:
    if activation not in _BY_TORCH:
        raise InputError(f"activation {shown(activation)} is not known: known are {', '.join(_BY_TORCH)}")
    return activation


def linear_by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """hktune's linear where there is no table."""
    product = functional.linear(x, weight, bias)
    product = product if activation is None else activated(activation, product)
    return product if residual is None else product + residual


def gated_linear_by_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = "silu"
) -> Tensor:
    """hktune's gated_linear where there is no table."""
    return gated(functional.linear(x, weight, bias), activation)


def gated(product: Tensor, activation: str | None) -> Tensor:
    """What torch makes of a product whose first half is gates, and the other what they gate."""
    if product.shape[-1] % 2:
        raise InputError(
            f"a gated weight has {product.shape[-1]} rows: it must have as many gates as rows that they gate"
        )
    gate, up = product.chunk(2, -1)
    return (gate if activation is None else activated(activation, gate)) * up


_ACTIVATED = {
    (has_bias, each): Form(
        "hktune::linear", "nt", f"{'+bias' if has_bias else ''}+{each}",
        partial(linear_by_torch, activation=each), untaped, each,
    )
    for each in _BY_TORCH
    for has_bias in (False, True)
}  # fmt: skip


_FINISHED = {
    (ending, has_bias, activation, is_gated): Form(
        name, "nt", f"{'+bias' if has_bias else ''}{f'+{activation}' if activation else ''}{ending}",
        _linear, untaped, activation or "", is_gated, not is_gated,
    )
    for name, ending, is_gated in (("hktune::linear", "+residual", False), ("hktune::gated_linear", "+gated", True))
    for has_bias in (False, True)
    for activation in (None, *_BY_TORCH)
}  # fmt: skip


def finished_form(bias: Tensor | None, activation: str | None, is_gated: bool) -> Form:
    """Of a linear with gates, or else with a residual. Raises InputError for an activation that is not known."""
    activation = None if activation is None else _known(activation)
    return _FINISHED["+gated" if is_gated else "+residual", bias is not None, activation, is_gated]


def linear_form(bias: Tensor | None, activation: str | None = None) -> Form:
    """Raises InputError for an activation that is not known."""
    if activation is None:
        return LINEAR if bias is None else LINEAR_BIAS
    return _ACTIVATED[bias is not None, _known(activation)]
