"""Inputs whose sums float32 has exactly, in whatever order a kernel adds them: C must then be THE one rounding of them.

All products of one column of C are whole multiples of a power of two, the column's unit, and so is its bias. Their
magnitudes together stay below 2^24 units, so neither a sum nor a partial sum rounds, of whole tiles or of a split K,
nor does a matrix unit that aligns its products to 24 bits.

Where C has a narrower range than float32, a quarter of the columns overflow in part, and a quarter is subnormal. No
input is: each is zero or a normal number. The products of normal numbers reach both ends only where both factors are
at that end. So half of the steps of K are large in A and the others are small, at random; B evens this out in usual
columns, has only the large steps in those that overflow, and only the small ones in those that are subnormal.

An eighth of the columns has small integers in B: where few bits are rounded off, ties are frequent.

Where float32 takes sums over from a matrix unit that holds less, each run of them fits into the unit. A quarter of the
sums has products of one sign, so that together they do not: what is not taken over is seen.

Factors of rows, columns and blocks are powers of two from 1 on, as large as the bound of 2^24 units leaves room for.
So are those of the product and of a residual (alpha and beta): they are negative, so that no kernel is right without
them.

Float8 has a narrow range. So where C is of it, usual columns are well within, and C's own factor brings them there.
The columns of the other two kinds are close to either end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from hktune.core.dtype import F32, Dtype
from hktune.core.operand import Operand, factors_of, operands_of
from hktune.core.operation import COUNTED, Operation
from hktune.core.problem import Problem
from hktune.core.sums import FLOAT32_SUMS, Sums
from hktune.verify.arrays import Array
from hktune.verify.several_products import one_product, parted, uneven_ends

_ACTIVATED_BITS = 1
"""The standard deviation of usual sums is 2 to the power of this, or up to twice that, where C has an activation or
gates."""
_FLOAT8_USUAL_BITS = 4
"""The same of usual outputs in float8, before they are rounded."""
_QUARTILE, _EIGHTH = 0.6745, 0.1573
"""Half of the standard normal numbers, and one in eight, are within this of 0."""


@dataclass(frozen=True)
class ExactInputs:
    """Values of a, b, all factors, what is added, and what C holds before, as they are stored; the unit of each column
    of A @ B times alpha, or where there are several products, of each element [rows,n]."""

    values: dict[str, Array]
    units: Array


def exact_inputs(
    problem: Problem, normal: Callable[[tuple[int, ...]], Array], sums: Sums = FLOAT32_SUMS
) -> ExactInputs:
    """Inputs made of the next numbers of `normal`, which draws standard normal ones; every value is one of its format.
    For k above 2^23 sums need not be exact, nor above 2^13 where a matrix unit with 14 bits adds all of them."""
    if problem.operation.kind in COUNTED:
        return _of_several_products(problem, normal, sums)
    operation, sizes = problem.operation, _Sizes.of(problem, sums)
    width = problem.n * operation.b_columns
    large = normal((problem.k,)) > 0
    columns = _Columns.of(normal((width,)), sizes)
    a, b = _matrices(problem, normal, large, columns, sizes, one_sign=bool(sums.run_k))
    factors = {
        operand.name: _factor(operand, normal(operand.extents(problem.sizes)), sizes)
        for operand in operands_of(operation).values()
        if operand.name in ("alpha", "beta") or operand.name.startswith("scale_")
    }
    if operation.has_alpha:
        columns = replace(columns, units=columns.units * abs(factors["alpha"]))
    term = functools.partial(_term, columns=columns, sizes=sizes, dtype=operation.added_dtype)
    stored_a, stored_b = factors_of(operation, {"a": a, "b": b})
    values = {"a": stored_a, "b": stored_b, "bias": term(normal((width,))), **factors}
    for name, is_added in (("c", operation.accumulates), ("residual", operation.has_residual)):
        if is_added:
            values[name] = term(normal((problem.m, width)))[:, : problem.n]
    return ExactInputs(values, columns.units)


def _of_several_products(problem: Problem, normal: Callable[[tuple[int, ...]], Array], sums: Sums) -> ExactInputs:
    """Those of one product as large as all of them together, parted; and where groups end."""
    whole = exact_inputs(one_product(problem), normal, sums)
    offsets = operands_of(problem.operation).get("offsets")
    ends = {"offsets": uneven_ends(problem, normal(offsets.extents(problem.sizes)))} if offsets else {}
    return ExactInputs(*parted(problem, {**whole.values, **ends}, whole.units))


@dataclass(frozen=True)
class _Columns:
    """Which columns of A @ B are usual, which overflow in part, and which are subnormal; which of any kind are `tied`,
    with small integers in B. All are bool [columns]. `units` [columns] are theirs."""

    usual: Array
    over: Array
    under: Array
    tied: Array
    units: Array

    @staticmethod
    def of(kind: Array, sizes: _Sizes) -> _Columns:
        """The kinds that standard normal numbers say."""
        quartile = _QUARTILE if sizes.narrow else math.inf
        over, under = kind > quartile, kind < -quartile
        usual, tied = ~(over | under), abs(kind) < _EIGHTH
        low, high, top = sizes.steps
        return _Columns(usual, over, under, tied, usual * (low * high) + over * (high * top) + under * (low * low))


def _matrices(
    problem: Problem,
    normal: Callable[[tuple[int, ...]], Array],
    large: Array,
    columns: _Columns,
    sizes: _Sizes,
    one_sign: bool,
) -> tuple[Array, Array]:
    """A [m,k] and B [k,columns]. Steps of K are `large` in A, bool [k], or small. With `one_sign` a quarter of the sums
    has products of one sign."""
    low, high, top = sizes.steps
    small, usual = ~large, columns.usual
    a = _integers(normal((problem.m, problem.k)), sizes.amplitude) * (large * high + small * low)
    drawn = _integers(normal((problem.k, problem.n * problem.operation.b_columns)), sizes.amplitude)
    if one_sign:
        a[::2], drawn[:, ::2] = abs(a[::2]), abs(drawn[:, ::2])
    drawn = drawn * ~columns.tied + drawn.clip(-2, 2) * columns.tied
    b = drawn * (usual * (large * low + small * high)[:, None] + columns.over * (large * top)[:, None])
    return a, b + drawn.clip(-1, 1) * (columns.under * (small * low)[:, None])


def _term(normal: Array, columns: _Columns, sizes: _Sizes, dtype: Dtype) -> Array:
    """Numbers of `dtype` that are added, of the size of a usual sum, of standard normal ones."""
    step_bits = max(sizes.sum_bits - dtype.significand_bits, 0)
    numbers = _integers(normal, 2 ** (sizes.sum_bits - step_bits)) * 2.0**step_bits * columns.units
    return numbers * ~(columns.tied | columns.under) * (abs(numbers) < 2.0**dtype.exponent_max)


def _factor(operand: Operand, normal: Array, sizes: _Sizes) -> Array:
    """Powers of two, of standard normal numbers."""
    if operand.name == "scale_c":
        return 2.0 ** (normal * 0 + sizes.output_exponent)
    if operand.name in ("alpha", "beta"):
        return -(2.0 ** (1.0 * (normal > 0)))
    return 2.0 ** abs(normal * (sizes.factor_bits / 2)).round().clip(0, sizes.factor_bits)


def _integers(normal: Array, amplitude: int) -> Array:
    return (normal * (amplitude / 2)).round().clip(-amplitude, amplitude)


@dataclass(frozen=True)
class _Sizes:
    """`amplitude`: of the integers that A and B hold. `low`, `high`: exponents of the units of small and large steps;
    `overflowing`: of B's units where C overflows. `sum_bits`: of a usual sum, in units. `narrow`: C has ends to meet.
    `factor_bits`: the exponent of the largest scale of either input. `output_exponent`: of C's own factor.
    """

    amplitude: int
    low: int
    high: int
    overflowing: int
    sum_bits: int
    narrow: bool
    factor_bits: int
    output_exponent: int = 0

    @property
    def steps(self) -> tuple[float, float, float]:
        """The units of small and of large steps, and of B's where C overflows."""
        return 2.0**self.low, 2.0**self.high, 2.0**self.overflowing

    @staticmethod
    def of(problem: Problem, sums: Sums) -> _Sizes:
        operation, k = problem.operation, problem.k
        dtypes = (operation.a_dtype, operation.b_dtype, operation.c_dtype)
        # Half of what float32 holds is for the products; a bias of the size of a usual sum fits into the other half.
        most = math.isqrt(2 ** (F32.significand_bits - 1) // k)
        scaled = "scale_a" in operands_of(operation)
        in_unit = math.isqrt((2**sums.significand_bits - 1) // min(k, sums.run_k or k))
        amplitude = max(min(most >> scaled, in_unit, *(dtype.integer_max for dtype in dtypes[:2])), 1)
        factor_bits = max((most // amplitude).bit_length() - 1, 0) if scaled else 0
        usual_sum = max(amplitude**2 / 4 * math.sqrt(k), 1.0) * 2.0**factor_bits
        sum_bits = int(math.log2(usual_sum))
        # An activation is of interest around 0, and gates where their products are no ends: usual sums are small.
        usual = _ACTIVATED_BITS - sum_bits if operation.activations or operation.is_gated else None
        if operation.scales_c:
            return _Sizes._of_float8_outputs(operation, amplitude, sum_bits, factor_bits)
        if any(dtype.width_bits <= 8 for dtype in dtypes) or operation.c_dtype.exponent_max >= F32.exponent_max:
            low = (usual or 0) // 2
            return _Sizes(amplitude, low, (usual or 0) - low, 0, sum_bits, False, factor_bits)
        low = max(dtype.exponent_min for dtype in dtypes)
        highest = min(dtype.exponent_max for dtype in dtypes) + 1 - amplitude.bit_length()
        high = highest if usual is None else min(highest, usual - low)
        overflowing = operation.c_dtype.exponent_max + 1 - round(math.log2(usual_sum / math.sqrt(2))) - high
        return _Sizes(amplitude, low, high, min(max(overflowing, low), highest), sum_bits, True, factor_bits)

    @staticmethod
    def _of_float8_outputs(operation: Operation, amplitude: int, sum_bits: int, factor_bits: int) -> _Sizes:
        """Those of float inputs: usual sums have _ACTIVATED_BITS if A's exponents reach so far. Integers, and blocks
        with scales of their own, are of one size, and some are beyond the largest output."""
        c_dtype, inputs = operation.c_dtype, (operation.a_dtype, operation.b_dtype)
        if any(dtype.is_integer or dtype.block for dtype in inputs):
            return _Sizes(amplitude, 0, 0, 0, sum_bits, False, factor_bits, c_dtype.exponent_max - sum_bits)
        apart = max(_FLOAT8_USUAL_BITS - c_dtype.exponent_min - amplitude.bit_length(), 0)
        least = max(dtype.exponent_min for dtype in inputs)
        low = max((_ACTIVATED_BITS - sum_bits - apart) // 2, least)
        high = low + apart
        usual_bits = (low + high + sum_bits) * operation.b_columns
        over = low + c_dtype.exponent_max - _FLOAT8_USUAL_BITS + 2
        return _Sizes(amplitude, low, high, over, sum_bits, True, factor_bits, _FLOAT8_USUAL_BITS - usual_bits)
