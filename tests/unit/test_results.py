"""What a report says of a directory is what its trials.csv says: worked out again from the file alone, by pandas."""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hktune.core.config import Config
from hktune.core.outcome import Source, Status
from hktune.core.problem import Problem
from hktune.report.results.clocks import clocks
from hktune.report.results.curves import POINTS_MAX, curve_of
from hktune.report.results.failure_kinds import failure_kinds
from hktune.report.results.gains import Verdict
from hktune.report.results.importance import importances
from hktune.report.results.results import Results
from hktune.report.results.roofline import roofline
from hktune.store import read_environment, read_trials

ROOT = Path(__file__).resolve().parents[2]
H100 = "sm90a-nvidia-h100-80gb-hbm3"
SHIPPED = (H100, "sm90a-nvidia-h200", "sm90a-nvidia-h200/sixteen-shapes-auto-96", "gfx950-emulated")
TIE_FACTOR = yaml.safe_load((ROOT / "hktune/emulator/clock/model_error.yaml").read_text())["tie_factor"]


@dataclass(frozen=True)
class Expected:
    """The gains over one reference, by problem: the ratio and its two ends."""

    gains: dict[str, tuple[float, float, float]]

    @property
    def verdicts(self) -> Counter[Verdict]:
        found: Counter[Verdict] = Counter()
        for _, low, high in self.gains.values():
            found[Verdict.WIN if low > 1 else Verdict.LOSS if high < 1 else Verdict.TIE] += 1
        return found

    @property
    def geometric_mean(self) -> float:
        return math.exp(sum(math.log(ratio) for ratio, _, _ in self.gains.values()) / len(self.gains))


@functools.cache
def results(name: str) -> Results:
    folder = ROOT / "results" / name
    return Results(name, read_trials(folder / "trials.csv"), environment=read_environment(folder))


@functools.cache
def frame(name: str) -> pd.DataFrame:
    """The file, with a column `problem` and one, `stage`, that old files do not have."""
    rows = pd.read_csv(ROOT / "results" / name / "trials.csv")
    if "stage" not in rows:
        rows["stage"] = rows.detail.str.startswith("confirmed", na=False).map({True: "confirmed", False: "screened"})
        best = rows.detail.str.extract(r"the vendor's best: .* at ([0-9.]+) us")[0]
        rows["vendor_best_us"] = best.astype(float)
        rows["operation"] = rows.dtype + ".nt" + rows.epilogue.map({"none": "", "bias": "+bias"})
    rows["problem"] = rows.m.astype(str) + "x" + rows.n.astype(str) + "x" + rows.k.astype(str) + " " + rows.operation
    return rows


def winners(name: str) -> pd.DataFrame:
    """The fastest row of each problem beside the vendor's time in its rounds: of those at its end that are no search,
    where there are any."""
    chosen = []
    for _, own in frame(name).groupby("problem"):
        last_screened = own.stage.eq("screened")[::-1].idxmax()
        after = own.loc[last_screened + 1 :] if own.stage.eq("screened").any() else own
        deciding = after if after.stage.eq("confirmed").any() else own
        last = deciding.drop_duplicates(["template_sha256", "config_id"], keep="last")
        ok = last[last.status == "ok"]
        chosen.append(ok.loc[(ok.time_us / ok.baseline_us.fillna(1)).idxmin()])
    return pd.DataFrame(chosen)


def expected(name: str, reference: str) -> Expected:
    found = {}
    for row in winners(name).itertuples():
        other = row.baseline_us if reference == "vendor" else min(row.vendor_best_us, row.baseline_us)
        if reference == "best other" and math.isnan(row.baseline_us):
            other = row.vendor_best_us
        if math.isnan(other):
            continue
        ratio = other / row.time_us
        ends = (other / row.time_us_high, other / row.time_us_low)
        found[row.problem] = (ratio, *((ratio / TIE_FACTOR, ratio * TIE_FACTOR) if row.source == "modelled" else ends))
    return Expected(found)


