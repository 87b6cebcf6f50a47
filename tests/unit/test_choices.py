"""What a problem leaves of the values of parameters: of the sm90a GEMM, by hand from what TMA takes of rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from hktune.core.problem_text import problem_of
from hktune.space.search_space import SearchSpace, load_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml")


@pytest.mark.parametrize(
    ("text", "forced"),
    [
        ("64x64x64", {}),
        ("64x64x100", {"a_loads": "bytes_8", "b_loads": "bytes_8", "cluster_rows": 1}),
        ("64x64x97:bf16.nn", {"a_loads": "bytes_2", "cluster_rows": 1}),
        ("64x97x64", {"store": "direct"}),
    ],
)
def test_seeds_have_the_values_that_a_problem_leaves(space: SearchSpace, text: str, forced: dict[str, object]) -> None:
    domain = space.domain(problem_of(text))
    assert len(domain.seeds) > 8
    for seed in domain.seeds:
        assert domain.is_legal(seed)
        assert {name: seed[name] for name in forced} == forced


def test_draws_are_of_every_schedule_and_all_legal(space: SearchSpace) -> None:
    domain, rng = space.domain(problem_of("1000x1000x1001")), Random(3)
    drawn = [domain.sample(rng) for _ in range(60)]
    assert all(map(domain.is_legal, drawn))
    assert set(Counter(each["schedule"] for each in drawn)) == {"single", "cooperative", "ping_pong"}
    assert {each["a_loads"] for each in drawn} == {"bytes_2"}


def test_a_draw_among_values_that_no_rule_allows_finds_none(space: SearchSpace) -> None:
    assert space.domain(problem_of("64x64x100")).draw(Random(1), {"a_loads": ["tma"]}) is None
    found = space.domain(problem_of("64x64x100")).draw(Random(1), {"block_m": [64], "a_loads": ["bytes_8", "tma"]})
    assert found is not None
    assert (found["block_m"], found["a_loads"]) == (64, "bytes_8")
