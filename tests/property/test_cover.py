"""The smallest set of kernels, against trying every set."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hktune.tables import cover
from hktune.tables.cover import smallest_cover

SLOWDOWN = st.sampled_from([1.0, 1.01, 1.02, 1.5])
PROBLEMS = st.lists(st.dictionaries(st.sampled_from("abcdef"), SLOWDOWN, min_size=1), max_size=7)


def covers(slowdowns: list[dict[str, float]], chosen: tuple[str, ...]) -> bool:
    return all(set(chosen) & kernels.keys() for kernels in slowdowns)


def loss(slowdowns: list[dict[str, float]], chosen: tuple[str, ...]) -> float:
    return sum(sorted(min(kernels[name] for name in kernels if name in chosen) for kernels in slowdowns))


@settings(max_examples=300, deadline=None)
@given(PROBLEMS)
def test_it_is_the_best_of_all_sets(slowdowns: list[dict[str, float]]) -> None:
    names = sorted({name for kernels in slowdowns for name in kernels})
    sets = [chosen for size in range(len(names) + 1) for chosen in combinations(names, size)]
    fitting = [chosen for chosen in sets if covers(slowdowns, chosen)]
    best = min(fitting, key=lambda chosen: (len(chosen), loss(slowdowns, chosen), chosen))
    assert smallest_cover(slowdowns) == set(best)


@settings(max_examples=100, deadline=None)
@given(PROBLEMS, st.randoms(use_true_random=False))
def test_the_order_of_the_problems_decides_nothing(slowdowns: list[dict[str, float]], rng: random.Random) -> None:
    shuffled = [dict(rng.sample(sorted(kernels.items()), len(kernels))) for kernels in slowdowns]
    rng.shuffle(shuffled)
    assert smallest_cover(shuffled) == smallest_cover(slowdowns)


@settings(max_examples=100, deadline=None)
@given(PROBLEMS)
def test_out_of_steps_it_still_covers_with_none_to_spare(slowdowns: list[dict[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover, "STEPS_MAX", 0)
        chosen = tuple(smallest_cover(slowdowns))
    assert covers(slowdowns, chosen)
    assert not any(covers(slowdowns, tuple(set(chosen) - {name})) for name in chosen)


def greedily(slowdowns: list[dict[str, float]]) -> set[str]:
    """What the greedy cover is, by looking at everything at every step."""
    left, chosen = list(slowdowns), set()
    while left:
        names = sorted({name for kernels in left for name in kernels})
        served = {name: sorted(kernels[name] for kernels in left if name in kernels) for name in names}
        best = min(names, key=lambda name: (-len(served[name]), sum(served[name]), name))
        chosen.add(best)
        left = [kernels for kernels in left if best not in kernels]
    for name in sorted(chosen):
        if covers(slowdowns, tuple(chosen - {name})):
            chosen.remove(name)
    return chosen


@settings(max_examples=100, deadline=None)
@given(PROBLEMS)
def test_out_of_steps_it_is_the_greedy_one(slowdowns: list[dict[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover, "STEPS_MAX", -1)
        assert smallest_cover(slowdowns) == greedily(slowdowns)


def test_where_each_problem_has_one_kernel_there_is_nothing_to_search() -> None:
    """As after a run on modelled times: ten thousand shapes, a kernel each, and many of them alike."""
    slowdowns = [{f"{number % 3000:04x}": 1.0} for number in range(10_000)]
    search = cover._Search(slowdowns)
    assert search.of_size(3000) == {f"{number:04x}" for number in range(3000)}
    assert search.steps == 1 + len(slowdowns)
    assert smallest_cover(slowdowns) == search.forced


def test_a_thousand_problems_are_no_trouble() -> None:
    rng = random.Random(1)
    names = [f"{number:04x}" for number in range(400)]
    slowdowns = [{name: rng.uniform(1, 1.02) for name in rng.sample(names, 6)} for _ in range(1000)]
    chosen = tuple(smallest_cover(slowdowns))
    assert covers([dict(kernels) for kernels in slowdowns], chosen)
