"""A problem: what is computed, and of which sizes."""

from __future__ import annotations

from dataclasses import dataclass

from hktune.core.operation import BF16_NT, Operation

Key = tuple[int, int, int, str]
"""m, n, k and the operation's text."""


@dataclass(frozen=True, order=True)
class Problem:
    """One product to be tuned for: C[m,n] = A[m,k] @ B[k,n], stored and finished as `operation` says."""

    m: int
    n: int
    k: int
    operation: Operation = BF16_NT

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def bytes(self) -> int:
        """What one launch must touch once: A, B, C and a bias."""
        operation = self.operation
        inputs = self.m * self.k * operation.a_dtype.bytes + self.n * self.k * operation.b_dtype.bytes
        outputs = self.m * self.n + (self.n if operation.has_bias else 0)
        return inputs + outputs * operation.c_dtype.bytes

    @property
    def key(self) -> Key:
        """What a dispatch table looks up."""
        return (self.m, self.n, self.k, str(self.operation))

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k} {self.operation}"


@dataclass(frozen=True)
class ProofProblem:
    """A problem that a variant is proved on. The rows of every matrix are stored `padding` elements apart."""

    problem: Problem
    padding: int = 0

    def __str__(self) -> str:
        return f"{self.problem}, rows {self.padding} apart" if self.padding else str(self.problem)
