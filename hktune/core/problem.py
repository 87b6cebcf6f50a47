"""A problem: what is computed, and of which sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One GEMM to be tuned for: C[m,n] = A[m,k] @ Bt[n,k]^T (+ bias[n])."""

    m: int
    n: int
    k: int
    dtype: str = "bf16"
    epilogue: str = "none"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def key(self) -> tuple[int, int, int, str, str]:
        """What a dispatch table looks up."""
        return (self.m, self.n, self.k, self.dtype, self.epilogue)

    def __str__(self) -> str:
        tail = "" if self.epilogue == "none" else f"+{self.epilogue}"
        return f"{self.m}x{self.n}x{self.k} {self.dtype}{tail}"


@dataclass(frozen=True)
class ProofProblem:
    """A problem that a variant is proved on. The rows of every matrix lie `padding` elements apart."""

    problem: Problem
    padding: int = 0

    def __str__(self) -> str:
        return f"{self.problem}, rows {self.padding} apart" if self.padding else str(self.problem)
