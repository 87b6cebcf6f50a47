"""A space's estimate: what it orders, what it cannot do, and whether the one for sm_90a knows the machine."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from hktune.core.config import Config
from hktune.core.errors import SpaceError
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.search import STRATEGIES, create_strategy
from hktune.space import SearchSpace, load_space
from hktune.space.listed import SUGGESTED, ListedDomain
from hktune.store import read_trials
from hktune.tuning.benches.prebuilt import Wanted

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "results" / "sm90a-nvidia-h100-80gb-hbm3" / "trials.csv"
PROBLEM = Problem(512, 1024, 1024)
ESTIMATE = "estimate:\n  squares: warps_m * 100\n  value: tiles + squares\n"


@pytest.fixture
def toy(toy_space_path: Path) -> SearchSpace:
    """The toy space with an estimate: as few tiles, and before that as few rows of warps, as there can be."""
    path = toy_space_path.with_name("estimated.yaml")
    path.write_text(toy_space_path.read_text() + ESTIMATE)
    return load_space(path)


@pytest.fixture(scope="module")
def sm90a() -> SearchSpace:
    return load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml")


def value(config: Config, problem: Problem) -> int:
    """The toy estimate, computed apart."""
    tiles = -(-problem.m // int(config["block_m"])) * -(-problem.n // int(config["block_n"]))
    return tiles + 100 * int(config["warps_m"])


def test_it_is_the_last_expressions_value(toy: SearchSpace) -> None:
    domain = toy.domain(PROBLEM)
    for config in domain.enumerate():
        assert domain.estimate(config) == value(config, PROBLEM)


def test_seeds_come_in_its_order_with_what_descents_reach(toy: SearchSpace) -> None:
    domain = toy.domain(PROBLEM)
    named = {seed for seed in toy.seeds if domain.is_legal(seed)}
    estimates = [value(config, PROBLEM) for config in domain.seeds]
    assert named <= set(domain.seeds)
    assert estimates == sorted(estimates)
    assert all(domain.is_legal(config) for config in domain.seeds)
    first = domain.seeds[0]
    assert all(value(other, PROBLEM) >= value(first, PROBLEM) for other in domain.neighbours(first))


def test_without_a_problem_or_an_estimate_the_seeds_keep_their_order(toy: SearchSpace, toy_space_path: Path) -> None:
    assert toy.domain(None).seeds == toy.seeds
    plain = load_space(toy_space_path)
    assert plain.domain(PROBLEM).seeds == tuple(seed for seed in plain.seeds if plain.is_legal(seed, PROBLEM))


def test_a_list_is_gone_through_in_its_order(toy: SearchSpace) -> None:
    listed = list(toy.domain(PROBLEM).enumerate())[::-1]
    domain = ListedDomain(toy, PROBLEM, listed)
    estimates = [value(config, PROBLEM) for config in domain.enumerate()]
    assert estimates == sorted(estimates)
    assert len(domain.seeds) >= min(SUGGESTED, len(listed))
    assert value(domain.seeds[0], PROBLEM) == min(estimates)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_begins_with_the_best_of_it(toy: SearchSpace, name: str) -> None:
    domain = toy.domain(PROBLEM)
    asked = create_strategy(name, domain, seed=1).ask(len(domain.seeds))
    assert asked == list(domain.seeds)


def test_a_build_for_problems_has_what_it_favours_for_each(toy: SearchSpace) -> None:
    other = Problem(64, 4096, 1024)
    built = Wanted(problems=[PROBLEM, other]).configs(toy)
    assert {*toy.domain(PROBLEM).seeds, *toy.domain(other).seeds} <= set(built)
    assert all(toy.is_legal(config, PROBLEM) or toy.is_legal(config, other) for config in built)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("estimate: {value: blocks_m}\n", "unknown name 'blocks_m'"),
        ("estimate: {block_m: 1}\n", "something else has that name"),
        ("estimate: {value: later, later: 1}\n", "comes later"),
        ("estimate: {value: m /}\n", "value"),
    ],
)
def test_a_wrong_one_is_refused_in_one_line(toy_space_path: Path, text: str, said: str) -> None:
    path = toy_space_path.with_name("wrong.yaml")
    path.write_text(toy_space_path.read_text() + text)
    with pytest.raises(SpaceError, match=said) as refused:
        load_space(path)
    assert "\n" not in str(refused.value)


def test_sm90as_orders_configs_as_an_h100_did(sm90a: SearchSpace) -> None:
    """Against every time that was measured on 50 shapes: its constants were fitted to these, its form was not."""
    by_problem: defaultdict[Problem, dict[str, Trial]] = defaultdict(dict)
    for trial in read_trials(MEASURED):
        by_problem[trial.problem][trial.config_id] = trial
    correlations, regrets = [], []
    for problem, trials in by_problem.items():
        domain = sm90a.domain(problem)
        estimates = [domain.estimate(sm90a.completed(Config.from_json(trial.config))) for trial in trials.values()]
        slowness = np.array([(trial.time_us or 0) / (trial.baseline_us or 1) for trial in trials.values()])
        correlations.append(spearmanr(estimates, slowness).statistic)
        regrets.append(slowness[np.argsort(estimates, kind="stable")[:16]].min() / slowness.min() - 1)
    assert len(by_problem) == 50
    assert np.mean(correlations) > 0.9
    assert np.mean(regrets) < 0.01
    assert max(regrets) < 0.05


@pytest.mark.parametrize("problem", [Problem(3000, 1536, 8960), Problem(256, 7168, 16384), Problem(1, 1, 8)], ids=str)
def test_sm90as_suggestions_are_legal_and_the_same_every_time(sm90a: SearchSpace, problem: Problem) -> None:
    seeds = sm90a.domain(problem).seeds
    assert all(sm90a.is_legal(seed, problem) for seed in seeds)
    fresh = load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml")
    assert fresh.domain(problem).seeds == seeds
