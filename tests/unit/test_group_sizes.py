"""How the rows of a grouped product are divided: by chance, or as a recording has it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hktune.core.group_sizes import SIZE_BOUNDS, group_ends, merged_tokens, routed_ends, row_ranges, tokens_of


def sizes(ends: list[int]) -> list[int]:
    return [end - first for first, end in row_ranges(ends)]


def test_sizes_are_as_often_as_they_were_recorded() -> None:
    """Half of the groups empty, a quarter with one row, an eighth with two and one with forty times as many."""
    tokens = ((0, 4000), (1, 2000), (2, 1000), (40, 1000))
    found = sizes(group_ends(1_000, 128, 0, tokens))
    assert sum(found) == 1_000
    assert found.count(0) == 64
    rows = sorted(found)[64:]
    factor = 1000 / (32 * 1 + 16 * 2 + 16 * 40)
    expected = [1] * 32 + [2] * 16 + [40] * 16
    assert np.allclose(rows, np.array(expected) * factor, atol=1)
    assert found != sorted(found), "in an order by chance"


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_all_in_a_group_whatever_was_recorded(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(20):
        rows, groups = int(random.integers(1, 5000)), int(random.integers(1, 300))
        chosen = np.unique(random.integers(0, 900, int(random.integers(1, 40))))
        tokens = tuple((int(size), int(random.integers(1, 1000))) for size in chosen)
        ends = group_ends(rows, groups, seed, tokens)
        assert len(ends) == groups
        assert ends[-1] == rows
        assert ends == sorted(ends)
        assert ends == group_ends(rows, groups, seed, tokens)


def test_without_a_recording_rows_go_by_chance() -> None:
    assert group_ends(100, 8, 3) == routed_ends(100, 8, 3) == group_ends(100, 8, 3, ((0, 5),))
    assert group_ends(7, 1, 0, ((3, 1),)) == [7]


def test_counts_between_bounds_keep_sizes_to_an_eighth() -> None:
    for size in (0, 1, 15, 16, 17, 100, 4097, 2**24):
        bound = SIZE_BOUNDS[int(np.searchsorted(SIZE_BOUNDS, size, side="right")) - 1]
        assert size / (1 + 1 / 8) < bound + (size == 0) <= size + (size == 0)
    assert list(SIZE_BOUNDS) == sorted({*SIZE_BOUNDS})
    counts = [0] * len(SIZE_BOUNDS)
    counts[0], counts[20] = 7, 2
    assert tokens_of(counts) == ((0, 7), (SIZE_BOUNDS[20], 2))


def test_merged_recordings_stay_bounded() -> None:
    parts = [tuple((size, 1) for size in range(first, 4000, 7)) for first in range(7)]
    merged = merged_tokens(parts)
    assert len(merged) <= len(SIZE_BOUNDS)
    assert sum(count for _, count in merged) == 4000
    assert {size for size, _ in merged} <= {*SIZE_BOUNDS}
    assert merged_tokens([((1, 2),), (), ((1, 3), (2, 1))]) == ((1, 5), (2, 1))
    assert Counter(dict(merged))[0] == 1
