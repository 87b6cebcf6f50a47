"""Energies from the counter to rows, tables and reports: measured of the best alone, within a budget, and decisive only
among kernels that are as fast as each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import FormulaStopwatch, InstantExecutor
from made_up_gpus import find_gpus
from naive_gemm import MI355X, published, table_of, trial
from quiet_run import run
from rich.console import Console
from simulated_gpu import SimulatedGpu, SimulatedKernel, SimulatedVendor, multiply, multiply_less, torch_without_cuda

from hktune.cli import main
from hktune.core.config import Config
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Source, Stage
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import content_sha256, read_table
from hktune.measure import measured as measured_module
from hktune.measure.energy import Energies, Energy, EnergyMeter
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.report.summary import print_summary
from hktune.store import TrialStore, merge, read_trials
from hktune.store.added_columns import FORMAT_4
from hktune.store.rows import COLUMNS, HEADER, Encoder
from hktune.tables.standing import choose
from hktune.tables.thrift import thrifty
from hktune.template import Templates
from hktune.tuning.benches.emulated_bench import OpenEmulatedBench
from hktune.tuning.confirming.energies import BUDGET_LEAST_S, measure_energies, usual_budget_s
from hktune.tuning.run_options import RunOptions

P, Q, R = Problem(64, 64, 128), Problem(128, 64, 128), Problem(256, 64, 128)


def measured(problem: Problem, time_us: float, variant: int, joules: float | None = None, **fields: Any) -> Trial:
    """A kernel's row, its time known to 1 %, its energy, if any, to 2 %."""
    row = trial(problem, time_us, variant, source=Source.MEASURED, device=MI355X.name, stage=Stage.CONFIRMED)
    ends = {"time_us_low": 0.99 * time_us, "time_us_high": 1.01 * time_us, "baseline": "vendor", "baseline_us": 100.0}
    energy = {"energy_j": joules, "energy_j_low": 0.98 * joules, "energy_j_high": 1.02 * joules} if joules else {}
    return replace(row, **{**ends, **energy, **fields})


def chosen(*trials: Trial) -> list[Trial | None]:
    return [each.trial for each in choose(trials)]


class TestChoice:
    def test_of_tied_kernels_the_one_that_needs_less_is_used(self) -> None:
        fast, thrifty_one = measured(P, 10.0, 1, 0.006), measured(P, 10.04, 2, 0.005)
        assert chosen(fast, thrifty_one) == [thrifty_one]

    def test_within_the_noise_of_energies_the_faster_one_is_used(self) -> None:
        fast, other = measured(P, 10.0, 1, 0.0051), measured(P, 10.1, 2, 0.0050)
        assert chosen(fast, other) == [fast]

    def test_energy_never_makes_up_for_time(self) -> None:
        fast, slow = measured(P, 10.0, 1, 0.009), measured(P, 11.0, 2, 0.001)
        assert chosen(fast, slow) == [fast]

    def test_one_energy_alone_says_nothing_and_of_several_the_unknown_is_left_out(self) -> None:
        fast, known, other = measured(P, 10.0, 1), measured(P, 10.02, 2, 0.005), measured(P, 10.04, 3, 0.005)
        assert chosen(fast, known) == [fast]
        assert chosen(fast, known, other) == [known]

    def test_it_goes_before_the_smallest_set_of_kernels(self) -> None:
        """Kernel 1 could serve both, but needs a fifth more on one of them."""
        rows = [measured(P, 10.0, 1, 0.006), measured(P, 10.0, 2, 0.005), measured(Q, 20.0, 1, 0.01)]
        assert chosen(*rows) == [rows[1], rows[2]]

    def test_among_thrifty_kernels_the_set_is_still_the_smallest(self) -> None:
        """Of three that need the same on P, the one that Q needs anyway is used, though it is not the fastest."""
        of_p = [measured(P, 10.0 + variant / 100, variant, 0.005) for variant in (1, 2, 3)]
        of_q = measured(Q, 20.0, 3, 0.01)
        assert chosen(*of_p, of_q) == [of_p[2], of_q]

    def test_the_vendor_keeps_what_is_not_faster_whatever_it_draws(self) -> None:
        assert chosen(measured(P, 99.5, 1, 0.001)) == [None]

    def test_the_order_stays_and_nothing_is_decided_by_modelled_rows(self) -> None:
        rows = [measured(P, 10.0, variant) for variant in (1, 2, 3)]
        assert thrifty(rows) == rows
        assert thrifty([]) == []


