"""A candidate that was left early has a bound in place of a time: from the stopwatch to rows, strategies and tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from naive_gemm import MI355X, table_of, trial
from ragged_space import ragged_recording
from simulated_gpu import SimulatedGpu, SimulatedKernel, SimulatedVendor, multiply, torch_without_cuda

from hktune.core.config import Config
from hktune.core.errors import StoreError
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.measure.measured import MeasuredStopwatch
from hktune.measure.stopwatch import Attempt
from hktune.search import STRATEGIES, Cost, Outcome, create_strategy
from hktune.store import TrialStore, read_trials
from hktune.store.format_2 import FORMAT_2
from hktune.store.rows import COLUMNS, HEADER, Encoder
from hktune.tables.standing import standings
from hktune.template import Templates
from hktune.tuning.confirming.confirmation import finalists
from hktune.tuning.searching.cost import cost_of, timed_slowness
from hktune.tuning.searching.search_curve import SearchCurve
from hktune.tuning.simulation import replay

RESULTS = Path(__file__).resolve().parents[2] / "results"
SHIPPED = [
    "sm90a-nvidia-h100-80gb-hbm3",
    "sm90a-nvidia-h100-80gb-hbm3/two-shapes-1100-configs",
    "sm90a-nvidia-h200",
    "sm90a-nvidia-h200/sixteen-shapes-auto-96",
    "gfx950-emulated",
]
PROBLEM = Problem(64, 64, 128)
VENDOR_US = 60.0


class Launches:
    """The one thing that a stopwatch asks of a template."""

    def launch(self, config: Config, problem: Problem) -> Launch:
        pointers = tuple(Argument(name, "pointer") for name in ("a", "b", "c"))
        return Launch((1, 1, 1), (64, 1, 1), 0, pointers)


def timed(monkeypatch: pytest.MonkeyPatch, *times_us: int) -> list[Timing]:
    """What a stopwatch says of kernels of these times, one after another."""
    gpu = SimulatedGpu()

    def loaded(attempt: Attempt) -> SimulatedKernel:
        return SimulatedKernel("gemm", multiply, float(attempt.config["us"]))

    with torch_without_cuda(monkeypatch):
        vendors = [SimulatedVendor(gpu, VENDOR_US)]
        stopwatch = MeasuredStopwatch(gpu, Templates(Launches()), loaded, vendors, [PROBLEM])  # type: ignore[arg-type]
        attempts = [Attempt(Config({"us": time_us}), object_sha256="0" * 64) for time_us in times_us]
        found = [stopwatch.time(attempt, PROBLEM) for attempt in attempts]
    return [timing for timing in found if isinstance(timing, Timing)]


def test_a_stopwatch_says_what_it_left_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """First the best so far, then slower, faster, a tie, slower, and one that is over twice the vendor's time."""
    found = timed(monkeypatch, 50, 70, 40, 40, 45, 300)
    assert [timing.left_early for timing in found] == [False, True, False, False, True, True]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rows_say_in_a_column_what_they_said_in_words(name: str) -> None:
    with (RESULTS / name / "trials.csv").open(newline="") as file:
        words = [row["detail"] for row in csv.DictReader(file)]
    trials = read_trials(RESULTS / name / "trials.csv")
    said = ["left early, clearly slower" in detail or detail.startswith("one launch, left at") for detail in words]
    assert [row.left_early for row in trials] == said
    assert any(said) == ("sm90a" in name)


HEADER_2 = (",".join(FORMAT_2.columns) + "\n").encode()


def row_of_format_2(row: Trial) -> bytes:
    """The line of `row` without what format 3 added."""
    cells = dict(zip(COLUMNS, next(csv.reader([Encoder().line(row).decode().strip()])), strict=True))
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(["2", *(cells[name] for name in FORMAT_2.columns[1:])])
    return line.getvalue().encode()


def test_a_file_of_format_2_is_read_and_rewritten_before_the_first_append(tmp_path: Path) -> None:
    ran = measured(9.0, 1, detail="0.8x the vendor (0.7..0.9); left early, clearly slower")
    not_timed = replace(ran, trial=1, status=Status.WRONG, source=None, time_us=None)
    modelled = replace(ran, trial=2, source=Source.MODELLED)
    path = tmp_path / "trials.csv"
    path.write_bytes(HEADER_2 + b"".join(map(row_of_format_2, (ran, not_timed, modelled))))
    expected = [replace(ran, left_early=True), not_timed, modelled]
    assert read_trials(path) == expected
    stored = TrialStore(tmp_path).append(ran)
    assert (stored.trial, stored.left_early) == (3, False)
    assert path.read_bytes().startswith(HEADER)
    assert read_trials(path) == [*expected, stored]


