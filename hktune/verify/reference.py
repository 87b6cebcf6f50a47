"""What an operation must give: its operands, the answer in float64, and which outputs are right. The one judge's rules,
for proofs on the host and on a GPU.

A right kernel sums in float32 in some order (integers in 32-bit integers), scales, applies the epilogue, and rounds
once to the format of C, to nearest even. In float8, what is beyond the largest number becomes that number. Rounding
keeps order, so what it may give is between the roundings of the two ends of what it may have summed. This holds for
subnormal numbers and beyond the largest number of a format as well.

Scales of 2^e are exact. Factors of a row, a column or everything may come before the sum or after it, those of blocks
after the sum of a block: the answer is of the dequantised operands in any case.

Of standard normal operands these two ends are further apart than a step of C where k is large: only a wrong sum is
seen. Of operands with exact sums (`exact_sums.py`) they are one number, so a wrong rounding is seen as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from hktune.core.dtype import E8M0, F32, Dtype
from hktune.core.operand import Operand, factors_of, inputs_of, operands_of
from hktune.core.operation import COUNTED, GATES, SCALE_BLOCK, Operation
from hktune.core.problem import Problem, Rounding
from hktune.core.sums import FLOAT32_SUMS, Sums
from hktune.verify.activations import ACTIVATION_VALUES
from hktune.verify.arrays import HOST, Array, Arrays
from hktune.verify.exact_sums import exact_inputs
from hktune.verify.several_products import for_rows, product_of, uneven_ends


@dataclass(frozen=True)
class Answer:
    """C before its one rounding, float64 [m,n], and by how much float32 sums of a right kernel may differ from it. The
    rows of the matrices of a batched operation follow one another."""

    exact: Array
    error: Array

    def at(self, columns: slice) -> Answer:
        """That of these columns."""
        return Answer(self.exact[:, columns], self.error[:, columns])


@dataclass(frozen=True)
class Operands:
    """The inputs of one problem by name, as bits in their stored shapes, and what C must be, rounded as `rounding`
    says."""

    problem: Problem
    stored: Mapping[str, Array]
    answer: Answer
    rounding: Rounding = "half_even"


def random_operands(problem: Problem, seed: int, exact_sums: bool = False, sums: Sums = FLOAT32_SUMS) -> Operands:
    """Operands on the host; equal arguments give equal ones. Raises InputError as `operands_of` does."""
    random = np.random.default_rng([seed, problem.m, problem.n, problem.k])
    normal = functools.partial(random.standard_normal, dtype=np.float32)
    return drawn_operands(problem, normal, HOST, exact_sums, sums)


def drawn_operands(
    problem: Problem,
    normal: Callable[[tuple[int, ...]], Array],
    arrays: Arrays = HOST,
    exact_sums: bool = False,
    sums: Sums = FLOAT32_SUMS,
) -> Operands:
    """Inputs of the next numbers of `normal`, which draws standard normal ones: each rounded to its format, or made
    into inputs with exact sums, for a kernel whose sums are as exact as `sums`."""
    inputs = inputs_of(problem.operation)
    exact = exact_inputs(problem, normal, sums) if exact_sums else None
    values = (
        exact.values
        if exact
        else {each.name: _drawn(each, normal(each.extents(problem.sizes)), problem) for each in inputs}
    )
    stored = {each.name: arrays.encoded(values[each.name], each.dtype) for each in inputs}
    return Operands(problem, stored, answer_of(problem, stored, arrays, exact.units if exact else None, sums))


INTEGER_SPREAD = 40.0
"""Standard deviation of random integers of 8 bits, of which one in 600 is beyond the ends."""


USUAL_FLOAT8 = 16.0
"""The size of random numbers of float8, whose largest are 448 and 57344."""


def _usual_sum(problem: Problem) -> float:
    """The size of sums of random numbers."""
    spread = INTEGER_SPREAD**2 if problem.operation.accumulator.is_integer else 1.0
    return float(spread * math.sqrt(problem.k))


def _drawn(operand: Operand, normal: Array, problem: Problem) -> Array:
    """Numbers of an input, of standard normal ones: those themselves; integers of the format's range; factors, which
    are positive and around 1; or where groups end."""
    if operand.name == "offsets":
        return uneven_ends(problem, normal)
    if operand.name == "scale_c":
        return (abs(normal) + 0.25) * (USUAL_FLOAT8 / _usual_sum(problem))
    if operand.name in ("alpha", "beta") or operand.name.startswith("scale_"):
        return 2.0 ** (normal * 2).round() if operand.dtype is E8M0 else abs(normal) + 0.25
    return normal * INTEGER_SPREAD if operand.dtype.is_integer else normal


def answer_of(
    problem: Problem,
    stored: Mapping[str, Array],
    arrays: Arrays = HOST,
    units: Array | None = None,
    sums: Sums = FLOAT32_SUMS,
) -> Answer:
    """What C must be for these inputs. All terms of a column of A @ B are multiples of its one of `units`, if given; of
    operations of several products, whose columns differ, `units` is [rows,n].

    Its error bound is that of the worst order of k float32 additions, and one more for the epilogue (Higham, Accuracy
    and Stability, section 3.1: k * u * sum |a||b|); a product of two inputs rounds only where it has too many bits.
    Sums of integers do not round before they become float32. Either factor in float32 rounds once more. The bound is 0
    where all terms together are fewer units than float32 counts exactly. An activation, a product with gates, and what
    is added to the result of either, is in float32 by itself. A matrix unit that is less exact than float32 cuts more
    (`Sums.cut_of`).
    """
    operation = problem.operation
    exact = {name: arrays.decoded(stored[name], operands_of(operation)[name].dtype) for name in stored}
    if operation.is_grouped and "bias" in exact:
        exact["bias"] = for_rows(problem, exact["bias"], stored["offsets"])
    scaled = _scaled_sum(problem, exact, stored.get("offsets"), sums, units)
    after_alpha = operation.epilogue[operation.has_alpha :]
    added = [_term(step, exact) for step in takewhile(_TERMS.__contains__, after_alpha)]
    rounded_times = _roundings(operation, problem.k, len(added))
    product, steps = scaled.plus(added).answer(rounded_times, units), after_alpha[len(added) :]
    if operation.is_gated:
        at = steps.index(operation.gates_step)
        activation, steps = steps[:at], steps[at + 1 :]
        gate, up = map(product.at, _COLUMNS_OF[GATES[operation.gates_step]](problem.n))
        product = _gated(_finished(gate, activation, exact, arrays), up)
    finished = _finished(product, steps, exact, arrays)
    return _scaled(finished, exact["scale_c"], units is not None) if operation.scales_c else finished


@dataclass(frozen=True)
class _Sum:
    """A sum of terms in float64 [rows,columns], the sum of their magnitudes, and what a matrix unit may cut of it:
    None where that is as exact as float32."""

    total: Array
    magnitude: Array
    cut: Array | float | None

    def times(self, factor: Array) -> _Sum:
        """That of each term times its `factor`."""
        size = abs(factor)
        return _Sum(self.total * factor, self.magnitude * size, None if self.cut is None else self.cut * size)

    def plus(self, added: Sequence[Array]) -> _Sum:
        """With the terms `added`, which no matrix unit adds."""
        return _Sum(sum(added, self.total), sum(map(abs, added), self.magnitude), self.cut)

    def answer(self, rounded_times: int, units: Array | None) -> Answer:
        """What a right kernel may have, which rounds each term so many times at most: but not where all are fewer
        `units` than float32 counts."""
        error = rounded_times * F32.unit_roundoff * self.magnitude
        if units is not None:
            error = error * (self.magnitude * F32.unit_roundoff >= units)
        return Answer(self.total, error if self.cut is None else error + self.cut)


def _scaled_sum(
    problem: Problem, exact: Mapping[str, Array], offsets: Array | None, sums: Sums, units: Array | None
) -> _Sum:
    """A @ B times all scales of its inputs, and times alpha."""
    operation = problem.operation
    a, b = _in_blocks(operation, *factors_of(operation, exact), exact)
    total = product_of(problem, a, b, offsets)
    magnitude = abs(total) if operation.accumulator.is_integer else product_of(problem, abs(a), abs(b), offsets)
    product = _Sum(total, magnitude, _cut(sums, problem.k, magnitude, units))
    if operation.scales in _WHOLE:
        of_columns = exact["scale_b"]
        if operation.kind in COUNTED:
            of_columns = for_rows(problem, of_columns, offsets)
        product = product.times(exact["scale_a"].reshape(-1, 1) * of_columns)
    return product.times(exact["alpha"]) if operation.has_alpha else product


_COLUMNS_OF: dict[str, Callable[[int], tuple[slice, slice]]] = {
    "halves": lambda n: (slice(0, n), slice(n, 2 * n)),
    "interleaved": lambda n: (slice(0, 2 * n, 2), slice(1, 2 * n, 2)),
}
"""The columns of gates and of what they gate, of B with n of either."""


def _scaled(product: Answer, factor: Array, is_exact: bool) -> Answer:
    """`product` times a number, of which a kernel's is rounded to float32 unless the number is a power of two."""
    total, error = product.exact * factor, product.error * abs(factor)
    return Answer(total, error if is_exact else error + F32.unit_roundoff * (abs(total) + error))


