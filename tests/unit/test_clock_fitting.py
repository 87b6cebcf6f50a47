"""Constants of the clock from times: found again where times were made with others, left alone where none tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_clock import TILE, gemm, launch_for, profiled

from hktune.core.arch import GFX950
from hktune.core.board import MI350X, MI355X
from hktune.core.launch import Tile
from hktune.core.problem import Problem
from hktune.emulator.clock.fitting import (
    MeasuredLaunch,
    Values,
    clock_names,
    constants_of,
    fitted,
    folds_of,
    left_out,
    log_ratios,
    told_by,
    with_constants,
)
from hktune.emulator.clock.launch_time import Profile, clock_at
from hktune.emulator.clock.memory_traffic import row_major
from hktune.emulator.clock.rates import Rates, rates_of

TODAY = rates_of(MI355X)
NAMES = ("launch_us", "cold_ns", "mall_ns", "hbm_ns", "mall_tb_per_s", "hbm_tb_per_s", *clock_names(TODAY))
LARGE = [(m, n, k) for m in (2048, 4096, 8192) for n in (4096, 8192, 14336) for k in (1024, 4096, 8192)]
THIN = [(256, n, k) for n in (4096, 28672, 57344, 131072) for k in (4096, 8192, 16384)]
DEPTHS = (128, 256, 384, 512, 768, 1024)
SHORT = [(256 * rows, 256 * columns, k) for rows in (1, 2) for columns in (1, 2, 4) for k in DEPTHS]
NOISE = 0.02


@cache
def profiles() -> dict[str, tuple[Profile, Tile]]:
    return {
        "in flight": (profiled(gemm(vmcnt=8)), TILE),
        "drained": (profiled(gemm(vmcnt=0)), TILE),
        "two on a CU": (
            profiled(gemm(vmcnt=4, loads=4, mfmas=16), Tile(128, 128, 64), 65536, vgprs=128),
            Tile(128, 128, 64),
        ),
    }


def timed(truth: Rates, shapes: list[tuple[int, int, int]], noise: float = NOISE) -> list[MeasuredLaunch]:
    """Launches whose times the model makes with the constants of `truth`, each with an error of its own."""
    launches = [
        MeasuredLaunch(profile, Problem(*sizes), launch_for(Problem(*sizes), tile), tile, row_major, 1.0)
        for sizes in shapes
        for profile, tile in profiles().values()
    ]
    errors = np.random.default_rng(1).normal(0.0, noise, len(launches))
    times_us = np.exp(log_ratios(launches, truth, GFX950) + errors)
    return [replace(one, time_us=float(time_us)) for one, time_us in zip(launches, times_us, strict=True)]


def other(factors: Mapping[str, float]) -> Rates:
    """Today's constants, some of them times a factor."""
    return with_constants(TODAY, {name: constants_of(TODAY, [name])[name] * each for name, each in factors.items()})


def error(logs: Values) -> float:
    return float(np.abs(np.exp(logs) - 1).mean())


def test_constants_that_times_were_made_with_are_found_again() -> None:
    """Within 5 % for the clock and the latency of HBM, and 10 % for what few launches show."""
    clock = dict.fromkeys(clock_names(TODAY), 0.93)
    truth = other({"hbm_tb_per_s": 0.85, "launch_us": 1.6, "hbm_ns": 1.2, **clock})
    launches = timed(truth, [*LARGE, *THIN, *SHORT])
    names = told_by(launches, TODAY, GFX950, NAMES)
    assert {"hbm_tb_per_s", "launch_us", "hbm_ns", "clock_ghz[1]", "clock_ghz[2]"} <= set(names)
    found, wanted = (constants_of(each, names) for each in (fitted(launches, TODAY, GFX950, names), truth))
    for name in names:
        near = 0.05 if name.startswith("clock") or name == "hbm_ns" else 0.1
        assert found[name] == pytest.approx(wanted[name], rel=near), name
    assert error(left_out(launches, TODAY, GFX950, names, folds=3)) < 1.2 * NOISE
    assert error(log_ratios(launches, TODAY, GFX950)) > 2 * NOISE


def test_one_class_of_launches_tells_its_own_constants_and_the_rest_stay() -> None:
    launches = timed(other({"launch_us": 1.6, "hbm_tb_per_s": 0.7}), SHORT)
    assert told_by(launches, TODAY, GFX950, NAMES) == ("launch_us", "mall_ns")
    found = fitted(launches, TODAY, GFX950, ["launch_us"])
    assert found.launch_us == pytest.approx(1.6 * TODAY.launch_us, rel=0.15)
    assert replace(found, launch_us=TODAY.launch_us) == TODAY


def test_a_handful_of_launches_tells_nothing() -> None:
    assert told_by(timed(other({"hbm_ns": 1.3}), SHORT[:1]), TODAY, GFX950, NAMES) == ()
    assert fitted(timed(TODAY, SHORT[:1]), TODAY, GFX950, ()) == TODAY


def test_times_of_todays_constants_leave_them_where_they_are() -> None:
    launches = timed(TODAY, [*LARGE[::3], *THIN[::3]])
    names = told_by(launches, TODAY, GFX950, NAMES)
    found = fitted(launches, TODAY, GFX950, names)
    for name, value in constants_of(found, names).items():
        assert value == pytest.approx(constants_of(TODAY, [name])[name], rel=0.04), name


def test_the_curve_of_another_board_is_found_from_its_times() -> None:
    """Beginning from the MI355X's."""
    launches = timed(rates_of(MI350X), LARGE)
    names = [name for name in told_by(launches, TODAY, GFX950, NAMES) if name.startswith("clock")]
    found = fitted(launches, TODAY, GFX950, names)
    for name in names:
        number = int(name[-2])
        share, ghz = found.clock_ghz[number]
        assert ghz == pytest.approx(clock_at(share, rates_of(MI350X)), rel=0.05)


def test_a_busier_clock_is_never_the_faster_one() -> None:
    lowered = with_constants(TODAY, {"clock_ghz[2]": 1.2})
    clocks = [ghz for _, ghz in lowered.clock_ghz]
    assert clocks == sorted(clocks, reverse=True)
    assert clocks[:3] == [TODAY.clock_ghz[0][1], TODAY.clock_ghz[1][1], 1.2]


def test_all_launches_of_a_shape_are_left_out_together() -> None:
    problems = [Problem(*sizes) for sizes in [*LARGE, *SHORT, *LARGE]]
    fold = folds_of(problems, 5)
    assert set(fold.tolist()) == set(range(5))
    for problem in problems:
        assert len({int(each) for one, each in zip(problems, fold, strict=True) if one == problem}) == 1
    assert set(folds_of([Problem(8, 8, 8)] * 3, 5).tolist()) == {0}
