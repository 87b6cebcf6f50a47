"""How many rows each group of a grouped product has: what kernels are proved and timed on, where nobody says otherwise.

`offsets` of such a product has where each group ends: the rows of a group follow those of the one before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate, pairwise


def routed_ends(rows: int, groups: int, seed: int) -> list[int]:
    """Where groups end when each of `rows` rows goes to one of them by chance, all alike: as a trained model's router
    sends tokens to experts, more or less. Equal arguments give equal ends."""
    chosen = random.Random(f"{rows} {groups} {seed}").choices(range(groups), k=rows)
    counts = [0] * groups
    for group in chosen:
        counts[group] += 1
    return list(accumulate(counts))


def row_ranges(ends: Iterable[int]) -> list[tuple[int, int]]:
    """The first row of each group, and the one behind its last."""
    own = [0, *map(int, ends)]
    return list(pairwise(own))
