"""What is learned of other shapes orders what is tried first, and only where it is better than the estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.shipped import space_file
from hktune.core.trial import Trial
from hktune.search import STRATEGIES, create_strategy
from hktune.space import Domain, SearchSpace, load_space
from hktune.store.recordings import Recording, load_recordings
from hktune.tuning.priors import earlier as earlier_module
from hktune.tuning.priors.earlier import Earlier
from hktune.tuning.priors.learned_order import FIRST
from hktune.tuning.priors.transfer import Transfer, can_learn, led
from hktune.tuning.simulation import simulate

if not can_learn():
    pytest.skip("LightGBM is not installed: hktune[learn]", allow_module_level=True)

RESULTS = Path(__file__).resolve().parents[2] / "results"
KNOWN = [Problem(m, n, k) for m in (64, 1024) for n, k in ((4096, 1024), (1536, 8192), (2048, 2048))]
UNSEEN = Problem(128, 6144, 2560)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(space_file("sm90a_gemm_bf16"))


@cache
def configs_of(space: SearchSpace) -> list[Config]:
    """Some that are legal without a problem."""
    return list(dict.fromkeys(config for seed in space.seeds[:8] for config in (seed, *space.neighbours(seed))))


@cache
def legal(space: SearchSpace, problem: Problem) -> list[Config]:
    return list(filter(space.domain(problem).is_legal, configs_of(space)))


@cache
def rows(
    space: SearchSpace, problem: Problem, time_us: Callable[[Domain, Config], float], source: Source = Source.MEASURED
) -> list[Trial]:
    domain = space.domain(problem)
    return [
        replace(
            Trial(0, problem.m, problem.n, problem.k, problem.operation, config.id, config.json, Status.OK),
            source=source,
            time_us=time_us(domain, config),
            template=space.template.name,
            device="NVIDIA H100 80GB HBM3",
        )
        for config in legal(space, problem)
    ]


def surprising(domain: Domain, config: Config) -> float:
    """A machine that the estimate is wrong about, in every shape alike."""
    return (
        domain.estimate(config) * (1.9 if config["schedule"] == "ping_pong" else 1.0) / float(config["stages"]) ** 0.8
    )


def as_estimated(domain: Domain, config: Config) -> float:
    return float(domain.estimate(config))


@pytest.fixture(scope="module")
def learned(space: SearchSpace) -> Transfer:
    transfer = Transfer(space)
    transfer.learn([row for problem in KNOWN for row in rows(space, problem, surprising)], Source.MEASURED)
    return transfer


def test_what_was_learned_orders_a_shape_that_was_not_seen(space: SearchSpace, learned: Transfer) -> None:
    domain = space.domain(UNSEEN)
    configs = legal(space, UNSEEN)
    best = min(surprising(domain, config) for config in configs)

    def regret(ordered: list[Config]) -> float:
        return min(surprising(domain, config) for config in ordered[:FIRST]) / best - 1

    assert learned.said is not None
    assert learned.said.endswith(": used")
    assert regret(domain.led_by(learned).in_order(configs)) < 0.02 < regret(domain.in_order(configs))


def test_its_favourites_take_every_other_turn_and_none_is_lost(space: SearchSpace, learned: Transfer) -> None:
    domain = space.domain(UNSEEN)
    seeds = domain.led_by(learned).seeds
    favourites = learned.favourites(domain.led_by(learned))
    assert list(seeds[:3]) == [favourites[0], domain.seeds[0], favourites[1]]
    assert set(seeds) == {*domain.seeds, *favourites}
    assert len(set(seeds)) == len(seeds)
    assert all(domain.is_legal(seed) for seed in seeds)
    assert domain.seeds == space.domain(UNSEEN).seeds


@pytest.mark.parametrize("name", ["hillclimb", "tpe", "random"])
def test_strategies_begin_with_it(space: SearchSpace, learned: Transfer, name: str) -> None:
    domain = space.domain(UNSEEN).led_by(learned)
    assert name in STRATEGIES
    assert create_strategy(name, domain, 0).ask(5) == list(domain.seeds[:5])


def test_an_estimate_that_is_right_is_kept(space: SearchSpace) -> None:
    transfer = Transfer(space)
    transfer.learn([row for problem in KNOWN for row in rows(space, problem, as_estimated)], Source.MEASURED)
    domain = space.domain(UNSEEN)
    assert transfer.said is not None
    assert transfer.said.endswith(": not used")
    assert domain.led_by(transfer).seeds == domain.seeds


def test_one_n_and_k_cannot_be_judged_and_is_not_used(space: SearchSpace) -> None:
    transfer = Transfer(space)
    alike = [row for m in (16, 64, 512) for row in rows(space, Problem(m, 2048, 2048), surprising)]
    transfer.learn(alike, Source.MEASURED)
    assert transfer.said is not None
    assert "no order of theirs can be judged" in transfer.said
    assert space.domain(UNSEEN).led_by(transfer).seeds == space.domain(UNSEEN).seeds


def test_modelled_times_are_not_learned_from_for_measured_ones(space: SearchSpace, learned: Transfer) -> None:
    measured = [row for problem in KNOWN for row in rows(space, problem, surprising)]
    modelled = [row for problem in KNOWN for row in rows(space, problem, as_estimated, Source.MODELLED)]
    other = [replace(row, template="sm90a/other", time_us=1.0) for row in measured]
    transfer = Transfer(space)
    transfer.learn([*modelled, *measured, *other], Source.MEASURED)
    assert transfer.said == learned.said
    domain = space.domain(UNSEEN)
    assert domain.led_by(transfer).seeds == domain.led_by(learned).seeds


def test_a_resumed_run_learns_what_it_did_at_first(space: SearchSpace) -> None:
    earlier_rows = [row for problem in KNOWN for row in rows(space, problem, surprising)]
    own_rows = rows(space, UNSEEN, as_estimated)
    seeds = []
    for before in (earlier_rows, [*earlier_rows, *own_rows]):
        run = Earlier((), space)
        domain = run.leads(space.domain(UNSEEN))
        [said] = run.learn(before, {UNSEEN: "a shape"}, Source.MEASURED)
        assert said.endswith(": used")
        seeds.append(domain.seeds)
    assert seeds[0] == seeds[1]


def test_without_lightgbm_nothing_is_learned(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_module, "can_learn", lambda: False)
    run = Earlier((), space)
    before = rows(space, KNOWN[0], surprising)
    assert run.learn(before, (), Source.MEASURED) == []
    assert run.leads(space.domain(UNSEEN)).seeds == space.domain(UNSEEN).seeds


def test_simulation_leaves_out_the_n_and_k_of_the_recording(space: SearchSpace) -> None:
    trials = [row for problem in KNOWN for row in rows(space, problem, surprising)]
    [alone], _ = led([Recording("known", tuple(rows(space, KNOWN[0], surprising)), space)], trials)
    left = [row for row in trials if (row.n, row.k) != (KNOWN[0].n, KNOWN[0].k)]
    transfer = Transfer(space)
    transfer.learn(left, Source.MEASURED)
    plain = replace(alone, order=None).domain
    assert alone.domain.seeds == plain.led_by(transfer).seeds != plain.seeds


def test_simulate_wants_a_space_to_learn_in(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = str(RESULTS / "gfx950-emulated" / "rivals" / "trials.csv")
    assert main(["simulate", recorded, "--prior", recorded]) == 2
    assert "--prior needs --space" in capsys.readouterr().err


@pytest.mark.slow
def test_recorded_on_an_h100_it_takes_at_most_eight_trials(space: SearchSpace) -> None:
    """50 shapes, those of n = k = 4096 left out, for two of n = k = 4096 that were measured in another run."""
    measured = RESULTS / "sm90a-nvidia-h100-80gb-hbm3"
    trials = [row for each in load_recordings(measured / "trials.csv") for row in each.rows]
    wanted = [each.within(space) for each in load_recordings(measured / "two-shapes-1100-configs")]
    recordings, [said] = led(wanted, trials)
    assert said.endswith(": used")
    to_one_percent = [one.replay.trials_to(0.01) for one in simulate(recordings, ["hillclimb", "tpe"], 50, 2, 8)]
    assert sum(each or 50 for each in to_one_percent) / len(to_one_percent) <= 8
