"""The fewest kernels that serve every problem: set cover, exact while that is quick, else greedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Steps of the exact search before the greedy answer stands: under a second.
STEPS_MAX = 200_000

Slowdowns = Sequence[Mapping[str, float]]
"""For each problem, the kernels that may serve it and their time over the best one's."""


def smallest_cover(slowdowns: Slowdowns) -> frozenset[str]:
    """The smallest set of kernels with one for every problem; every problem must have a kernel that may serve it.

    Of sets of one size the one of the least total slowdown, then the first by name: the order of the input decides
    nothing. Beyond STEPS_MAX steps of search the set is the greedy one, which may be larger.
    """
    greedy = _greedy(slowdowns)
    search = _Search(slowdowns)
    for size in range(len(greedy) + 1):
        cover = search.of_size(size)
        if cover is not None or search.steps > STEPS_MAX:
            return greedy if cover is None else cover
    return greedy


class _Search:
    """Every cover of a given size, tried problem by problem, the problem with the fewest open kernels first."""

    def __init__(self, slowdowns: Slowdowns) -> None:
        self._slowdowns = sorted(slowdowns, key=lambda kernels: (len(kernels), sorted(kernels.items())))
        self._serves: dict[str, int] = {}  # kernel -> a bit for each problem
        for bit, kernels in enumerate(self._slowdowns):
            for name in kernels:
                self._serves[name] = self._serves.get(name, 0) | 1 << bit
        self._seen: set[frozenset[str]] = set()
        self._found: tuple[float, tuple[str, ...]] | None = None
        self.steps = 0

    def of_size(self, size: int) -> frozenset[str] | None:
        """The best cover of `size` kernels; None when there is none, or when the steps ran out."""
        self._seen.clear()
        self._descend(frozenset(), (1 << len(self._slowdowns)) - 1, size)
        return frozenset(self._found[1]) if self._found and self.steps <= STEPS_MAX else None

    def _descend(self, chosen: frozenset[str], uncovered: int, left: int) -> None:
        self.steps += 1
        if self.steps > STEPS_MAX or chosen in self._seen:
            return
        self._seen.add(chosen)
        if not uncovered:
            self.steps += len(self._slowdowns)
            cover = (_total(self._slowdowns, chosen), tuple(sorted(chosen)))
            self._found = cover if self._found is None else min(self._found, cover)
        elif left:
            first = (uncovered & -uncovered).bit_length() - 1
            for name in sorted(self._slowdowns[first]):
                self._descend(chosen | {name}, uncovered & ~self._serves[name], left - 1)


def _greedy(slowdowns: Slowdowns) -> frozenset[str]:
    """The kernel that serves most of what is left, again and again; then those that the others make superfluous go."""
    left, chosen = list(slowdowns), []
    while left:
        names = {name for kernels in left for name in kernels}
        ranked = {name: [kernels[name] for kernels in left if name in kernels] for name in names}
        best = min(names, key=lambda name: (-len(ranked[name]), sum(sorted(ranked[name])), name))
        chosen.append(best)
        left = [kernels for kernels in left if best not in kernels]
    for name in sorted(chosen):
        rest = {other for other in chosen if other != name}
        if all(rest & kernels.keys() for kernels in slowdowns):
            chosen.remove(name)
    return frozenset(chosen)


def _total(slowdowns: Slowdowns, chosen: frozenset[str]) -> float:
    return sum(sorted(min(kernels[name] for name in chosen & kernels.keys()) for kernels in slowdowns))
