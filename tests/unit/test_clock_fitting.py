"""Constants of the clock from times: found again where times were made with others, left alone where none says."""

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
from hktune.emulator.clock.board_clock import derived_curve
from hktune.emulator.clock.constants import (
    MeasuredLaunch,
    Values,
    clock_steps,
    constants_of,
    log_ratios,
    with_constants,
)
from hktune.emulator.clock.launch_time import Profile, clock_at
from hktune.emulator.clock.memory_traffic import row_major
from hktune.emulator.clock.rates import Rates, rates_of
from hktune.measure.clock_fit import clock_fit
from hktune.measure.fitting import Fit, folds_of

CURVE = ((0.09, 2.40), (0.52, 1.90), (0.69, 1.72), (0.82, 1.65), (1.00, 1.51))
TODAY = replace(rates_of(MI355X), launch_us=3.0, hbm_tb_per_s=5.0, clock_ghz=CURVE)
"""With a launch and an HBM slow enough to show."""
NAMES = ("launch_us", "cold_ns", "mall_ns", "hbm_ns", "mall_tb_per_s", "hbm_tb_per_s", *clock_steps(TODAY))
LARGE = [(m, n, k) for m in (2048, 4096, 8192) for n in (4096, 8192, 14336) for k in (1024, 4096, 8192)]
THIN = [(256, n, k) for n in (4096, 28672, 57344, 131072) for k in (4096, 8192, 16384)]
DEPTHS = (128, 256, 384, 512, 768, 1024)
SHORT = [(256 * rows, 256 * columns, k) for rows in (1, 2) for columns in (1, 4) for k in DEPTHS]
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


def fit_of(launches: list[MeasuredLaunch]) -> Fit:
    return clock_fit(launches, TODAY, GFX950, NAMES)


def error(logs: Values) -> float:
    return float(np.abs(np.exp(logs) - 1).mean())


def test_constants_that_times_were_made_with_are_found_again() -> None:
    """Within 5 % for the clock and the latency of HBM, and 10 % for what few launches show."""
    truth = other({"hbm_tb_per_s": 0.85, "launch_us": 1.6, "hbm_ns": 1.2, "clock_step[1]": 0.93})
    launches = timed(truth, [*LARGE, *THIN, *SHORT])
    fit = fit_of(launches)
    names = fit.identified()
    assert {"hbm_tb_per_s", "launch_us", "hbm_ns", "clock_step[1]", "clock_step[2]"} <= set(names)
    found, wanted = fit.fitted(names), constants_of(truth, names)
    for name in names:
        near = 0.05 if name.startswith("clock") or name == "hbm_ns" else 0.1
        assert found[name] == pytest.approx(wanted[name], rel=near), name
    assert error(fit.left_out(names, folds=3)) < 1.2 * NOISE
    assert error(log_ratios(launches, TODAY, GFX950)) > 2 * NOISE


def test_one_class_of_launches_tells_its_own_constants_and_the_rest_stay() -> None:
    launches = timed(other({"launch_us": 1.6, "hbm_tb_per_s": 0.7}), SHORT)
    fit = fit_of(launches)
    names = fit.identified()
    assert "launch_us" in names
    assert not {"hbm_tb_per_s", "hbm_ns", *clock_steps(TODAY)} & set(names)
    found = fit.fitted(names)
    assert found["launch_us"] == pytest.approx(1.6 * TODAY.launch_us, rel=0.15)
    assert {name: value for name, value in found.items() if name not in names} == {
        name: value for name, value in fit.constants.items() if name not in names
    }


def test_a_handful_of_launches_tells_nothing() -> None:
    fit = fit_of(timed(other({"hbm_ns": 1.3}), SHORT[:1]))
    assert fit.identified() == ()
    assert fit.fitted(()) == fit.constants


def test_times_of_todays_constants_leave_them_where_they_are() -> None:
    launches = timed(TODAY, [*LARGE[::3], *THIN[::3]])
    fit = fit_of(launches)
    found = fit.fitted(fit.identified())
    for name, value in found.items():
        assert value == pytest.approx(fit.constants[name], rel=0.04), name


def test_the_curve_of_another_board_is_found_from_its_times() -> None:
    """Beginning from the MI355X's."""
    truth = replace(TODAY, clock_ghz=derived_curve(CURVE, MI355X, MI350X))
    launches = timed(truth, LARGE)
    fit = fit_of(launches)
    names = [name for name in fit.identified() if name.startswith("clock")]
    found = with_constants(TODAY, fit.fitted(names))
    last = len(names)
    for share, ghz in found.clock_ghz[1 : last + 1]:
        assert ghz == pytest.approx(clock_at(share, truth), rel=0.05)


def test_a_point_of_the_clock_moves_those_after_it_and_a_busier_one_is_never_faster() -> None:
    before = [ghz for _, ghz in TODAY.clock_ghz]
    lowered = [ghz for _, ghz in other({"clock_step[2]": 0.9}).clock_ghz]
    assert lowered[:2] == before[:2]
    assert lowered[2:] == pytest.approx([0.9 * ghz for ghz in before[2:]])
    level = [ghz for _, ghz in with_constants(TODAY, {"clock_step[1]": 1.5}).clock_ghz]
    assert level[1] == level[0] == before[0]


def test_all_launches_of_a_shape_are_left_out_together() -> None:
    problems = [Problem(*sizes) for sizes in [*LARGE, *SHORT, *LARGE]]
    fold = folds_of(problems, 5)
    assert set(fold.tolist()) == set(range(5))
    for problem in problems:
        assert len({int(each) for one, each in zip(problems, fold, strict=True) if one == problem}) == 1
    assert set(folds_of([Problem(8, 8, 8)] * 3, 5).tolist()) == {0}


def test_no_fit_goes_beyond_the_peak_of_hbm() -> None:
    launches = timed(other({"hbm_tb_per_s": 2.5}), THIN)
    assert fit_of(launches).fitted(["hbm_tb_per_s"])["hbm_tb_per_s"] <= 8.0
