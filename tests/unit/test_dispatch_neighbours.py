"""Breakpoints between tuned row counts, the trials that they need, and what serving the wrong side would lose."""

from __future__ import annotations

import random

import pytest
from naive_gemm import EMULATED, launch_of, table_of, trial

from hktune.core.config import Config
from hktune.core.errors import TableError
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.tables import BuildOptions, build_table, cross_trials, regrets

N, K = 128, 64
IDS = [Config({"variant": variant}).id for variant in range(6)]


def at(m: int, time_us: float, variant: int, **fields: object) -> Trial:
    return trial(Problem(m, N, K), time_us, variant, **fields)


def rows(*trials: Trial, reach: float = 1.0) -> dict[int, tuple[int, int]]:
    table = build_table(trials, launch_of, EMULATED, "clang", "0.1.0", "now", BuildOptions(reach=reach))
    return {entry.m: entry.rows for entry in table.entries}


def test_neighbours_are_wanted_at_each_others_m_until_nothing_is() -> None:
    trials = [at(16, 1.0, 0), at(64, 4.0, 1), at(256, 9.0, 2), trial(Problem(16, N, 32), 1.0, 3)]
    wanted = cross_trials(trials)
    assert [(winner.config_id, problem.m) for winner, problem in wanted] == [
        (IDS[0], 64), (IDS[1], 16), (IDS[1], 256), (IDS[2], 64),
    ]  # fmt: skip
    assert wanted == cross_trials(list(reversed(trials)))
    wrong = trial(Problem(64, N, K), None, 0, status=Status.WRONG, source=None)
    answered = [*trials, wrong, at(16, 2.0, 1), at(256, 7.0, 1), at(64, 5.0, 2)]
    assert [(winner.config_id, problem.m) for winner, problem in cross_trials(answered)] == []


def test_a_new_winner_is_asked_for_at_its_neighbours_next() -> None:
    trials = [
        at(16, 1.0, 0),
        at(64, 4.0, 1),
        at(256, 9.0, 2),
        at(64, 3.0, 0),
        at(16, 2.0, 1),
        at(256, 7.0, 1),
        at(64, 8.0, 2),
    ]
    # Variant 0 now wins at 64 and was never tried at 256; variant 1 wins at 256.
    assert [(winner.config_id, problem.m) for winner, problem in cross_trials(trials)] == [(IDS[0], 256)]


def test_modelled_neighbours_of_measured_rows_say_nothing() -> None:
    measured = {"source": Source.MEASURED}
    trials = [at(16, 1.0, 0), at(64, 4.0, 1, **measured), at(64, 3.0, 0)]
    assert rows(*trials) == {16: (16, 16), 64: (64, 64)}
    assert cross_trials(trials) == []
    assert regrets(trials) == []
    # A modelled trial does not stand for the measured one that is wanted.
    both = [at(16, 1.0, 0, **measured), at(64, 4.0, 1, **measured), at(64, 3.0, 0)]
    assert [(winner.config_id, problem.m) for winner, problem in cross_trials(both)] == [(IDS[0], 64), (IDS[1], 16)]


def test_the_breakpoint_is_where_the_lines_cross() -> None:
    # Variant 0: 1 us at 10, 7 at 110. Variant 1: 3 at 10, 5 at 110. They cross half-way.
    trials = [at(10, 1.0, 0), at(110, 7.0, 0), at(10, 3.0, 1), at(110, 5.0, 1)]
    assert rows(*trials) == {10: (10, 60), 110: (61, 110)}
    assert [(each.problem.m, each.winner_of.m, pytest.approx(each.regret)) for each in regrets(trials)] == [
        (110, 10, 0.4), (10, 110, 2.0),
    ]  # fmt: skip
    assert "128x64 bf16.nt served as m=10" in str(regrets(trials)[0])
    assert "+40.0%" in str(regrets(trials)[0])


def test_without_the_neighbours_time_a_gap_stays_with_the_vendor() -> None:
    assert rows(at(10, 1.0, 0), at(110, 5.0, 1)) == {10: (10, 10), 110: (110, 110)}
    assert rows(at(10, 1.0, 0), at(110, 7.0, 0), at(110, 5.0, 1)) == {10: (10, 10), 110: (110, 110)}


def test_one_kernel_that_wins_at_both_ends_serves_between() -> None:
    assert rows(at(10, 1.0, 0), at(110, 5.0, 0)) == {10: (10, 109), 110: (110, 110)}


def test_beyond_the_outermost_m_the_reach_is_the_cap() -> None:
    assert rows(at(100, 1.0, 0), at(400, 5.0, 0), reach=1.5) == {100: (67, 399), 400: (400, 600)}
    with pytest.raises(TableError, match="reach must be from 1 to 4, got 9"):
        BuildOptions(reach=9)


def test_the_vendor_has_what_lies_below_its_line() -> None:
    def raced(m: int, time_us: float, variant: int, vendor_us: float) -> Trial:
        return at(m, time_us, variant, baseline="hipBLASLt", baseline_us=vendor_us)

    # The vendor's line runs from 2 to 6; variant 0's from 1 to 9 leaves it after a fifth, variant 1's from 7 to 5 comes
    # below it after five sixths.
    trials = [raced(10, 1.0, 0, 2.0), raced(110, 9.0, 0, 6.0), raced(10, 7.0, 1, 2.0), raced(110, 5.0, 1, 6.0)]
    assert rows(*trials) == {10: (10, 35), 110: (94, 110)}


def test_every_m_between_goes_to_the_lowest_line() -> None:
    rng = random.Random(11)
    for _ in range(200):
        low, high = sorted(rng.sample(range(1, 300), 2))
        times = {(m, who): rng.randint(1, 40) for m in (low, high) for who in (0, 1)}
        vendor = {m: rng.randint(10, 60) for m in (low, high)}
        trials = [
            at(m, float(time), who, baseline="v", baseline_us=float(vendor[m])) for (m, who), time in times.items()
        ]
        table = table_of(*trials)
        winner = {entry.m: (entry.kernel and entry.kernel.config_id) for entry in table.entries}

        def line(who: str | None, m: int) -> float:
            ends = [vendor[end] if who is None else times[end, IDS.index(who)] for end in (low, high)]  # noqa: B023
            return ends[0] + (ends[1] - ends[0]) * (m - low) / (high - low)  # noqa: B023

        for m in range(low, high + 1):
            serving = [entry for entry in table.entries if entry.rows[0] <= m <= entry.rows[1]]
            assert len(serving) <= 1
            best = min(line(who, m) for who in (winner[low], winner[high], None))
            if serving and serving[0].kernel:
                assert line(serving[0].kernel.config_id, m) <= best + 1e-9, (trials, m)
            elif not serving:
                assert line(None, m) <= best + 1e-9, (trials, m)


def test_the_order_of_trials_decides_nothing() -> None:
    trials = [at(m, float(3 + (m * (variant + 2)) % 7), variant) for m in (8, 16, 40, 100) for variant in range(4)]
    expected = table_of(*trials)
    for seed in range(5):
        assert table_of(*random.Random(seed).sample(trials, len(trials))) == expected