def test_a_row_of_format_3_under_the_columns_of_2_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(HEADER_2 + row_of_format_2(measured(9.0, 1)).replace(b"2,", b"3,", 1))
    with pytest.raises(StoreError, match="line 2 is torn or edited: column format: '3' is another than 2"):
        read_trials(path)


def test_a_row_without_a_time_was_not_left_early(tmp_path: Path) -> None:
    wrong = replace(measured(9.0, 1), status=Status.WRONG, source=None, time_us=None, left_early=True)
    with pytest.raises(StoreError, match="column left_early: a trial without a time_us was not left early"):
        TrialStore(tmp_path).append(wrong)


def measured(time_us: float, variant: int, **fields: object) -> Trial:
    words = {"source": Source.MEASURED, "device": MI355X.name, "baseline_us": 100.0, "baseline": "vendor", **fields}
    return trial(PROBLEM, time_us, variant, **words)


def test_a_bound_is_no_winner_and_no_tie_of_a_table() -> None:
    """As where a host held up the rounds of what is the best: a bound below every time."""
    ends = {"time_us_low": 8.0, "time_us_high": 11.0}
    best, tied = measured(9.0, 0, **ends), measured(10.0, 1, **ends)
    bound = measured(7.0, 2, time_us_low=6.0, time_us_high=8.0, left_early=True)
    [entry] = table_of(best, bound, tied, identity=MI355X).entries
    assert (entry.time_us, entry.kernel.config_id, entry.ties) == (9.0, best.config_id, (tied.config_id,))  # type: ignore[union-attr]
    [standing] = standings([best, bound, tied])
    assert standing.time_of(bound) == 7.0, "what serving with it costs is at least that"
    assert standings([bound]) == []


def test_a_bound_is_measured_again_only_where_nothing_has_a_time() -> None:
    best, bound, slower = measured(9.0, 0), measured(9.1, 1, left_early=True), measured(300.0, 2, left_early=True)
    assert finalists([bound, best, slower]) == [best]
    assert finalists([slower, bound]) == [bound]


def test_a_strategy_hears_that_a_cost_is_a_bound() -> None:
    told = [cost_of(measured(9.0, 1, left_early=left)) for left in (False, True)]
    assert told == [Cost(0.09, told[0].name), Cost(0.09, told[0].name, is_bound=True)]  # type: ignore[union-attr]


def test_a_bound_gains_nothing() -> None:
    rows = [measured(9.0, 0), measured(7.0, 1, left_early=True)]
    assert list(map(timed_slowness, rows)) == [0.09, math.inf]
    assert SearchCurve(map(timed_slowness, rows)).since_gain == 1
    assert SearchCurve([timed_slowness(rows[1])]).chance_of_gain == 1.0


class Heard:
    """Asks what it is given, and remembers what it was told."""

    name = "heard"

    def __init__(self, configs: Sequence[Config]) -> None:
        self._left = list(configs)
        self.told: list[tuple[float, bool]] = []

    def ask(self, n: int) -> list[Config]:
        asked, self._left = self._left[:n], self._left[n:]
        return asked

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        self.told += [(each.cost.value, each.cost.is_bound) for each in outcomes if each.cost]


def test_a_recorded_bound_is_one_in_a_replay_that_knows_something_faster(tmp_path: Path) -> None:
    """The replay would have measured it to the end where it is the best so far."""
    recording = ragged_recording(tmp_path)
    timed = [row for row in recording.rows if row.time_us is not None][:12]
    slowest_first = sorted(timed, key=lambda row: -(row.time_us or 0))
    order = [slowest_first[at] for at in (3, 0, 6, 5, 11)]
    rows = tuple(replace(row, left_early=True) for row in recording.rows if row in order)
    told = Heard([Config.from_json(row.config) for row in order])
    replay(replace(recording, rows=rows), told, trials=5, in_flight=1)
    assert told.told == [(row.time_us, row in (order[1], order[3])) for row in order][: len(told.told)]
    assert len(told.told) == 4, "the last outcome is not asked after"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_goes_on_from_bounds(name: str, tmp_path: Path) -> None:
    """A search all of whose outcomes are bounds but one still lists a space, none twice."""
    recording = ragged_recording(tmp_path)
    strategy = create_strategy(name, recording.domain, 0)
    times = {row.config_id: row.time_us for row in recording.rows}
    asked: list[Config] = []
    for number in range(24):
        asked += strategy.ask(1)
        time_us = times[asked[-1].id]
        cost = None if time_us is None else Cost(time_us, is_bound=number != 12)
        strategy.tell([Outcome(asked[-1], Status.OK if cost else Status.CRASHED, cost)])
    assert len({config.id for config in asked}) == 24
