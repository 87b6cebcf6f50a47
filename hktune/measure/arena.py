"""Operands to time on: slices of one arena of random numbers, as many sets as keep the last-level cache cold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from hktune.core.dtype import Dtype
from hktune.core.group_sizes import Tokens, group_ends
from hktune.core.operand import Operand, operands_of
from hktune.core.problem import Problem

if TYPE_CHECKING:
    import torch

ALIGNMENT_ELEMENTS = 256  # 256 bytes or more, what allocations of both drivers are aligned to at least
COLD_FACTOR = 2
"""Between two uses of a set, others of at least this many times the last-level cache are read and written."""
SETS_MAX = 64
FILL_ELEMENTS = 1 << 28  # of the arena at once: random numbers are drawn as float32 first

OperandSet: TypeAlias = "Mapping[str, torch.Tensor]"
"""The tensors of one problem on the device, by the names of `core.operand`, contiguous in their stored shapes."""


def set_count(problem: Problem, cache: str, cache_bytes: int) -> int:
    """How many sets to rotate through: one when `cache` is warm, else as many as make it cold, two at least."""
    if cache == "warm":
        return 1
    return min(max(2, -(-COLD_FACTOR * cache_bytes // problem.bytes) + 1), SETS_MAX)


class Arena:
    """Standard normal numbers of each format and output regions, large enough for every one of `problems`.

    All problems share them, so going from one to another costs no copy. Inputs are never written after they were drawn.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        cache: str,
        cache_bytes: int,
        seed: int,
        tokens: Mapping[Problem, Tokens] = MappingProxyType({}),
    ) -> None:
        """`tokens`: the sizes that groups of a problem had, where that is known."""
        self.cache = cache
        self._tokens = tokens
        self._cache_bytes = cache_bytes
        self._seed = seed
        elements: dict[tuple[bool, Dtype], int] = defaultdict(int)
        for problem in problems:
            for region, of_one_set in _set_elements(problem).items():
                elements[region] = max(elements[region], of_one_set * self._count(problem))
        self._regions = {region: self._random(count, region[1]) for region, count in elements.items()}

    def sets(self, problem: Problem) -> list[OperandSet]:
        """The sets of `problem`, none sharing an element with another."""
        return [self._set(problem, index) for index in range(self._count(problem))]

    def _count(self, problem: Problem) -> int:
        return set_count(problem, self.cache, self._cache_bytes)

    def _set(self, problem: Problem, index: int) -> OperandSet:
        first = {region: index * elements for region, elements in _set_elements(problem).items()}
        tensors: dict[str, torch.Tensor] = {}
        for operand, elements in _elements(problem):
            if operand.name == "offsets":
                tensors[operand.name] = self._offsets(problem)
                continue
            region, shape = _region(operand), operand.shape(problem.sizes)
            begin = first[region]
            tensors[operand.name] = self._regions[region][begin : begin + math.prod(shape)].view(shape)
            first[region] += elements
        return tensors

    def _offsets(self, problem: Problem) -> torch.Tensor:
        """Where groups end: the same for all sets."""
        import torch

        ends = group_ends(problem.divided, problem.groups, self._seed, self._tokens.get(problem, ()))
        return torch.tensor(ends, dtype=torch.int32, device="cuda")

    def _random(self, elements: int, dtype: Dtype) -> torch.Tensor:
        import torch

        generator = torch.Generator("cuda").manual_seed(self._seed)
        numbers = torch.empty(elements, dtype=getattr(torch, dtype.torch_name), device="cuda")
        for first in range(0, elements, FILL_ELEMENTS):
            piece = numbers[first : first + FILL_ELEMENTS]
            piece.copy_(torch.randn(piece.numel(), device="cuda", generator=generator))
        torch.cuda.synchronize()  # the streams that launches go to wait for no other
        return numbers


def _region(operand: Operand) -> tuple[bool, Dtype]:
    """Where an operand is: whether it is written, and its format."""
    return operand.name == "c", operand.dtype


def _elements(problem: Problem) -> Iterator[tuple[Operand, int]]:
    """Each operand, and the elements that it takes with what aligns the next one."""
    for operand in operands_of(problem.operation).values():
        elements = math.prod(operand.shape(problem.sizes))
        yield operand, -(-elements // ALIGNMENT_ELEMENTS) * ALIGNMENT_ELEMENTS


def _set_elements(problem: Problem) -> dict[tuple[bool, Dtype], int]:
    """The elements of one set, by region."""
    sums: dict[tuple[bool, Dtype], int] = defaultdict(int)
    for operand, elements in _elements(problem):
        if operand.name != "offsets":
            sums[_region(operand)] += elements
    return sums