def _finished(product: Answer, steps: Sequence[str], exact: Mapping[str, Array], arrays: Arrays) -> Answer:
    """What activations make of `product`, and steps that add to their result."""
    total, error = product.exact, product.error
    for step in steps:
        if step in ACTIVATION_VALUES:
            total, error = ACTIVATION_VALUES[step].of(total, error, arrays)
        else:
            term = _term(step, exact)
            total = total + term
            error = error + F32.unit_roundoff * (abs(total) + error + (step in _ROUNDED_TERMS) * abs(term))
    return Answer(total, error)


def _gated(gate: Answer, up: Answer) -> Answer:
    """Their product, which is rounded to float32, or lost where it is below the smallest normal number."""
    total = gate.exact * up.exact
    error = gate.error * abs(up.exact) + (abs(gate.exact) + gate.error) * up.error
    return Answer(total, error + F32.unit_roundoff * (abs(total) + error) + 2.0**F32.exponent_min)


_WHOLE = frozenset({"tensor", "rows"})
"""Scales that a whole sum has in common."""


def _in_blocks(operation: Operation, a: Array, b: Array, exact: Mapping[str, Array]) -> tuple[Array, Array]:
    """A [m,k] and B [k,n] times the factors of their blocks, if they have any."""
    block_k = operation.a_dtype.block or (SCALE_BLOCK if operation.scales == "blocks" else 0)
    if not block_k:
        return a, b
    block_n = SCALE_BLOCK if operation.scales == "blocks" else 1
    of_k, of_n = np.arange(a.shape[1]) // block_k, np.arange(b.shape[1]) // block_n
    return a * exact["scale_a"][:, of_k], b * exact["scale_b"][of_n][:, of_k].T