@pytest.mark.parametrize("name", SHIPPED)
def test_gains_are_what_the_file_says(name: str) -> None:
    found = results(name)
    (source,) = found.sources
    references = found.references(source)
    names = [reference.name for reference in references]
    assert names == [*(["vendor"] if "sm90a" in name else []), "best other", "first trial"]
    for reference in references[:-1]:
        truth, total = expected(name, reference.name), found.totals(reference, source)
        assert total is not None
        assert {str(shape.problem) for shape in found.solved if reference.gain(shape)} == truth.gains.keys()
        for shape in found.solved:
            if gain := reference.gain(shape):
                assert (gain.ratio, gain.low, gain.high) == pytest.approx(truth.gains[str(shape.problem)])
        assert total.counts == truth.verdicts
        assert total.geometric_mean == pytest.approx(truth.geometric_mean)
        assert total.worst == min(ratio for ratio, _, _ in truth.gains.values())


def test_gains_are_those_that_the_results_pages_name() -> None:
    """README.md and results/*/README.md: figures that benchmarks/measured_report.py and a run's summary printed."""
    h100, emulated = results(H100), results("gfx950-emulated")
    vendor, other = (h100.totals(each, Source.MEASURED) for each in h100.references(Source.MEASURED)[:2])
    table = h100.table_totals(Source.MEASURED)
    aiter = emulated.totals(emulated.references(Source.MODELLED)[0], Source.MODELLED)
    assert vendor is not None
    assert other is not None
    assert table is not None
    assert aiter is not None
    assert vendor.geometric_mean == pytest.approx(1.052, abs=6e-4)
    assert (other.geometric_mean, other.worst) == pytest.approx((1.018, 0.966), abs=6e-4)
    assert (table.geometric_mean, table.worst) == pytest.approx((1.052, 1.0), abs=6e-4)
    assert sum(shape.vendor_keeps_it for shape in h100.shapes) == 8
    assert (aiter.shapes, round(aiter.geometric_mean, 2), round(aiter.worst, 3)) == (28, 1.48, 1.013)


def test_all_calls_together_are_weighed() -> None:
    name = "sm90a-nvidia-h200"
    rows = winners(name)
    weights = {problem: 1.0 + i for i, problem in enumerate(sorted(rows.problem))}
    plain = results(name)
    by_text = {str(shape.problem): shape.problem for shape in plain.shapes}
    weighed = Results(name, plain.trials, weights={by_text[text]: weight for text, weight in weights.items()})
    total = weighed.totals(weighed.references(Source.MEASURED)[0], Source.MEASURED)
    calls = rows.problem.map(weights)
    assert total is not None
    assert total.all_calls == pytest.approx((calls * rows.baseline_us).sum() / (calls * rows.time_us).sum())
    assert sum(total.weights.values()) == pytest.approx(sum(weights.values()))


@pytest.mark.parametrize("name", SHIPPED)
def test_curves_are_the_search(name: str) -> None:
    rows = frame(name)
    for shape in results(name).shapes:
        of_kernels = rows[rows.library.isna()] if "library" in rows else rows
        own = of_kernels[(of_kernels.problem == str(shape.problem)) & (of_kernels.stage == "screened")]
        if own.empty:  # no kernel may serve it
            assert curve_of(shape).trials == 0
            continue
        failed = own.time_us.isna()
        cost = own.time_us / own.baseline_us if own.baseline_us[~failed].notna().all() else own.time_us
        left_early = own.detail.str.contains("left early|left at less than", na=False)
        timed = cost.where(~left_early)
        best = timed.cummin().ffill().fillna(math.inf)
        improved = [
            i + 1 for i, (new, before) in enumerate(zip(best, [math.inf, *best[:-1]], strict=True)) if new < before
        ]
        curve = curve_of(shape)
        assert curve.first is not None
        assert (curve.trials, curve.failed) == (len(own), failed.sum())
        assert [each.number for each in curve.best] == improved
        assert curve.first.relative == pytest.approx(cost.iloc[0] / timed.min())
        assert curve.first.left_early == left_early.iloc[0]
        assert {each.number for each in curve.best} <= {each.number for each in curve.tried}
        assert len(curve.tried) <= POINTS_MAX + len(curve.best)


