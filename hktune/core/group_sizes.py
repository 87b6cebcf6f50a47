"""How many rows each group of a grouped product has: what kernels are proved and timed on.

`offsets` of such a product has where each group ends: the rows of a group follow those of the one before. A recording
says how often groups had how many rows, its `tokens`. Where nobody says, rows go to groups by chance.
"""

from __future__ import annotations

import bisect
import random
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise

from hktune.core.escaped import shown

_ROWS_MAX = 2**24
_COUNT_MAX = 2**53
_SIZE = re.compile("0|[1-9][0-9]{0,7}")
_EXACT, _STEPS = 16, 8
SIZE_BOUNDS = (
    *range(_EXACT),
    *(low + step * low // _STEPS for low in (_EXACT << octave for octave in range(20)) for step in range(_STEPS)),
    _ROWS_MAX,
)
"""Sizes of groups are counted together from one of these to before the next: each alone up to 16, then eight of them
for each power of two."""

Tokens = tuple[tuple[int, int], ...]
"""How often a group had so many rows, or slightly more: pairs of a size and a count, the smallest size first."""


def tokens_of(counts: Iterable[int]) -> Tokens:
    """The groups that were counted between the bounds, in their order."""
    return tuple((size, count) for size, count in zip(SIZE_BOUNDS, counts, strict=True) if count)


def merged_tokens(all_tokens: Iterable[Tokens]) -> Tokens:
    """Those of several recordings together."""
    counts: dict[int, int] = {}
    for tokens in all_tokens:
        for size, count in tokens:
            counts[size] = counts.get(size, 0) + count
    if len(counts) > len(SIZE_BOUNDS):
        sizes, counts = counts, {}
        for size, count in sizes.items():
            bound = SIZE_BOUNDS[bisect.bisect_right(SIZE_BOUNDS, size) - 1]
            counts[bound] = counts.get(bound, 0) + count
    return tuple(sorted(counts.items()))


def group_ends(rows: int, groups: int, seed: int, tokens: Tokens = ()) -> list[int]:
    """Where `groups` groups of `rows` rows in all end: of sizes as often as `tokens` has them, in an order by chance.
    Equal arguments give equal ends."""
    if not any(size for size, _ in tokens):
        return routed_ends(rows, groups, seed)
    last = list(accumulate(count for _, count in tokens))
    # Each group stands for an equal share of those that were seen, and has the size of the middle one.
    seen = [tokens[bisect.bisect_right(last, (2 * group + 1) * last[-1] // (2 * groups))][0] for group in range(groups)]
    if not any(seen):
        seen[-1] = tokens[-1][0]
    sizes = _scaled(seen, rows)
    random.Random(f"{rows} {groups} {seed}").shuffle(sizes)
    return list(accumulate(sizes))


def _scaled(sizes: list[int], total: int) -> list[int]:
    """`sizes` times one factor, rounded so that they are `total` together. What is 0 stays 0."""
    whole = sum(sizes)
    scaled = [size * total // whole for size in sizes]
    by_rest = sorted(range(len(sizes)), key=lambda index: (-(sizes[index] * total % whole), index))
    for index in by_rest[: total - sum(scaled)]:
        scaled[index] += 1
    return scaled


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


def checked_tokens(found: Mapping[str, object]) -> Tokens:
    """What a file says, as `Tokens`: counts by sizes, which are text. Raises ValueError, the rule and the value, where
    it is none."""
    pairs: list[tuple[int, int]] = []
    if not 1 <= len(found) <= len(SIZE_BOUNDS):
        raise ValueError(f"must have 1 to {len(SIZE_BOUNDS)} sizes of groups, got {len(found)}")
    for size, count in found.items():
        if not (_SIZE.fullmatch(size) and int(size) <= _ROWS_MAX):
            raise ValueError(f"a size of groups is an integer from 0 to {_ROWS_MAX}, got {shown(size)}")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _COUNT_MAX:
            raise ValueError(
                f"{size}: must be how many groups were of that size, an integer from 1, got {shown(count)}"
            )
        pairs.append((int(size), count))
    if not any(size for size, _ in pairs):
        raise ValueError("must have a group with rows, got groups of 0 alone")
    return tuple(sorted(pairs))
