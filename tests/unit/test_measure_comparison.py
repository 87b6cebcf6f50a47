"""Statistics, stopping, comparison and races, on simulated clocks whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated_clock import SimulatedRounds

from hktune.measure.comparison import RESOLUTION, Race, Verdict, compare
from hktune.measure.statistics import Interval, median_interval
from hktune.measure.stopping import CONFIRMING, SCREENING, StoppingRule


def binomial_coverage(n: int, rank: int) -> float:
    """How often the median of any continuous distribution lies between the rank-th least and largest of n samples."""
    return 1 - 2 * sum(math.comb(n, k) for k in range(rank)) / 2**n


@pytest.mark.parametrize("n", [8, 9, 16, 25, 96])
def test_the_interval_is_the_narrowest_pair_of_order_statistics(n: int) -> None:
    samples = list(np.random.default_rng(n).normal(10.0, 1.0, n))
    interval = median_interval(samples, 0.99)
    rank = max(rank for rank in range(1, n // 2 + 1) if binomial_coverage(n, rank) >= 0.99)
    ordered = sorted(samples)
    assert (interval.low, interval.high) == (ordered[rank - 1], ordered[n - rank])
    assert interval.median == pytest.approx(float(np.median(samples)))


def test_too_few_samples_give_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0], 0.99) == Interval(1.0, 2.0, 3.0)


def test_an_outlier_does_not_move_the_median() -> None:
    quiet = [10.0] * 20
    assert median_interval([*quiet, 1e6], 0.99) == Interval(10.0, 10.0, 10.0)


def test_the_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    missed = sum(not median_interval(random.exponential(1.0, 16), 0.95).contains(math.log(2)) for _ in range(1000))
    assert missed <= 50 + 3 * math.sqrt(1000 * 0.05 * 0.95)


@pytest.mark.parametrize("rule", [SCREENING, CONFIRMING], ids=["screening", "confirming"])
def test_the_same_kernel_on_both_sides_is_as_fast_as_itself(rule: StoppingRule) -> None:
    comparisons = [compare(SimulatedRounds([50.0, 50.0], seed), 1, rule)[0] for seed in range(100)]
    assert sum(comparison.ratio.contains(1.0) for comparison in comparisons) >= 95
    assert sum(comparison.verdict is Verdict.AMBIGUOUS for comparison in comparisons) >= 95


@pytest.mark.parametrize("rule", [SCREENING, CONFIRMING], ids=["screening", "confirming"])
def test_two_percent_are_told_apart_and_not_overstated(rule: StoppingRule) -> None:
    slower = [compare(SimulatedRounds([50.0, 51.0], seed), 1, rule)[0] for seed in range(100)]
    assert sum(comparison.verdict is Verdict.SLOWER for comparison in slower) >= 95
    assert sum(comparison.ratio.contains(50 / 51) for comparison in slower) >= 95
    faster = [compare(SimulatedRounds([51.0, 50.0], seed), 1, rule)[0] for seed in range(100)]
    assert sum(comparison.verdict is Verdict.FASTER for comparison in faster) >= 95


def test_a_steadily_falling_clock_favours_nobody() -> None:
    class Falling(SimulatedRounds):
        def _launch(self, side: int) -> float:
            self._clock += 0.001
            return super()._launch(side)

    [comparison] = compare(Falling([50.0, 50.0], 0, noise=1e-6, drift=0.0), 1, CONFIRMING)
    assert comparison.ratio.median == pytest.approx(1.0, abs=1e-4)


def test_it_stops_when_the_interval_is_narrow_and_at_the_limit_otherwise() -> None:
    [quiet] = compare(SimulatedRounds([50.0, 40.0], 0, noise=1e-4, drift=0.0), 1, CONFIRMING)
    assert quiet.rounds == CONFIRMING.rounds_min
    [loud] = compare(SimulatedRounds([50.0, 40.0], 0, noise=0.2), 1, CONFIRMING)
    assert loud.rounds == CONFIRMING.rounds_max
    assert loud.ratio.relative_width > CONFIRMING.relative_width


def test_an_interval_never_claims_more_than_the_stopwatch_resolves() -> None:
    [exact] = compare(SimulatedRounds([50.0, 50.0], 0, noise=0.0, drift=0.0), 1, CONFIRMING)
    assert exact.ratio.high - exact.ratio.low == pytest.approx(2 * RESOLUTION)


def test_a_clear_loser_stops_early_and_says_so() -> None:
    rounds = SimulatedRounds([50.0, 40.0, 60.0, 40.4], 3)
    best, loser, close = compare(rounds, 3, CONFIRMING, Race())
    assert loser.lost_race
    assert rounds.launched[2] < CONFIRMING.rounds_min
    assert not best.lost_race
    assert not close.lost_race, "1 % is within the margin: a tie is kept"
    assert best.ratio.median == pytest.approx(50 / 40, rel=0.01)


def test_nobody_races_a_rival_but_rivals_must_keep_up() -> None:
    candidate, fast_rival, slow_rival = compare(
        SimulatedRounds([50.0, 48.0, 40.0, 60.0], 5), 3, CONFIRMING, Race(rivals=2)
    )
    assert not candidate.lost_race
    assert not fast_rival.lost_race
    assert slow_rival.lost_race
    assert candidate.rounds >= CONFIRMING.rounds_min


def test_a_candidate_races_what_was_known_before() -> None:
    [lost] = compare(SimulatedRounds([50.0, 50.0], 0), 1, SCREENING, Race(best=1.25))
    assert lost.lost_race
    [kept] = compare(SimulatedRounds([50.0, 50.0], 0), 1, SCREENING, Race(best=1.01))
    assert not kept.lost_race


def test_every_side_is_first_and_last_as_often() -> None:
    orders: list[list[int]] = []

    def play(rounds: list[list[int]]) -> list[list[float]]:
        orders.extend(rounds)
        return [[1.0] * len(order) for order in rounds]

    compare(play, 2, StoppingRule(0.99, 0.0, 24, 24))
    assert {order[0] for order in orders} == {order[-1] for order in orders} == {0, 1, 2}
    for side in range(3):
        assert sum(order[0] == side for order in orders) == 8
        assert sum(order[-1] == side for order in orders) == 8
