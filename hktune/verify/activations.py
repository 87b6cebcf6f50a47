"""What an activation makes of a sum in float64, and by how much a right kernel's may differ from it.

A kernel does it in float32, in one of many ways: by polynomials, by the 1-ulp exponentials of a GPU, or as torch writes
it. It is right where its result is within `relative` of the exact one's magnitude, and `of_sum` of the sum's. As
torch writes gelu, x / 2 (1 + erf(..)), it rounds 1 + erf before it multiplies, so its result is exact to so many units
of x, not of the result. An error that the sum has already becomes at most `slope` times as large.

Rounding to bf16 or f16 is 2^-9 or 2^-12 of a result. So 2^-16 leaves another number than the one rounding of the exact
result only where that is near to halfway between two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hktune.core.dtype import F32
from hktune.verify.arrays import Array, Arrays


@dataclass(frozen=True)
class Activation:
    """`value` of sums in float64; the bounds above, of which `slope` is the largest of the function's."""

    value: Callable[[Array, Arrays], Array]
    slope: float
    relative: float = 0.0
    of_sum: float = 0.0

    def of(self, total: Array, error: Array, arrays: Arrays) -> tuple[Array, Array]:
        """The function of `total`, and the error bound of a right kernel whose sums are within `error` of it."""
        exact = self.value(total, arrays)
        return exact, self.slope * error + self.relative * abs(exact) + self.of_sum * abs(total)


def _relu(x: Array, _arrays: Arrays) -> Array:
    return x * (x > 0)


def _logistic(x: Array, arrays: Arrays) -> Array:
    """1 / (1 + e^-x): no exponential of it is above 1."""
    below = arrays.exp(-abs(x))
    return ((x >= 0) + (x < 0) * below) / (1 + below)


def _silu(x: Array, arrays: Arrays) -> Array:
    return x * _logistic(x, arrays)


def _gelu(x: Array, arrays: Arrays) -> Array:
    return x * arrays.erfc(x * -math.sqrt(0.5)) / 2


def _gelu_tanh(x: Array, arrays: Arrays) -> Array:
    """(1 + tanh(u)) / 2 is the logistic function of 2 u."""
    return x * _logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), arrays)


_RELATIVE = 2.0**-16
_TORCH_OF_SUM = 4 * F32.unit_roundoff
_FLUSHED_OF_SUM = 2.0**F32.exponent_min
"""What is lost where an exponential is below the smallest normal number."""

ACTIVATION_VALUES: Mapping[str, Activation] = MappingProxyType(
    {
        "relu": Activation(_relu, 1.0),
        "gelu": Activation(_gelu, 1.13, _RELATIVE, _TORCH_OF_SUM),
        "gelu_tanh": Activation(_gelu_tanh, 1.13, _RELATIVE, _TORCH_OF_SUM),
        "silu": Activation(_silu, 1.1, _RELATIVE, _FLUSHED_OF_SUM),
    }
)
"""Those of `hktune.core.operation.ACTIVATIONS`, by name."""