class TestTable:
    def test_an_entry_has_the_choices_energy_and_the_vendors(self) -> None:
        kernel, vendor = (
            measured(P, 10.0, 1, 0.005, baseline_energy_j=0.006),
            measured(Q, 99.5, 1, 0.07, baseline_energy_j=0.08),
        )
        entries = table_of(kernel, vendor, identity=MI355X).entries
        assert [(entry.choice, entry.energy_j, entry.baseline_energy_j) for entry in entries] == [
            ("kernel", 0.005, 0.006),
            ("vendor", 0.08, None),
        ]

    def test_it_is_read_as_it_was_written_also_where_energies_are_tiny(self, tmp_path: Path) -> None:
        rows = [measured(P, 10.0, 1, 4e-5, baseline_energy_j=6e-5), measured(Q, 20.0, 1)]
        table = published(tmp_path, *rows, identity=MI355X)
        assert read_table(tmp_path) == table
        with_energy = [
            "energy_j" in line for line in (tmp_path / "table.json").read_text().splitlines() if '"m"' in line
        ]
        assert with_energy == [True, False]

    def test_what_was_not_measured_is_not_said_and_changes_no_sha256(self) -> None:
        """The sha256 of this very table before entries had energies."""
        table = table_of(measured(P, 10.0, 1), identity=MI355X)
        assert content_sha256(table) == "e096d5a420cac8885920a5549877ad1917b6ba696338c79a93a5d86d08683327"

    def test_table_show_prints_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        published(tmp_path, measured(P, 10.0, 1, 0.01234, baseline_energy_j=0.02), identity=MI355X)
        assert main(("table", "show", str(tmp_path))) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "12.34" in next(line for line in lines if "64x64x128" in line)
        assert any("mJ" in line for line in lines)


class TestRows:
    def test_a_file_of_format_4_is_read_and_rewritten_before_the_first_append(self, tmp_path: Path) -> None:
        row = measured(P, 10.0, 1)
        cells = dict(zip(COLUMNS, next(csv.reader([Encoder().line(row).decode().strip()])), strict=True))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(FORMAT_4.columns)
        writer.writerow(["4", *(cells[name] for name in FORMAT_4.columns[1:])])
        path = tmp_path / "trials.csv"
        path.write_text(out.getvalue())
        assert read_trials(path) == [row]
        stored = TrialStore(tmp_path).append(measured(P, 10.0, 1, 0.005))
        assert path.read_bytes().startswith(HEADER)
        assert read_trials(path) == [row, stored]
        assert stored.energy_j == 0.005

    def test_merged_rows_of_several_runs_keep_the_energies_that_are_known(self, tmp_path: Path) -> None:
        """A run's row without its energy and the same row with it are one measurement."""
        first, second = tmp_path / "a", tmp_path / "b"
        timed = replace(measured(P, 10.0, 1), samples=10, started_at="2026-11-30T00:00:00+00:00")
        later = replace(measured(P, 10.0, 1, 0.004), samples=10, started_at="2026-11-30T00:00:09+00:00")
        TrialStore(first).extend([timed, later])
        TrialStore(second).append(replace(measured(P, 13.0, 1, 0.006), samples=20))
        merge([first / "trials.csv", second / "trials.csv"], tmp_path / "out")
        (row,) = read_trials(tmp_path / "out" / "trials.csv")
        assert row.time_us == pytest.approx(12.0)
        assert row.samples == 30
        assert row.energy_j == pytest.approx(0.005)
        assert (row.energy_j_low, row.energy_j_high) == (pytest.approx(0.98 * 0.004), pytest.approx(1.02 * 0.006))


