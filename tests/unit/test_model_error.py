"""Intervals of modelled times: fitted to residuals of known spread, they cover what they say; and which times tie."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hktune.core.launch import Launch, Tile
from hktune.core.outcome import Source, Timing
from hktune.core.problem import Problem
from hktune.core.problem_tiles import tiles_of
from hktune.core.yaml_file import read_yaml
from hktune.emulator.clock import model_error as file_of
from hktune.emulator.clock.model_error import ModelError, model_error
from hktune.measure.modelled import with_interval
from hktune.report.intervals import interval

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
Z80 = 1.2816
"""Half the width, in standard deviations, of what holds 80 % of a normal distribution."""


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fit_model_error

    yield fit_model_error
    sys.modules.pop("fit_model_error", None)


def synthetic(shapes: int, spread_of, shared: float = 0.0, kernels: int = 3, seed: int = 0):
    """Residuals of `kernels` kernels of each of so many shapes, normal, of `spread_of` (m, split, tiles). A part
    `shared` of their variance is the same for all kernels of a shape."""
    random = np.random.default_rng(seed)
    rows = []
    for shape in range(shapes):
        m = int(random.choice([16, 512, 4096]))
        own = random.standard_normal()
        for kernel in range(kernels):
            split, tiles = int(random.choice([1, 4, 16])), int(random.choice([32, 200, 1000]))
            unit = np.sqrt(shared) * own + np.sqrt(1 - shared) * random.standard_normal()
            row = {"m": m, "n": 256 + shape, "k": 4096, "split": split, "tiles": tiles, "block": f"kernel {kernel}"}
            rows.append({**row, "log_ratio": spread_of(m, split, tiles) * unit})
    return pd.DataFrame(rows)


def test_the_width_of_a_class_is_that_of_its_residuals(fit) -> None:
    def spread(m: int, split: int, tiles: int) -> float:
        return {16: 0.2, 512: 0.1, 4096: 0.03}[m] * (1.5 if split == 16 else 1.0)

    found = fit.fitted(synthetic(9000, spread), coverage=0.8)
    for at, m in enumerate((16, 512, 4096)):
        for place, split in enumerate((1, 4, 16)):
            widths = found.half_widths[at, place]
            assert widths == pytest.approx(Z80 * spread(m, split, 32), rel=0.1), (m, split)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_shapes_that_were_left_out_are_covered_as_often_as_is_said(fit, coverage: float) -> None:
    rows = synthetic(1200, lambda m, split, tiles: 0.02 + 0.1 * (m < 100) + 0.05 * (split > 8), seed=1)
    covered, pairs, weights = fit.left_out(rows, coverage, fit.folds_of(rows, ["m", "n", "k"], 5))
    assert covered.mean() == pytest.approx(coverage, abs=0.03)
    assert np.average(pairs, weights=weights) == pytest.approx(coverage, abs=0.03)


def test_a_class_of_few_rows_is_drawn_to_those_like_it_and_one_of_none_has_their_width(fit) -> None:
    rows = synthetic(3000, lambda *_: 0.1, seed=2)
    few = rows[(rows.m == 16) & (rows.split == 16)].index
    rows = rows.drop(few[1:])
    rows.loc[few[0], "log_ratio"] = 1.0
    found = fit.fitted(rows, coverage=0.8)
    assert found.counts[0, 2].sum() == 1
    lone = found.half_widths[0, 2]
    alone = Z80 * 1.0 / np.sqrt(2 / np.pi)  # of a normal distribution whose mean deviation is that of the one row
    assert Z80 * 0.2 < lone.min() <= lone.max() < 0.6 * alone
    empty = fit.fitted(rows.drop(few[0]), coverage=0.8).half_widths[0, 2]
    assert empty == pytest.approx(Z80 * 0.1, rel=0.1)


def test_many_rows_of_one_kernel_do_not_speak_for_others(fit) -> None:
    """The clock may know one kernel well: what is said of launches like its own is of any kernel."""
    known, other = synthetic(1000, lambda *_: 0.01, kernels=1), synthetic(40, lambda *_: 0.2, kernels=1, seed=3)
    rows = pd.concat([known, other.assign(block="another")], ignore_index=True).assign(m=16, split=1, tiles=32)
    width = fit.fitted(rows, coverage=0.8).half_widths[0, 0, 0]
    assert width > 5 * Z80 * 0.01
    assert fit.fitted(known.assign(m=16, split=1, tiles=32), 0.8).half_widths[0, 0, 0] == pytest.approx(
        Z80 * 0.01, rel=0.1
    )


@pytest.mark.parametrize("shared", [0.0, 0.75, 0.96])
def test_what_kernels_of_one_shape_err_by_together_is_in_no_tie(fit, shared: float) -> None:
    found = fit.fitted(synthetic(4000, lambda *_: 0.1, shared), coverage=0.8)
    assert found.pair_half_width == pytest.approx(Z80 * 0.1 * np.sqrt(2 * (1 - shared)), rel=0.06)
    assert found.half_widths.mean() == pytest.approx(Z80 * 0.1, rel=0.06)


def test_a_shape_of_many_kernels_weighs_as_its_kernels_do_not_as_their_pairs(fit) -> None:
    rows = synthetic(1, lambda *_: 0.1, kernels=40)
    differences, weights = fit.differences_of(rows)
    assert len(differences) == 40 * 39 / 2
    assert weights.sum() == pytest.approx(39)


def test_what_is_written_is_what_is_read(fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    rows = synthetic(300, lambda m, *_: 0.05 if m > 100 else 0.2)
    residuals, written = tmp_path / "residuals.csv", tmp_path / "model_error.yaml"
    rows.to_csv(residuals, index=False)
    monkeypatch.setattr(fit, "FILE", written)
    monkeypatch.setattr(sys, "argv", ["fit_model_error.py", str(residuals), "--coverage", "0.7", "--write"])
    fit.main()
    figures = read_yaml(written, file_of._KIND, ModelError)
    assert (figures.coverage, figures.pairs) == (0.7, 900)
    assert figures == fit.model_error(fit.fitted(rows, 0.7), 0.7)
    assert "70% meant" in capsys.readouterr().out


def test_a_row_of_residuals_is_of_the_launch_that_was_modelled(fit) -> None:
    """19 x 1 tiles of 32x64, the k of each shared by 8 workgroups."""
    from fit_clock import residuals_of

    from hktune.emulator.clock.constants import MeasuredLaunch
    from hktune.emulator.clock.memory_traffic import row_major
    from hktune.emulator.clock.profile import Profile

    profile = Profile((), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    launch = Launch((19 * 8, 1, 1), (256, 1, 1), 0, ())
    one = MeasuredLaunch(profile, Problem(600, 64, 4096), launch, Tile(32, 64, 128), row_major, 10.0)
    [row] = residuals_of([one], np.array([0.1])).to_dict("records")
    shape = {"m": 600, "n": 64, "k": 4096, "split": 8, "tiles": 19, "block": "32x64x128"}
    assert row == {**shape, "log_ratio": 0.1}


FIGURES = ModelError(
    coverage=0.8,
    pairs=100,
    tie_factor=1.1,
    m_edges=(64, 1024),
    split_edges=(1, 8),
    tiles_edges=(64, 256),
    factors=tuple(
        tuple(tuple(2.0 + m + split / 10 + tiles / 100 for tiles in range(3)) for split in range(3)) for m in range(3)
    ),
    rows=(((0, 0, 0),) * 3,) * 3,
)


@pytest.mark.parametrize(
    ("m", "split", "tiles", "factor"),
    [
        (1, 1, 1, 2.0),
        (64, 8, 64, 2.1),
        (65, 1, 65, 3.01),
        (1024, 9, 256, 3.21),
        (1025, 16, 257, 4.22),
        (9, 1.5, 300, 2.12),
    ],
)
def test_the_class_of_a_launch(m: int, split: float, tiles: int, factor: float) -> None:
    assert FIGURES.factor(m, split, tiles) == pytest.approx(factor)
    assert FIGURES.interval_us(100.0, m, split, tiles) == pytest.approx((100 / factor, 100 * factor))


def test_split_and_tiles_are_those_of_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hktune.measure.modelled.model_error", lambda: FIGURES)
    launch = Launch((12 * 9, 1, 1), (256, 1, 1), 0, ())  # 3 x 4 tiles of 32x64, each by 9 workgroups
    problem = Problem(65, 256, 4096)
    timing = with_interval(Timing(Source.MODELLED, 10.0), problem, launch, tiles_of(problem, Tile(32, 64, 64)))
    assert (timing.time_us_low, timing.time_us_high) == pytest.approx((10 / 3.2, 10 * 3.2))


def test_the_figures_that_come_with_the_clock_are_of_what_they_say() -> None:
    figures = model_error()
    assert figures.coverage == 0.8
    assert sum(count for of_m in figures.rows for of_split in of_m for count in of_split) > 300
    assert 1.0 < figures.tie_factor < 1.5
    assert figures.tied(10.0 * figures.tie_factor, 10.0)
    assert not figures.tied(10.01 * figures.tie_factor, 10.0)
    assert all(1.0 < factor < 2.0 for of_m in figures.factors for of_split in of_m for factor in of_split)


def test_an_interval_is_printed_in_as_many_digits_as_it_needs() -> None:
    assert interval(18.84, 24.55) == "18.8..24.6"
    assert interval(1884.2, 2455.0) == "1884..2455"
    assert interval(None, None) == ""
