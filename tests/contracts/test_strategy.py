"""The contract of `Strategy`, run on every implementation."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hktune.core.config import Config
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.search import STRATEGIES, Cost, Outcome, Strategy, create_strategy
from hktune.space import Domain, load_space

PROBLEM = Problem(512, 1024, 1024)
RUN_ALONE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_strategy import PROBLEM, ids_of_run
from hktune.space import load_space
from hktune.search import STRATEGIES
domain = load_space(Path(sys.argv[2])).domain(PROBLEM)
print(json.dumps({name: ids_of_run(name, domain) for name in STRATEGIES}))
"""


def time_us(config: Config) -> float:
    """A made-up time: fast for big blocks and three stages."""
    area = int(config["block_m"]) * int(config["block_n"])
    return 1e6 / area + 3.0 * abs(int(config["stages"]) - 3) + (0.0 if config["order"] == "swizzled" else 2.0)


def outcome(config: Config) -> Outcome:
    """Rows order does not compile; all else is timed."""
    if config["order"] == "rows":
        return Outcome(config, Status.COMPILE_ERROR)
    return Outcome(config, Status.OK, Cost(time_us(config)))


def ids_of_run(
    name: str,
    domain: Domain,
) -> list[str]:
    strategy = create_strategy(name, domain, seed=3)
    asked: list[Config] = []
    for _ in range(5):
        batch = strategy.ask(4)
        asked += batch
        strategy.tell([outcome(config) for config in batch])
    return [config.id for config in asked]


first_run = cache(ids_of_run)


@pytest.fixture(scope="module")
def domain(toy_space_path: Path) -> Domain:
    return load_space(toy_space_path).domain(PROBLEM)


@pytest.fixture(scope="module")
def ids_alone(toy_space_path: Path) -> dict[str, list[str]]:
    """The same runs in a fresh process, where string hashes differ."""
    command = [sys.executable, "-c", RUN_ALONE, str(Path(__file__).parent), str(toy_space_path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("name", STRATEGIES)
class TestStrategyContract:
    def test_is_a_strategy_of_its_name(self, name: str, domain: Domain) -> None:
        strategy: Strategy = create_strategy(name, domain, 0)
        assert strategy.name == name

    def test_asks_legal_configs_and_none_twice(self, name: str, domain: Domain) -> None:
        strategy = create_strategy(name, domain, 0)
        asked: list[Config] = []
        for _ in range(5):
            batch = strategy.ask(4)
            assert len(batch) == 4
            strategy.tell([outcome(config) for config in batch])
            asked += batch
        assert len(set(asked)) == 20
        assert all(domain.has_values_of(config) and domain.is_legal(config) for config in asked)

    def test_seeds_come_first(self, name: str, domain: Domain) -> None:
        assert len(domain.seeds) == 2
        assert tuple(create_strategy(name, domain, 0).ask(3)[:2]) == domain.seeds

    def test_may_be_asked_again_before_it_is_told(self, name: str, domain: Domain) -> None:
        strategy = create_strategy(name, domain, 0)
        waiting = [config for _ in range(6) for config in strategy.ask(3)]
        strategy.tell([outcome(config) for config in reversed(waiting)])
        assert len({*waiting, *strategy.ask(3)}) == 21

    def test_ends_after_every_legal_config(self, name: str, domain: Domain) -> None:
        small = domain.space.domain(Problem(64, 256, 64))
        legal = list(small.enumerate())
        known, unknown = legal[6:], legal[:6]
        strategy = create_strategy(name, small, 1)
        strategy.tell([outcome(config) for config in known])
        asked: list[Config] = []
        while batch := strategy.ask(4):
            asked += batch
            strategy.tell([outcome(config) for config in batch])
        assert len(asked) == len(unknown)
        assert set(asked) == set(unknown)
        assert strategy.ask(1) == []

    def test_asks_nothing_where_nothing_is_legal(self, name: str, domain: Domain) -> None:
        assert create_strategy(name, domain.space.domain(Problem(100, 512, 64)), 0).ask(3) == []

    def test_equal_seeds_give_equal_sequences(self, name: str, domain: Domain) -> None:
        assert ids_of_run(name, domain) == first_run(name, domain)

    def test_a_fresh_process_gives_the_same_sequence(
        self, name: str, domain: Domain, ids_alone: dict[str, list[str]]
    ) -> None:
        assert ids_alone[name] == first_run(name, domain)

    def test_can_be_carried_to_another_process_before_it_is_asked(self, name: str, domain: Domain) -> None:
        carried: Strategy = pickle.loads(pickle.dumps(create_strategy(name, domain, 3)))
        assert [config.id for config in carried.ask(4)] == first_run(name, domain)[:4]

    def test_takes_failures_alone(self, name: str, domain: Domain) -> None:
        strategy = create_strategy(name, domain, 0)
        asked: list[Config] = []
        for _ in range(5):
            batch = strategy.ask(4)
            strategy.tell([Outcome(config, Status.TIMEOUT) for config in batch])
            asked += batch
        assert len(set(asked)) == 20

    def test_does_not_ask_for_what_it_was_told(self, name: str, domain: Domain) -> None:
        known = list(domain.enumerate())[::2]
        strategy = create_strategy(name, domain, 0)
        strategy.tell([outcome(config) for config in known[:40]])
        assert not {*strategy.ask(8)} & {*known[:40]}

    def test_takes_outcomes_of_other_problems_and_other_spaces(self, name: str, domain: Domain) -> None:
        illegal_here = Config({**domain.seeds[0], "warps_m": 8, "warps_n": 8})
        assert domain.has_values_of(illegal_here)
        assert not domain.is_legal(illegal_here)
        strangers = [illegal_here, Config({"block_m": 64}), Config({**domain.seeds[0], "stages": 9})]
        strategy = create_strategy(name, domain, 0)
        strategy.tell([Outcome(config, Status.OK, Cost(1.0)) for config in strangers])
        batch = strategy.ask(30)
        assert len(set(batch)) == 30
        assert all(domain.is_legal(config) for config in batch)