@dataclass
class Meter:
    """Takes `each_s` of a made-up clock for a problem; the energy of a kernel is 1 mJ times its variant."""

    each_s: float = 2.0
    now_s: float = 0.0
    counts: bool = True
    asked: list[tuple[Problem, list[int], int]] = field(default_factory=list)

    def energies(self, attempts: Sequence[Attempt], problem: Problem, windows: int) -> Energies:
        variants = [int(attempt.config["variant"]) for attempt in attempts]
        self.asked.append((problem, variants, windows))
        self.now_s += self.each_s
        if not self.counts:
            return Energies(None, tuple(None for _ in attempts))
        joules = [variant / 1000 for variant in variants]
        return Energies(Energy(0.02, 0.019, 0.021), tuple(Energy(each, each * 0.99, each * 1.01) for each in joules))


class Naive:
    """What is asked of a run's templates."""

    def of(self, sha256: str | None) -> Naive:
        return self

    def code_operation(self, operation: Any) -> Any:
        return operation


def measure(trials: Sequence[Trial], meter: Meter, budget_s: float = 100.0, **weights: float) -> list[Trial]:
    """The rows that are stored anew."""
    stored: list[Trial] = []
    of = {P: weights.get("p", 1.0), Q: weights.get("q", 1.0), R: weights.get("r", 1.0)}
    templates = cast("Templates", Naive())
    measure_energies(trials, of, templates, meter, lambda row: stored.append(row) or row, budget_s, lambda: meter.now_s)
    return stored


class TestMeasuring:
    def test_those_that_tie_are_measured_and_stored_again_with_it(self) -> None:
        rows = [measured(P, 10.0, 5), measured(P, 10.04, 6), measured(P, 12.0, 7)]
        meter = Meter()
        stored = measure(rows, meter)
        assert meter.asked == [(P, [5, 6], 2)]
        assert [(row.config_id, row.energy_j, row.baseline_energy_j) for row in stored] == [
            (rows[0].config_id, 0.005, 0.02),
            (rows[1].config_id, 0.006, 0.02),
        ]
        assert all((row.stage, row.time_us) == (old.stage, old.time_us) for row, old in zip(stored, rows, strict=False))
        assert measure([*rows, *stored], again := Meter()) == []
        assert again.asked == []

    def test_a_choice_comes_first_then_what_takes_longest_and_a_single_kernel_is_asked_once(self) -> None:
        rows = [measured(P, 50.0, 1), measured(Q, 20.0, 1), measured(Q, 20.0, 2), measured(R, 10.0, 1)]
        rows += [measured(R, 10.0, 2)]
        meter = Meter()
        measure(rows, meter, r=3.0)
        assert [(problem, windows) for problem, _, windows in meter.asked] == [(R, 2), (Q, 2), (P, 1)]

    def test_the_budget_ends_it_and_none_is_none(self) -> None:
        rows = [measured(problem, 10.0, 1) for problem in (P, Q, R)]
        meter = Meter(each_s=2.0)
        assert len(measure(rows, meter, budget_s=3.0)) == 2
        assert measure(rows, nothing := Meter(), budget_s=0.0) == []
        assert nothing.asked == []

    def test_without_a_counter_it_is_asked_for_once(self) -> None:
        meter = Meter(counts=False)
        assert measure([measured(problem, 10.0, 1) for problem in (P, Q)], meter) == []
        assert len(meter.asked) == 1

    def test_a_shape_that_the_vendor_keeps_is_reported_and_no_others_problem_is(self) -> None:
        meter = Meter()
        stored = measure([measured(P, 99.9, 4), measured(Problem(8, 8, 8), 10.0, 1)], meter)
        assert [(row.problem, row.energy_j) for row in stored] == [(P, 0.004)]

    def test_modelled_times_ask_for_nothing(self) -> None:
        meter = Meter()
        assert measure([trial(P, 10.0, 1)], meter) == []
        assert meter.asked == []
        assert OpenEmulatedBench(InstantExecutor(), FormulaStopwatch()).metered is None

    def test_a_tenth_of_what_the_gpu_was_asked_for_is_its_budget(self) -> None:
        assert usual_budget_s(600.0) == pytest.approx(60.0)
        assert usual_budget_s(1.0) == BUDGET_LEAST_S


class Launches:
    """The one thing that a stopwatch asks of a template."""

    def launch(self, config: Config, problem: Problem) -> Launch:
        pointers = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
        return Launch((1, 1, 1), (64, 1, 1), 0, pointers)