def test_clocks_are_medians_of_the_rows() -> None:
    rows = frame("sm90a-nvidia-h200")
    found = clocks(results("sm90a-nvidia-h200"))
    assert found is not None
    assert found.rows == rows.clock_mhz.notna().sum()
    assert found.reasons == Counter(rows.throttled.dropna())
    medians = rows.groupby("problem")[["clock_mhz", "power_w"]].median()
    for each in found.shapes:
        own = medians.loc[str(each.shape.problem)]
        assert (each.clock_mhz, each.power_w) == (own.clock_mhz, own.power_w)
    assert clocks(results("gfx950-emulated")) is None


def test_the_roofline_is_of_the_device_that_the_environment_names() -> None:
    h200, h100, mi350x = (results(name) for name in ("sm90a-nvidia-h200", H100, "gfx950-emulated-mi350x"))
    limits = [roofline(each).peak for each in (h200, h100, mi350x)]
    assert [limit and (round(limit.tflops[16]), limit.tb_per_s) for limit in limits] == [
        (990, 4.8),  # NVIDIA's data sheets say 1979 with sparsity
        (990, 3.35),
        (2307, 8.0),  # AMD's data sheet says 2.3 PFLOP/s
    ]
    for point in (*roofline(h100).points, *roofline(mi350x).points):
        problem: Problem = point.shape.problem
        bias = problem.n if problem.operation.has_bias else 0
        touched = 2 * (problem.m * problem.k + problem.k * problem.n + problem.m * problem.n + bias)
        assert point.flops_per_byte == pytest.approx(2 * problem.m * problem.n * problem.k / touched)
        assert point.share is not None
        assert 0 < point.share < 1
    unknown = Results("x", h200.trials)
    assert roofline(unknown).peak is None
    assert "environment.json" in roofline(unknown).why_no_peak


def test_what_mattered_is_the_parameter_that_decides() -> None:
    """Configs drawn at random, whose time one of three parameters decides, but for noise of a tenth of a percent."""
    draw = random.Random(0)
    template = read_trials(ROOT / "results" / "gfx950-emulated" / "trials.csv")[0]
    rows = []
    for number in range(300):
        config = Config(
            {"deep": draw.choice([1, 2, 4]), "wide": draw.choice([1, 2, 4, 8]), "late": draw.random() < 0.5}
        )
        time_us = 100.0 / float(str(config["wide"])) * draw.uniform(1, 1.001)
        rows.append(replace(template, trial=number, config=config.json, config_id=config.id, time_us=time_us))
    (found,) = importances(Results("x", rows))
    (group,) = found.groups  # one shape: no groups by m
    assert (found.template, group.shapes, group.trials) == ("gfx950/gemm_bf16", 1, 300)
    assert set(group.shares) == {"deep", "wide", "late"}
    assert group.shares["wide"] > 0.9
    assert sum(group.shares.values()) == pytest.approx(1)
    assert importances(Results("x", rows[:20])) == []


def test_what_failed_is_counted_by_kind() -> None:
    rows = read_trials(ROOT / "results" / "gfx950-emulated" / "trials.csv")[:30]
    failed = [
        replace(row, status=status, source=None, time_us=None, detail=f"why {i}")
        for i, (row, status) in enumerate(zip(rows, [Status.WRONG] * 20 + [Status.HAZARD] * 9, strict=False))
    ]
    kinds = failure_kinds([*failed, *rows[29:]])
    assert [(kind.status, kind.trials, kind.first.detail) for kind in kinds] == [
        (Status.WRONG, 20, "why 0"),
        (Status.HAZARD, 9, "why 20"),
    ]
    all_failed = Results("x", failed)
    assert (all_failed.solved, all_failed.sources) == ([], [])
    for shape in all_failed.shapes:
        curve = curve_of(shape)
        assert (curve.best, curve.chance_of_gain, curve.failed) == ([], None, len(shape.rows))
