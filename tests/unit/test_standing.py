"""What a table uses for a shape: of rows that were recorded on an H200, and of made-up ones."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from naive_gemm import trial

from hktune.core.outcome import Source
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.store import read_trials
from hktune.tables.standing import LOSS_MAX, choose
from hktune.tuning.confirming.confirmation import deciding

H200 = Path("results/sm90a-nvidia-h200")
SHAPE = Problem(8, 128, 64)


@functools.cache
def recorded() -> list[Trial]:
    return deciding(read_trials(H200 / "trials.csv"))


class Row(NamedTuple):
    """Of a config that was measured after the search: its time, the vendor's in the same rounds, and how far its own
    interval reaches."""

    time_us: float
    vendor_us: float
    high_us: float
    is_kernel: bool

    @property
    def ratio(self) -> float:
        return self.time_us / self.vendor_us


@functools.cache
def rows() -> Mapping[tuple[int, int, int], Mapping[str, Row]]:
    """Of each recorded shape, by config, its last such row, read from the file's cells alone. Bounds are left out."""
    found: defaultdict[tuple[int, int, int], dict[str, Row]] = defaultdict(dict)
    with (H200 / "trials.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["stage"] in ("confirmed", "neighbour") and row["status"] == "ok":
                shape = (int(row["m"]), int(row["n"]), int(row["k"]))
                found[shape].pop(row["config_id"], None)
                if row["left_early"] == "false":
                    time_us, vendor_us, high_us = (
                        float(row[name]) for name in ("time_us", "baseline_us", "time_us_high")
                    )
                    found[shape][row["config_id"]] = Row(time_us, vendor_us, high_us, not row["library"])
    return found


def test_no_recorded_choice_is_half_a_percent_behind_the_best_that_is_surely_ahead_of_the_vendor() -> None:
    own_choice = [each for each in choose(recorded()) if each.trial]
    assert len(own_choice) > 50
    for chosen in own_choice:
        assert chosen.trial
        own = rows()[chosen.trial.m, chosen.trial.n, chosen.trial.k]
        sure = [row.ratio for row in own.values() if row.high_us < row.vendor_us]
        assert own[chosen.trial.config_id].ratio <= 1.005 * min(sure), chosen.standing.problem


def test_a_best_whose_interval_reaches_the_vendors_time_leaves_the_choice_to_one_whose_does_not() -> None:
    """As recorded of 16384x28672x4096: the fastest swings by 14 %, one a little behind it by 6 %."""
    swinging, steady = measured(188.0, 1, 13.0), measured(189.0, 2, 5.0)
    [chosen] = choose([swinging, steady])
    assert chosen.trial
    assert chosen.trial.config_id == steady.config_id
    [left] = choose([swinging, measured(189.0, 2, 12.0)])
    assert left.trial is None


def test_a_kernel_within_the_noise_but_2_percent_behind_does_not_replace_the_vendors_algorithm() -> None:
    algorithm = measured(100.0, 1, 3.0, library="cublasLt", object_sha256=None, template=None)
    [chosen] = choose([algorithm, measured(102.1, 2, 3.0)])
    assert chosen.trial
    assert chosen.trial.config_id == algorithm.config_id
    assert len(chosen.standing.tied) == 2, "by their intervals alone they tie"


def measured(time_us: float, variant: int, half_us: float, **fields: object) -> Trial:
    ends = {"time_us_low": time_us - half_us, "time_us_high": time_us + half_us}
    vendor = {"baseline": "vendor", "baseline_us": 200.0}
    return trial(SHAPE, time_us, variant, source=Source.MEASURED, device="a GPU", **{**vendor, **ends, **fields})


@pytest.mark.parametrize(("time_us", "replaces"), [(100.49, True), (100.51, False)])
def test_a_kernel_that_serves_another_shape_replaces_the_best_to_half_a_percent(time_us: float, replaces: bool) -> None:
    other = replace(measured(100.0, 2, 5.0), m=16)
    chosen = choose([measured(100.0, 1, 5.0), measured(time_us, 2, 5.0), other])
    assert LOSS_MAX == 1.005
    assert len({each.trial.config_id for each in chosen if each.trial}) == (1 if replaces else 2)


@pytest.mark.parametrize(("vendor_best_us", "replaces"), [(100.1, False), (100.3, True), (99.9, True), (None, True)])
def test_what_is_behind_the_vendors_best_replaces_nothing_that_is_ahead(
    vendor_best_us: float | None, replaces: bool
) -> None:
    best = measured(100.0, 1, 5.0, vendor_best="way", vendor_best_us=vendor_best_us)
    tied = measured(100.2, 2, 5.0, vendor_best="way", vendor_best_us=vendor_best_us)
    chosen = choose([best, tied, replace(measured(100.0, 2, 5.0), m=16)])
    assert len({each.trial.config_id for each in chosen if each.trial}) == (1 if replaces else 2)


def test_less_energy_is_not_worth_more_than_half_a_percent() -> None:
    spent = {"energy_j_low": 0.9, "energy_j_high": 1.1, "energy_j": 1.0}
    saved = {"energy_j_low": 0.4, "energy_j_high": 0.6, "energy_j": 0.5}
    [near] = choose([measured(100.0, 1, 5.0, **spent), measured(100.4, 2, 5.0, **saved)])
    [far] = choose([measured(100.0, 1, 5.0, **spent), measured(101.0, 2, 5.0, **saved)])
    assert (near.time_us, far.time_us) == (100.4, 100.0)


def test_an_entry_has_the_vendors_time_of_the_rounds_of_its_own_time() -> None:
    """Variant 2 is the better one beside the vendor, whose clock was lower there."""
    [chosen] = choose([measured(100.0, 1, 0.2), measured(108.0, 2, 0.2, baseline_us=220.0)])
    assert chosen.trial
    assert (chosen.trial.time_us, chosen.trial.baseline_us) == (108.0, 220.0)
    assert chosen.standing.time_of(chosen.standing.candidates[1]) == pytest.approx(110.0)
