"""A domain narrowed to a list."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hktune.core.errors import SpaceError
from hktune.core.problem import Problem
from hktune.search import STRATEGIES, create_strategy
from hktune.space import load_space
from hktune.space.listed import ListedDomain

PROBLEM = Problem(512, 1024, 1024)


def test_only_listed_and_legal_configs_are_in_it(toy_space_path: Path) -> None:
    space = load_space(toy_space_path)
    legal, *others = space.domain(PROBLEM).enumerate()
    illegal = space.config({"warps_m": 8, "warps_n": 8})
    domain = ListedDomain(space, PROBLEM, [others[5], illegal, legal])
    assert list(domain.enumerate()) == [others[5], legal]
    assert domain.count == 2
    assert not domain.is_legal(others[0])
    assert {domain.sample(random.Random(seed)).id for seed in range(20)} == {others[5].id, legal.id}


def test_an_empty_list_says_what_to_do(toy_space_path: Path) -> None:
    domain = ListedDomain(load_space(toy_space_path), PROBLEM, [])
    assert domain.is_empty
    with pytest.raises(SpaceError, match="hktune build"):
        domain.sample(random.Random(0))


def test_neighbours_come_by_how_much_they_differ(toy_space_path: Path) -> None:
    space = load_space(toy_space_path)
    config = space.config({})
    configs = list(space.domain(PROBLEM).enumerate())
    domain = ListedDomain(space, PROBLEM, configs)
    differing = [sum(other[name] != config[name] for name in config) for other in domain.neighbours(config)]
    assert set(differing) == {1, 2}
    assert differing == sorted(differing)


@pytest.mark.parametrize("name", ["random", "exhaustive", "hillclimb", "tpe"])
def test_strategies_stay_on_the_list_and_reach_all_of_it(toy_space_path: Path, name: str) -> None:
    assert name in STRATEGIES
    space = load_space(toy_space_path)
    listed = list(space.domain(PROBLEM).enumerate())[::7][:12]
    strategy = create_strategy(name, ListedDomain(space, PROBLEM, listed), seed=1)
    asked = strategy.ask(40)
    assert {config.id for config in asked} == {config.id for config in listed}