class Board(SimulatedGpu):
    """Draws 500 W in a launch of a kernel, on top of what it draws anyway."""

    def launch(self, kernel: SimulatedKernel, launch: Launch, binding: Any, stream: int | None = None) -> None:
        tensors = {name: buffer.tensor for name, buffer in binding.items() if buffer is not None}
        self.queue(kernel.time_us, lambda: kernel.compute(tensors), more_w=500.0)


@pytest.mark.parametrize("counts", [True, False])
def test_the_stopwatch_measures_what_is_right_and_the_vendor(monkeypatch: pytest.MonkeyPatch, counts: bool) -> None:
    gpu = Board(update_us=20_000.0 if counts else 0.0, host_us=1.0)
    kernels = {"right": multiply, "wrong": multiply_less}

    def loaded(attempt: Attempt) -> SimulatedKernel:
        return SimulatedKernel("gemm", kernels[str(attempt.config["does"])], 400.0)

    def meter(device: Any, timer: Any) -> EnergyMeter:
        def pause(seconds: float) -> None:
            gpu.host_now_us += seconds * 1e6

        return EnergyMeter(device, timer, lambda: gpu.host_now_us * 1e-6, pause)

    monkeypatch.setattr(measured_module, "EnergyMeter", meter)
    with torch_without_cuda(monkeypatch):
        vendors = [SimulatedVendor(gpu, 600.0)]
        stopwatch = MeasuredStopwatch(gpu, Templates(Launches()), loaded, vendors, [P])  # type: ignore[arg-type]
        attempts = [Attempt(Config({"does": name}), object_sha256="0" * 64) for name in ("wrong", "right")]
        found = stopwatch.energies(attempts, P, 1)
    if not counts:
        assert found == Energies(None, (None, None))
        return
    wrong, right = found.attempts
    assert wrong is None
    assert right is not None
    assert found.baseline is not None
    assert right.low <= 600.0 * 400e-6 <= right.high
    assert found.baseline.low <= 100.0 * 600e-6 <= found.baseline.high


class TestRun:
    """Over a GPU of which only the answers are made up: kernels take from 10,000 to 14,095 ns, to 1 ns."""

    @pytest.fixture
    def options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
        pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")
        (tmp_path / "cache").mkdir()
        find_gpus(monkeypatch, 1)
        shapes = tmp_path / "shapes.yaml"
        shapes.write_text("shapes:\n  - {m: [16, 64], n: 512, k: 1024}\n")
        (tmp_path / "cache" / "algorithms").write_text("13.1 first 8000")
        out = tmp_path / "out"
        return RunOptions(shapes, device="cuda", out=out, workers=1, vendor_only=True)

    def test_rows_table_and_summary_have_it(self, options: RunOptions, tmp_path: Path) -> None:
        (tmp_path / "cache" / "energy").write_text("")
        summary = run(options, tmp_path / "cache")
        rows = [row for row in read_trials(tmp_path / "out" / "trials.csv") if row.energy_j is not None]
        assert [(row.m, row.energy_j, row.baseline_energy_j) for row in rows] == [(16, 0.1, 0.2), (64, 0.1, 0.2)]
        entries = read_table(tmp_path / "out").entries
        assert [(entry.choice, entry.energy_j) for entry in entries] == [("algorithm", 0.1), ("algorithm", 0.1)]
        out = io.StringIO()
        print_summary(Console(file=out, width=200), summary)
        assert "100" in next(line for line in out.getvalue().splitlines() if "16x512x1024" in line).split()
        assert main(("summary", str(tmp_path / "out"))) == 0

    def test_no_budget_and_no_counter_leave_cells_empty(self, options: RunOptions, tmp_path: Path) -> None:
        run(options, tmp_path / "cache")
        assert all(row.energy_j is None for row in read_trials(tmp_path / "out" / "trials.csv"))
        (tmp_path / "cache" / "energy").write_text("")
        run(replace(options, energy_budget_s=0.0), tmp_path / "cache")
        assert all(row.energy_j is None for row in read_trials(tmp_path / "out" / "trials.csv"))
