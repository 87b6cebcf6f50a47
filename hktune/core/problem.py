"""A problem: what is computed, and of which sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hktune.core.operand import operands_of
from hktune.core.operation import BF16_NT, Operation
from hktune.core.sums import FLOAT32_SUMS, Sums

Rounding = Literal["half_even", "half_away", "toward_zero"]
"""How a kernel rounds C to its format: to nearest, and what is halfway between two numbers to the even one or to the
one further from zero; or to the next number toward zero. What hktune makes does the first."""

Key = tuple[int, int, int, str]
"""m, n, k and the operation's text."""


@dataclass(frozen=True, order=True)
class Problem:
    """One product to be tuned for: C[m,n] = A[m,k] @ B[k,n], stored and finished as `operation` says.

    A batched operation has as many of them. A grouped one has its groups in the m rows, whatever rows each has, or
    likewise in k.
    """

    m: int
    n: int
    k: int
    operation: Operation = BF16_NT

    @property
    def flops(self) -> int:
        rows = self.m if self.operation.divides_k else self.rows
        return 2 * rows * self.n * self.k * self.operation.b_columns

    @property
    def groups(self) -> int:
        """How many products there are; 1 where the operation has no count."""
        return self.operation.count or 1

    @property
    def rows(self) -> int:
        """Of A, and of C: those of all matrices."""
        return self.m if self.operation.divides_rows else self.m * self.groups

    @property
    def divided(self) -> int:
        """The size that groups divide: m or k."""
        return self.k if self.operation.divides_k else self.m

    @property
    def bytes(self) -> int:
        """What one launch must touch once: A, B, what the epilogue reads, and C."""
        operands = operands_of(self.operation).values()
        return sum(math.prod(operand.shape(self.sizes)) * operand.dtype.bytes for operand in operands)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by name."""
        return {"m": self.m, "n": self.n, "k": self.k}

    def numbers(self, padding: int = 0) -> dict[str, int]:
        """What a launch takes by value: the sizes, how many products there are if the operation is of several, the row
        stride (elements) of every matrix (`Operand.row_padding`), in a stack that of the matrices, and increments,
        which are 1."""
        matrices = [operand for operand in operands_of(self.operation).values() if operand.row_stride]
        strides = {
            matrix.row_stride: matrix.extents(self.sizes)[-1] + matrix.row_padding(padding) for matrix in matrices
        }
        between = {
            stack.matrix_stride: stack.extents(self.sizes)[-2] * strides[stack.row_stride]
            for stack in matrices
            if stack.matrix_stride
        }
        counted = {"groups": self.operation.count} if self.operation.count else {}
        increments = {matrix.increment: 1 for matrix in matrices if matrix.increment}
        return {**self.sizes, **counted, **strides, **between, **increments}

    @property
    def key(self) -> Key:
        """What a dispatch table looks up."""
        return (self.m, self.n, self.k, str(self.operation))

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k} {self.operation}"


@dataclass(frozen=True)
class ProofProblem:
    """A problem that a variant is proved on. The rows of every matrix are stored `padding` elements apart.

    Operands are standard normal numbers; with `exact_sums` they are such that no sum of them rounds in float32, in
    whatever order, and C must be the one `rounding`. `sums` says where a matrix unit may be less exact.
    """

    problem: Problem
    padding: int = 0
    exact_sums: bool = False
    rounding: Rounding = "half_even"
    sums: Sums = FLOAT32_SUMS

    def __str__(self) -> str:
        rows = f", rows {self.padding} apart" if self.padding else ""
        return f"{self.problem}{rows}{', exact sums' if self.exact_sums else ''}"
