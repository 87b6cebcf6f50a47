"""The fewest kernels that serve every problem: set cover, exact while that is quick, else greedy."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

# Steps of the exact search before the greedy answer is taken: under a second.
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
    for size in range(len(search.forced), len(greedy) + 1):
        cover = search.of_size(size)
        if cover is not None or search.steps > STEPS_MAX:
            return greedy if cover is None else cover
    return greedy


class _Search:
    """Every cover of a given size, tried problem by problem, the problem with the fewest open kernels first. `forced`
    are the kernels in all of them: some problem has no other."""

    def __init__(self, slowdowns: Slowdowns) -> None:
        self._slowdowns = slowdowns
        self.forced = frozenset(name for kernels in slowdowns if len(kernels) == 1 for name in kernels)
        open_problems = [kernels for kernels in slowdowns if not self.forced & kernels.keys()]
        self._open = sorted(open_problems, key=lambda kernels: (len(kernels), sorted(kernels.items())))
        self._serves: dict[str, int] = {}  # kernel -> a bit for each open problem
        for bit, kernels in enumerate(self._open):
            for name in kernels:
                self._serves[name] = self._serves.get(name, 0) | 1 << bit
        self._seen: set[frozenset[str]] = set()
        self._found: tuple[float, tuple[str, ...]] | None = None
        self.steps = 0

    def of_size(self, size: int) -> frozenset[str] | None:
        """The best cover of `size` kernels; None when there is none, or when the steps ran out."""
        self._seen.clear()
        self._descend(frozenset(), (1 << len(self._open)) - 1, size - len(self.forced))
        return frozenset(self._found[1]) if self._found and self.steps <= STEPS_MAX else None

    def _descend(self, chosen: frozenset[str], uncovered: int, left: int) -> None:
        """Go through the covers that have `chosen`, with the forced ones, and at most `left` more."""
        self.steps += 1
        if self.steps > STEPS_MAX or chosen in self._seen:
            return
        self._seen.add(chosen)
        if not uncovered:
            self.steps += len(self._slowdowns)
            whole = chosen | self.forced
            cover = (_total(self._slowdowns, whole), tuple(sorted(whole)))
            self._found = cover if self._found is None else min(self._found, cover)
        elif left:
            first = (uncovered & -uncovered).bit_length() - 1
            for name in sorted(self._open[first]):
                self._descend(chosen | {name}, uncovered & ~self._serves[name], left - 1)


def _greedy(slowdowns: Slowdowns) -> frozenset[str]:
    """The kernel that serves most of what is left, again and again; then those that the others make superfluous go.

    A kernel's place in the queue is worked out again only when it comes first: serving less, it only falls back.
    """
    serves: dict[str, set[int]] = defaultdict(set)
    for place, kernels in enumerate(slowdowns):
        for name in kernels:
            serves[name].add(place)
    left = set(range(len(slowdowns)))

    def rank(name: str) -> tuple[int, float, str]:
        still = serves[name] & left
        return (-len(still), sum(sorted(slowdowns[place][name] for place in still)), name)

    queue = [rank(name) for name in serves]
    heapq.heapify(queue)
    chosen = []
    while left:
        name = heapq.heappop(queue)[2]
        now = rank(name)
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
            continue
        chosen.append(name)
        left -= serves[name]
    return _without_superfluous(chosen, serves)


def _without_superfluous(chosen: Sequence[str], serves: Mapping[str, set[int]]) -> frozenset[str]:
    servers = Counter(place for name in chosen for place in serves[name])
    kept = set(chosen)
    for name in sorted(chosen):
        if all(servers[place] > 1 for place in serves[name]):
            kept.remove(name)
            servers.subtract(serves[name])
    return frozenset(kept)


def _total(slowdowns: Slowdowns, chosen: frozenset[str]) -> float:
    return sum(sorted(min(kernels[name] for name in kernels if name in chosen) for kernels in slowdowns))