def _cut(sums: Sums, k: int, magnitude: Array, units: Array | None) -> Array | float | None:
    """What a matrix unit may lose of sums over k, whose products have this `magnitude` together; None where it is as
    exact as float32. Nothing of exact ones: `exact_inputs` keeps what float32 takes over within what the unit counts
    exactly; the sum over all of k may not."""
    if not sums.terms:
        return None
    cut = sums.cut_of(k) * magnitude
    if units is None:
        return cut
    return 0.0 if sums.run_k else cut * (magnitude * sums.unit / 2 >= units)


def _roundings(operation: Operation, k: int, added: int) -> int:
    """How many times a term of a sum may be rounded to which so many are `added`."""
    if operation.c_dtype.is_integer:
        return 0
    product_bits = operation.a_dtype.significand_bits + operation.b_dtype.significand_bits
    sums = 1 if operation.accumulator.is_integer else k + (product_bits > F32.significand_bits)
    return sums + max(added, 1) + 2 * bool(operation.scales) + operation.has_alpha + operation.has_beta


_TERMS = {"bias": "bias", "accumulate": "c", "residual": "residual", "beta_residual": "residual"}
"""The operands that steps add."""
_ROUNDED_TERMS = frozenset({"beta_residual"})
"""Those of them that add a product."""


