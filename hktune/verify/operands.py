"""What a proof feeds a kernel: random operands, a poisoned output, and the float64 answer with its tolerance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hktune.core.bf16 import bf16_bits, bf16_values
from hktune.core.problem import Problem

POISON = np.uint16(0x7FD5)
"""A bf16 NaN that no arithmetic here produces, so an element that still holds it was never written."""

BF16_UNIT_ROUNDOFF = 2.0**-8  # 8 significant bits, round to nearest even
FLOAT32_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Operands:
    """Inputs of one problem as bf16 bits (a [m,k], bt [n,k], bias [n] or None), and what C must be.

    `expected` is float64 [m,n] from the same bf16 inputs. `tolerance` [m,n] bounds |C - expected| of any right kernel:
    one rounding to bf16 plus the worst order of k float32 additions (Higham, Accuracy and Stability, section 3.1:
    k * u * sum |a||b|). A kernel that drops bits instead of rounding to nearest even exceeds it.
    """

    a: npt.NDArray[np.uint16]
    bt: npt.NDArray[np.uint16]
    bias: npt.NDArray[np.uint16] | None
    expected: npt.NDArray[np.float64]
    tolerance: npt.NDArray[np.float64]


def random_operands(problem: Problem, seed: int) -> Operands:
    """Standard normal inputs rounded to bf16; equal problem and seed give equal operands."""
    random = np.random.default_rng([seed, problem.m, problem.n, problem.k])
    a = bf16_bits(random.standard_normal((problem.m, problem.k), dtype=np.float32))
    bt = bf16_bits(random.standard_normal((problem.n, problem.k), dtype=np.float32))
    exact_a, exact_bt = (bf16_values(bits).astype(np.float64) for bits in (a, bt))
    expected = exact_a @ exact_bt.T
    magnitude = np.abs(exact_a) @ np.abs(exact_bt).T
    bias = None
    if problem.operation.has_bias:
        bias = bf16_bits(random.standard_normal(problem.n, dtype=np.float32))
        exact_bias = bf16_values(bias).astype(np.float64)
        expected += exact_bias
        magnitude += np.abs(exact_bias)
    accumulated = (problem.k + 1) * FLOAT32_UNIT_ROUNDOFF * magnitude
    tolerance = BF16_UNIT_ROUNDOFF * np.abs(expected) + (1 + BF16_UNIT_ROUNDOFF) * accumulated
    return Operands(a, bt, bias, expected, tolerance)
