"""Operands to time on: slices of one arena of random numbers, as many sets as keep the last-level cache cold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hktune.core.problem import Problem

if TYPE_CHECKING:
    import torch

ELEMENT_BYTES = 2
ALIGNMENT_ELEMENTS = 256  # 512 bytes, what allocations of both drivers are aligned to at least
COLD_FACTOR = 2
"""Between two uses of a set, others of at least this many times the last-level cache are read and written."""
SETS_MAX = 64
FILL_ELEMENTS = 1 << 28  # of the arena at once: random numbers are drawn as float32 beside it


@dataclass(frozen=True)
class OperandSet:
    """a [m,k], bt [n,k], c [m,n] and bias [n] (or None), contiguous bf16 on the device."""

    a: torch.Tensor
    bt: torch.Tensor
    c: torch.Tensor
    bias: torch.Tensor | None


def set_bytes(problem: Problem) -> int:
    """What one launch touches once."""
    return ELEMENT_BYTES * (problem.m * problem.k + problem.n * problem.k + problem.m * problem.n)


def set_count(problem: Problem, cache: str, cache_bytes: int) -> int:
    """How many sets to rotate through: one when `cache` is warm, else as many as make it cold, two at least."""
    if cache == "warm":
        return 1
    return min(max(2, -(-COLD_FACTOR * cache_bytes // set_bytes(problem)) + 1), SETS_MAX)


class Arena:
    """Standard normal bf16 numbers and an output region, both large enough for every one of `problems`.

    All problems share it, so going from one to another costs no copy. Inputs are never written after they were drawn.
    """

    def __init__(self, problems: Iterable[Problem], cache: str, cache_bytes: int, seed: int) -> None:
        self.cache = cache
        self._cache_bytes = cache_bytes
        self._seed = seed
        wanted = [(problem, set_count(problem, cache, cache_bytes)) for problem in problems]
        self._inputs = self._random(max(_input_elements(problem) * sets for problem, sets in wanted))
        self._outputs = self._random(max(_padded(problem.m * problem.n) * sets for problem, sets in wanted))

    def sets(self, problem: Problem) -> list[OperandSet]:
        """The sets of `problem`, none sharing an element with another."""
        count = set_count(problem, self.cache, self._cache_bytes)
        return [self._set(problem, index) for index in range(count)]

    def _set(self, problem: Problem, index: int) -> OperandSet:
        m, n, k = problem.m, problem.n, problem.k
        a = index * _input_elements(problem)
        bt = a + _padded(m * k)
        bias = bt + _padded(n * k)
        c = index * _padded(m * n)
        return OperandSet(
            a=self._inputs[a : a + m * k].view(m, k),
            bt=self._inputs[bt : bt + n * k].view(n, k),
            c=self._outputs[c : c + m * n].view(m, n),
            bias=self._inputs[bias : bias + n] if problem.operation.has_bias else None,
        )

    def _random(self, elements: int) -> torch.Tensor:
        import torch

        generator = torch.Generator("cuda").manual_seed(self._seed)
        numbers = torch.empty(elements, dtype=torch.bfloat16, device="cuda")
        for first in range(0, elements, FILL_ELEMENTS):
            piece = numbers[first : first + FILL_ELEMENTS]
            piece.copy_(torch.randn(piece.numel(), device="cuda", generator=generator))
        torch.cuda.synchronize()  # the streams that launches go to wait for no other
        return numbers


def _input_elements(problem: Problem) -> int:
    return _padded(problem.m * problem.k) + _padded(problem.n * problem.k) + _padded(problem.n)


def _padded(elements: int) -> int:
    return -(-elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS
