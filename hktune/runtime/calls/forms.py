"""What a call makes of its two operands: torch's linear, torch's matmul, or the gradient of a weight.

All are C = A @ B. They differ in which way a contiguous operand is stored, in the words of an operation: a weight
[N, K] is a B that is stored transposed. Each operand may be a transposed view too, and is then stored the other way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hktune.core.errors import InputError
from hktune.core.escaped import shown
from hktune.core.operation import GATES, RESIDUALS
from hktune.runtime.calls.gradients import outer, taped_linear, taped_matmul, untaped

Sizes = tuple[tuple[int, ...], int, int, int]
"""The shape of C, and m, n, k."""
FLOAT8 = torch.float8_e4m3fn
"""Of outputs."""
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
    has_alpha: bool = False
    has_beta: bool = False

    @property
    def is_float8(self) -> bool:
        """Whether C is float8, and has a scale; a bias is not."""
        return self.ending.startswith("->e4m3")

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
FACTORED = {
    (has_alpha, has_beta): Form(
        "hktune::matmul", "nn", f"{'+alpha' if has_alpha else ''}{'+beta_residual' if has_beta else ''}",
        _matmul, untaped, has_residual=has_beta, has_alpha=has_alpha, has_beta=has_beta,
    )
    for has_alpha, has_beta in ((True, False), (False, True), (True, True))
}  # fmt: skip
"""alpha times the product, beta times a matrix, or both together."""
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
    if not isinstance(activation, str) or activation not in _BY_TORCH:
        raise InputError(f"activation {shown(activation)} is not known: known are {', '.join(_BY_TORCH)}")
    return activation


def linear_by_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
) -> Tensor:
    """hktune's linear where there is no table."""
    product = functional.linear(x, weight, bias)
    return product if activation is None else activated(activation, product)


def gated(product: Tensor, activation: str | None, interleaved: bool = False) -> Tensor:
    """What torch makes of a product whose first half is gates, and the other what they gate; or of both in turn."""
    if product.shape[-1] % 2:
        raise InputError(
            f"a gated weight has {product.shape[-1]} rows: it must have as many gates as rows that they gate"
        )
    gate, up = (product[..., ::2], product[..., 1::2]) if interleaved else product.chunk(2, -1)
    return (gate if activation is None else activated(activation, gate)) * up


_ACTIVATED = {
    (has_bias, each): Form(
        "hktune::linear", "nt", f"{'+bias' if has_bias else ''}+{each}",
        partial(linear_by_torch, activation=each), untaped, each,
    )
    for each in _BY_TORCH
    for has_bias in (False, True)
}  # fmt: skip


def _form_of_steps(has_bias: bool, activation: str | None, last: str, has_alpha: bool, is_float8: bool) -> Form:
    steps = ("alpha" if has_alpha else "", "bias" if has_bias else "", activation or "", last)
    ending = ("->e4m3" if is_float8 else "") + "".join(f"+{step}" for step in steps if step)
    is_gated = last in GATES
    return Form(
        "hktune::gated_linear" if is_gated else "hktune::linear", "nt", ending, _linear, untaped, activation or "",
        is_gated, last in RESIDUALS, has_alpha, last == "beta_residual",
    )  # fmt: skip


_FINISHED = {
    steps: _form_of_steps(*steps)
    for steps in itertools.product(
        (False, True), (None, *_BY_TORCH), ("", *GATES, *RESIDUALS), (False, True), (False, True)
    )
}


def form_ending(
    has_bias: bool, activation: str | None, last: str, has_alpha: bool = False, is_float8: bool = False
) -> Form:
    """The one form with these steps, of which `last` is that of gates, or of a residual, or "". Raises InputError for
    an activation that is not known."""
    return _FINISHED[has_bias, None if activation is None else _known(activation), last, has_alpha, is_float8]


def finished_form(bias: Tensor | None, activation: str | None, is_gated: bool) -> Form:
    """Of a linear with gates, or else with a residual. Raises InputError for an activation that is not known."""
    return form_ending(bias is not None, activation, "gated" if is_gated else "residual")


def linear_form(bias: Tensor | None, activation: str | None = None) -> Form:
    """Raises InputError for an activation that is not known."""
    if activation is None:
        return LINEAR if bias is None else LINEAR_BIAS
    return _ACTIVATED[bias is not None, _known(activation)]
