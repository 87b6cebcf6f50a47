"""Which entries a table has, as those ask who plan calls: tracers, compilers, and the kernels of torch's dispatcher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

import torch

from hktune.core.operation import Operation
from hktune.dispatch import Entry, Validated
from hktune.dispatch.calls import INTEGER_SUMS, MX_OPERATIONS, SCALED_OPERATIONS
from hktune.dispatch.choice import Choices
from hktune.runtime.calls.call_operations import CALLS


class TableEntries:
    """The usable entries of a table. No device is asked, and nothing is launched."""

    def __init__(self, validated: Validated) -> None:
        self._validated = validated
        self._choices = Choices(validated)
        self._operations = frozenset(entry.problem.operation for entry in validated.usable)

    @property
    def endings(self) -> frozenset[str]:
        """Of the operations that it has entries of, as `hktune.dispatch.calls` has them."""
        return frozenset(ending for (_, ending, _), each in CALLS.items() if each in self._operations)

    @property
    def kinds(self) -> frozenset[str]:
        """Of the operations that it has entries of."""
        return frozenset(each.kind for each in self._operations)

    def does(self, kind: str, *steps: str, scaled: bool = False) -> bool:
        """Whether it has entries of products of this kind, with scales or without, with these steps behind."""
        words = (kind, steps, scaled)
        return any((each.kind, each.epilogue, bool(each.scales)) == words for each in self._operations)

    @property
    def has_several_scaled(self) -> bool:
        """Whether it has entries of several products with scales."""
        return any(each.count and each.scales for each in self._operations)

    @property
    def has_scaled(self) -> bool:
        """Whether it has entries of torch's scaled products."""
        return not self._operations.isdisjoint((*SCALED_OPERATIONS, *MX_OPERATIONS))

    @property
    def has_integers(self) -> bool:
        """Whether it has entries of torch's product of integers."""
        return INTEGER_SUMS in self._operations

    def may_serve(self, dtype: torch.dtype, layout: str, *sizes: int | torch.SymInt | None, ending: str = "") -> bool:
        """Whether an entry holds for a product of operands of `dtype` in `layout`, with this ending, by those of its
        sizes m, n, k that are known; False where none is."""
        operation = CALLS.get((dtype, ending, layout))
        known = [size if isinstance(size, int) else None for size in sizes]
        return operation in self._operations and any(
            entry.problem.operation == operation and _holds(entry, *known) for entry in self._validated.usable
        )

    def has_entry(self, dtype: torch.dtype, ending: str, m: int, n: int, k: int) -> bool:
        """Whether it says what serves a linear [N, K] of m rows with this ending: a kernel, or the vendor library."""
        operation = CALLS.get((dtype, ending, "nt"))
        return operation is not None and self._choices.find(m, n, k, str(operation)) is not None

    def has_kernel(self, m: int, n: int, k: int, operations: Iterable[Operation]) -> bool:
        """Whether a kernel of the table does one of `operations` of these sizes."""
        found = (self._choices.find(m, n, k, str(each)) for each in operations if each in self._operations)
        return any(each is not None and each.entry.choice != "vendor" for each in found)

    @cached_property
    def entries_number(self) -> int:
        """The same of tables of the same entries, in any process: of all that `may_serve` and `has_entry` ask."""
        entries = self._validated.usable
        served = sorted((*entry.problem.key, entry.rows, entry.choice == "vendor") for entry in entries)
        return int.from_bytes(hashlib.sha256(repr(served).encode()).digest()[:7])


def _holds(entry: Entry, m: int | None, n: int | None, k: int | None) -> bool:
    fewest, most = entry.rows
    fits = (m is None or fewest <= m <= most, n is None or n == entry.n, k is None or k == entry.k)
    return entry.choice != "vendor" and all(fits) and (m, n, k) != (None, None, None)