def _term(step: str, exact: Mapping[str, Array]) -> Array:
    """What a step adds; of the rows of several matrices, which follow one another."""
    added = exact[_TERMS[step]]
    added = added.reshape(-1, added.shape[-1]) if added.ndim > 2 else added
    return added * exact["beta"] if step == "beta_residual" else added


def _rounded(exact: Array, dtype: Dtype, arrays: Arrays) -> Array:
    """The nearest number of `dtype`, of two the even one, in float64."""
    return arrays.decoded(arrays.encoded(exact, dtype), dtype)


def _rounded_away(exact: Array, dtype: Dtype, arrays: Arrays) -> Array:
    """The nearest number of `dtype`, of two the one further from zero, in float64: where the even one is nearer to
    zero, and as far on the other side of `exact` there is a number too, `exact` is halfway and that is the one."""
    even = _rounded(exact, dtype, arrays)
    other = 2 * exact - even
    halfway = (abs(even) < abs(exact)) & (_rounded(other, dtype, arrays) == other)
    rounded = even + 0  # a copy
    rounded[halfway] = other[halfway]
    return rounded


def _rounded_toward_zero(exact: Array, dtype: Dtype, arrays: Arrays) -> Array:
    """The next number of `dtype` that is not further from zero, in float64: its bits count up with its magnitude."""
    bits = arrays.encoded(exact, dtype)
    beyond = abs(arrays.decoded(bits, dtype)) > abs(exact)
    bits[beyond] -= 1
    return arrays.decoded(bits, dtype)


_ROUNDED: dict[Rounding, Callable[[Array, Dtype, Arrays], Array]] = {
    "half_even": _rounded,
    "half_away": _rounded_away,
    "toward_zero": _rounded_toward_zero,
}


@dataclass(frozen=True)
class Mismatch:
    """How an output differs from what it must be; counts are elements of C, `first` is (row, column)."""

    elements: int
    wrong: int
    unwritten: int
    outside: int
    first: tuple[int, int] | None
    got: float
    expected: float

    def __str__(self) -> str:
        parts = []
        if self.first is not None:
            row, column = self.first
            parts.append(f"{self.wrong} of {self.elements} elements wrong")
            if self.unwritten:
                parts.append(f"{self.unwritten} of them never written")
            parts.append(f"first at [{row},{column}]: got {self.got:.6g}, expected {self.expected:.6g}")
        if self.outside:
            parts.append(f"{self.outside} elements written outside C")
        return "; ".join(parts)


def compare(output: Array, operands: Operands, outside: int = 0, arrays: Arrays = HOST) -> Mismatch | None:
    """The difference between `output` [rows,n], bits of C's format, and what it must be; None when every element is
    right. `outside` counts the elements that were written around C."""
    dtype, answer = operands.problem.operation.c_dtype, operands.answer
    values = arrays.decoded(output, dtype)
    rounded = _ROUNDED[operands.rounding]
    lowest, highest = (
        rounded(end, dtype, arrays) for end in (answer.exact - answer.error, answer.exact + answer.error)
    )
    right = (lowest <= values) & (values <= highest)  # False for NaN
    elements = operands.problem.rows * operands.problem.n
    wrong = elements - int(right.sum())
    if not wrong and not outside:
        return None
    row, column = divmod(int((right * 1).argmin()), operands.problem.n)
    return Mismatch(
        elements=elements,
        wrong=wrong,
        unwritten=int((output == arrays.filled(1, dtype.poison_bits, dtype)).sum()),
        outside=outside,
        first=(row, column) if wrong else None,
        got=float(values[row, column]),
        expected=float(answer.exact[row, column]),
    )
