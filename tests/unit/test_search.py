"""What each strategy does beyond the contract that they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from hktune.core.config import Config, Value
from hktune.core.errors import InputError
from hktune.core.outcome import Status
from hktune.core.problem import Problem
from hktune.core.shipped import space_file
from hktune.search import STRATEGIES, Cost, Outcome, Strategy, create_strategy
from hktune.search.unique import UniqueStrategy
from hktune.space import Domain, load_space

LOSS = {"rows": 0.2, "columns": 0.1, "swizzled": 0.0}


@pytest.fixture(scope="module")
def domain(toy_space_path: Path) -> Domain:
    return load_space(toy_space_path).domain(Problem(1024, 2048, 1024))


def time_us(config: Config) -> float:
    """A smooth made-up time: 100 at its only optimum, more with every step away from it."""
    best = {"block_m": 128, "block_n": 256, "warps_m": 4, "stages": 2}
    steps = sum(abs(math.log2(int(config[name]) / value)) for name, value in best.items())
    return 100 * (1 + 0.2 * steps + LOSS[str(config["order"])] + 0.1 * (not config["eager"]))


def timed(configs: list[Config]) -> list[Outcome]:
    return [Outcome(config, Status.OK, Cost(time_us(config))) for config in configs]


def best_time_us(strategy: Strategy, batches: int) -> float:
    times = []
    for _ in range(batches):
        outcomes = timed(strategy.ask(4))
        strategy.tell(outcomes)
        times += [time_us(outcome.config) for outcome in outcomes]
    return min(times)


def test_an_unknown_strategy_is_refused(domain: Domain) -> None:
    known = "auto, tpe, gp, cmaes, qmc, random, hillclimb, exhaustive"
    with pytest.raises(InputError, match=rf"unknown strategy 'tep', did you mean tpe\?: known are {known}$"):
        create_strategy("tep", domain, 0)


def test_the_made_up_time_has_one_optimum(domain: Domain) -> None:
    times = sorted(time_us(config) for config in domain.enumerate())
    assert times[0] == 100
    assert times[1] >= 110


@pytest.mark.parametrize("name", ["auto", "tpe", "cmaes", "hillclimb"])
def test_learning_beats_chance(domain: Domain, name: str) -> None:
    def runs_at_the_optimum(strategy: str) -> int:
        return sum(best_time_us(create_strategy(strategy, domain, seed), batches=10) == 100 for seed in range(10))

    assert runs_at_the_optimum(name) >= runs_at_the_optimum("random") + 5


def test_gp_beats_chance(domain: Domain) -> None:
    assert best_time_us(create_strategy("gp", domain, 0), batches=7) == 100
    assert best_time_us(create_strategy("random", domain, 0), batches=7) > 100


def test_tpe_turns_away_from_failures(domain: Domain) -> None:
    def late_swizzled(swizzled_fails: bool) -> int:
        strategy = create_strategy("tpe", domain, 0)
        for _ in range(12):
            for outcome in timed(strategy.ask(4)):
                fails = swizzled_fails and outcome.config["order"] == "swizzled"
                strategy.tell([Outcome(outcome.config, Status.WRONG) if fails else outcome])
        return sum(config["order"] == "swizzled" for config in strategy.ask(20))

    assert late_swizzled(swizzled_fails=True) < late_swizzled(swizzled_fails=False) / 2


def test_tpe_learns_from_outcomes_that_it_never_asked_for(domain: Domain) -> None:
    known = [config for place, config in enumerate(domain.enumerate()) if place % 5 == 0]

    def mean_us(told: list[Config]) -> float:
        strategies = [create_strategy("tpe", domain, seed) for seed in range(5)]
        for strategy in strategies:
            strategy.tell(timed(told))
        return sum(time_us(config) for strategy in strategies for config in strategy.ask(12)) / 60

    assert mean_us(known) < 0.9 * mean_us([])


def test_hillclimb_asks_around_the_best(domain: Domain) -> None:
    strategy = create_strategy("hillclimb", domain, 0)
    start, elsewhere = domain.space.config({"block_m": 64}), domain.space.config({"stages": 1})
    strategy.tell([Outcome(start, Status.OK, Cost(5.0)), Outcome(elsewhere, Status.OK, Cost(6.0))])
    strategy.ask(len(domain.seeds))
    assert set(strategy.ask(6)) <= set(domain.neighbours(start))


def test_hillclimb_asks_around_the_next_best_while_its_last_neighbours_are_in_flight(domain: Domain) -> None:
    strategy = create_strategy("hillclimb", domain, 0)
    peak, second = domain.seeds
    strategy.tell([Outcome(peak, Status.OK, Cost(1.0)), Outcome(second, Status.OK, Cost(2.0))])
    own = {config for config in domain.neighbours(peak) if config not in domain.seeds}
    assert set(strategy.ask(len(own))) == own
    others = {config for config in domain.neighbours(second) if config not in own}
    assert set(strategy.ask(len(others) - 1)) <= others


def test_hillclimb_starts_again_once_every_neighbour_is_slower(domain: Domain) -> None:
    strategy = create_strategy("hillclimb", domain, 0)
    peak = domain.seeds[0]
    strategy.tell([Outcome(peak, Status.OK, Cost(1.0)), Outcome(domain.seeds[1], Status.OK, Cost(9.0))])
    neighbours = [config for config in domain.neighbours(peak) if config not in domain.seeds]
    asked = strategy.ask(len(neighbours))
    assert set(asked) == set(neighbours)
    strategy.tell([Outcome(config, Status.OK, Cost(2.0)) for config in asked])
    (restart,) = strategy.ask(1)
    strategy.tell([Outcome(restart, Status.OK, Cost(8.0))])
    assert set(strategy.ask(3)) <= set(domain.neighbours(restart))


def test_exhaustive_keeps_the_order_of_the_domain(domain: Domain) -> None:
    asked = create_strategy("exhaustive", domain, 0).ask(10_000)
    seeds = list(domain.seeds)
    assert asked == seeds + [config for config in domain.enumerate() if config not in seeds]


def test_an_illegal_proposal_is_dropped_and_the_next_one_asked_for(domain: Domain) -> None:
    illegal: dict[str, Value] = {**domain.space.config({}), "block_m": 256, "block_n": 512, "stages": 3}
    assert not domain.is_legal(illegal)
    legal = [config for config in domain.enumerate() if config not in domain.seeds][:6]

    class Stubborn(UniqueStrategy):
        name = "stubborn"
        dropped = 0

        def __init__(self, domain: Domain, seed: int) -> None:
            super().__init__(domain, seed)
            self._wanted = iter([proposal for config in legal for proposal in (illegal, config, config)])

        def _propose(self) -> Mapping[str, Value]:
            return next(self._wanted)

        def _dropped(self) -> None:
            self.dropped += 1

    strategy = Stubborn(domain, 0)
    assert strategy.ask(8)[2:] == legal
    assert strategy.dropped == 11, "what is illegal, and what was asked"


def test_where_nothing_legal_is_proposed_the_nearest_legal_config_is_asked(domain: Domain) -> None:
    wanted: dict[str, Value] = {**domain.space.config({}), "block_m": 256, "block_n": 512, "stages": 3}
    assert not domain.is_legal(wanted)

    class Stubborn(UniqueStrategy):
        name = "stubborn"

        def _propose(self) -> Mapping[str, Value]:
            return wanted

    def steps(config: Config) -> tuple[int, int]:
        moved = [abs(p.index(config[p.name]) - p.index(wanted[p.name])) for p in domain.parameters]
        return sum(step > 0 for step in moved), sum(moved)

    asked = Stubborn(domain, 0).ask(12)[len(domain.seeds) :]
    nearest = sorted(steps(config) for config in domain.enumerate() if config not in domain.seeds)
    assert [steps(config) for config in asked] == nearest[: len(asked)]


@pytest.mark.parametrize("space", ["gfx950_gemm_bf16", "sm90a_gemm_bf16"])
def test_auto_searches_spaces_that_are_too_large_to_list(space: str) -> None:
    """A made-up time of two parameters: what it asks for after the seeds is faster than uniform draws."""
    large = load_space(space_file(space)).domain(Problem(4096, 4096, 4096))
    assert large.listed(20_000) is None

    def block_time_us(config: Config) -> float:
        return 10 + abs(int(config["block_m"]) - 64) / 16 + abs(int(config["block_n"]) - 128) / 16

    strategy = create_strategy("auto", large, 0)
    for config in strategy.ask(len(large.seeds)):
        strategy.tell([Outcome(config, Status.OK, Cost(block_time_us(config)))])
    asked = []
    for _ in range(12):
        asked += strategy.ask(1)
        strategy.tell([Outcome(asked[-1], Status.OK, Cost(block_time_us(asked[-1])))])
    assert all(large.is_legal(config) for config in asked)
    assert len({*asked, *large.seeds}) == 12 + len(large.seeds)
    drawn = create_strategy("random", large, 0).ask(len(large.seeds) + 12)[len(large.seeds) :]
    assert sum(map(block_time_us, asked)) < sum(map(block_time_us, drawn))


def test_auto_learns_from_bounds_and_takes_none_for_the_best(domain: Domain) -> None:
    known = [config for place, config in enumerate(domain.enumerate()) if place % 40 == 0]
    fastest = sorted(known, key=time_us)[:2]

    def asked(bounds: list[float]) -> list[Config]:
        """After the two fastest of `known`, and what is so many times as slow as it is, as a bound."""
        strategy = create_strategy("auto", domain, 0)
        strategy.tell(timed(fastest))
        slow = [config for config in known if config not in fastest]
        for factor in bounds:
            strategy.tell([Outcome(each, Status.OK, Cost(factor * time_us(each), is_bound=True)) for each in slow])
        return strategy.ask(24)[len(domain.seeds) :]

    def mean_us(configs: list[Config]) -> float:
        return sum(map(time_us, configs)) / len(configs)

    assert mean_us(asked([1.0])) < 0.9 * mean_us(asked([]))
    assert mean_us(asked([0.5])) < 0.9 * mean_us(asked([])), "though each is half the cost of the best"


def test_where_all_costs_are_bounds_auto_still_draws(domain: Domain) -> None:
    known = [config for place, config in enumerate(domain.enumerate()) if place % 40 == 0]
    strategy = create_strategy("auto", domain, 0)
    strategy.tell([Outcome(config, Status.OK, Cost(1.0, is_bound=True)) for config in known])
    assert len({*strategy.ask(4), *known}) == len(known) + 4


def test_optuna_says_nothing(domain: Domain, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("tpe", "cmaes", "qmc"):
        best_time_us(create_strategy(name, domain, 0), batches=4)
    assert capfd.readouterr() == ("", "")


def test_every_strategy_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "spaces.md").read_text()
    assert all(f"| `{name}` |" in text for name in STRATEGIES)
