"""Algorithms of the vendor's library in a run over a GPU of which only the answers are made up."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fakes import FormulaStopwatch
from made_up_gpus import find_gpus
from naive_gemm import algorithm_trial
from quiet_run import run
from rich.console import Console

from hktune.core.config import Config
from hktune.core.errors import InputError, MachineError
from hktune.core.outcome import Failure, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.dispatch import read_table
from hktune.measure.stopwatch import Attempt
from hktune.report.summary import print_summary
from hktune.store import read_trials
from hktune.tuning.benches.vendor_rows import VendorBench, VendorRows
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary
from hktune.tuning.searching.searches import Budget

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

SHAPES = "shapes:\n  - {m: [16, 64], n: 512, k: 1024}\n"
FAST, SLOW = 8_000, 15_000
"""Of times in ns: made-up kernels take from 10,000 to 14,095, and torch's default 20,000."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that keeps what the tests before have compiled."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(built: Path) -> Path:
    """It, where the library names no algorithm yet."""
    (built / "algorithms").unlink(missing_ok=True)
    return built


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 that nobody has."""
    find_gpus(monkeypatch, 1)


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(SHAPES)
    return RunOptions(shapes, device="cuda", trials=3, out=tmp_path / "out", workers=1, vendor_only=True)


def names(cache: Path, version: str, **times_ns: int) -> None:
    """Let the library, at `version`, name these algorithms."""
    (cache / "algorithms").write_text(" ".join([version, *(f"{name} {time}" for name, time in times_ns.items())]))


def printed(summary: RunSummary) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=200), summary)
    return out.getvalue()


def algorithms(trials: Sequence[Trial], stage: Stage) -> dict[str, list[Trial]]:
    """The rows of algorithms, by their names."""
    found: dict[str, list[Trial]] = {}
    for row in trials:
        if row.library and row.stage is stage:
            found.setdefault(VendorAlgorithm.of_config(Config.from_json(row.config)).name, []).append(row)
    return found


def test_only_the_vendors_algorithms_are_tried_where_that_is_asked_for(options: RunOptions, cache: Path) -> None:
    names(cache, "130100", slow=SLOW, fast=FAST, wrong=5_000)
    summary = run(options, cache)
    assert options.out
    trials = read_trials(options.out / "trials.csv")
    assert {row.library for row in trials} == {"cublasLt"}
    screened = algorithms(trials, Stage.SCREENED)
    assert {name: [row.status for row in rows] for name, rows in screened.items()} == {
        "slow": [Status.OK] * 2, "fast": [Status.OK] * 2, "wrong": [Status.WRONG] * 2,
    }  # fmt: skip
    assert set(algorithms(trials, Stage.CONFIRMED)) == {"fast", "slow"}, "the fastest few are measured again"
    assert all(row.template is row.object_sha256 is None and row.relative_error for row in screened["fast"])
    table = read_table(options.out)
    assert [entry.choice for entry in table.entries] == ["algorithm"] * 2
    assert {entry.vendor_algorithm.name for entry in table.entries if entry.vendor_algorithm} == {"fast"}
    assert [entry.rows for entry in table.entries] == [(16, 16), (64, 64)]
    text = printed(summary)
    assert "cublasLt 130100 fast" in text
    assert "0 new variants compiled" in text
    assert not list((options.out / "objects").iterdir())


def test_the_same_run_again_tries_nothing_again(options: RunOptions, cache: Path) -> None:
    names(cache, "130100", slow=SLOW, fast=FAST)
    before = len(run(options, cache).trials)
    assert len(run(options, cache).trials) == before


def test_another_version_of_the_library_is_tried_anew_and_the_old_one_is_not_used(
    options: RunOptions, cache: Path
) -> None:
    names(cache, "130100", fast=FAST)
    run(options, cache)
    names(cache, "130200", newer=FAST + 500)
    run(options, cache)
    assert options.out
    found = [entry.vendor_algorithm for entry in read_table(options.out).entries]
    assert [(each.version, each.name) for each in found if each] == [("130200", "newer")] * 2


def test_kernels_and_algorithms_meet_and_the_faster_is_used(options: RunOptions, cache: Path) -> None:
    """Either way, and the rows say how fast the vendor's best is, in the same rounds."""
    options = replace(options, vendor_only=False, strategy="random")
    assert options.out
    names(cache, "130100", slow=SLOW)
    run(options, cache)
    entries = read_table(options.out).entries
    assert {entry.choice for entry in entries} == {"kernel"}
    names(cache, "130100", slow=SLOW, fast=FAST)
    summary = run(options, cache)
    entries = read_table(options.out).entries
    assert {entry.choice for entry in entries} == {"algorithm"}
    assert {row.library for row in summary.best.values()} == {"cublasLt"}
    assert "cublasLt 130100 fast" in printed(summary)


def test_an_algorithm_that_is_as_fast_as_torchs_default_keeps_that(options: RunOptions, cache: Path) -> None:
    names(cache, "130100", same=20_000, slower=21_000)
    run(options, cache)
    assert options.out
    assert {entry.choice for entry in read_table(options.out).entries} == {"vendor"}


def test_where_no_library_names_any_there_is_no_row(options: RunOptions, cache: Path) -> None:
    summary = run(options, cache)
    assert list(summary.trials) == []
    counted = (
        "the vendor's libraries that are here name no algorithm for 2 of 2 shapes; the first is 16x512x1024 bf16.nt"
    )
    assert counted in summary.notes


def test_the_emulated_device_has_no_library(options: RunOptions, cache: Path) -> None:
    with pytest.raises(InputError, match=r"^--vendor-only: the emulated device has no vendor library: run it where"):
        run(replace(options, device="emulated", out=None), cache)


def test_the_emulated_device_has_no_power_limit(options: RunOptions, cache: Path) -> None:
    with pytest.raises(InputError, match=r"^--steady: the emulated device has no power limit: leave it out$"):
        run(replace(options, device="emulated", out=None, vendor_only=False, steady=True), cache)


def test_what_the_machine_lacks_for_one_shape_is_said_and_the_others_are_tried() -> None:
    """A proof takes more memory than a search does."""
    small, large = Problem(16, 512, 1024), Problem(16384, 16384, 16384)
    algorithm = VendorAlgorithm("cublasLt", "130100", "0a")

    class Bench(FormulaStopwatch):
        def algorithms(self, problem: Problem) -> list[VendorAlgorithm]:
            return [algorithm]

        def prove(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
            if problem == large:
                raise MachineError("GPU 0 has too little free memory")
            return attempt

    tried: list[Problem] = []

    def record(attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        tried.append(problem)
        return algorithm_trial(problem, algorithm)

    rows = VendorRows(cast("VendorBench", Bench()), record, lambda _: None, Budget(96))
    rows.measure([large, small], [])
    assert tried == [small]
    assert rows.trouble == [
        f"the vendor's algorithms were not tried to the end on {large}: GPU 0 has too little free memory"
    ]
    assert rows.named == dict.fromkeys((large, small), frozenset({algorithm.config.id}))


def tried_of(budget: Budget, problems: Sequence[Problem], monkeypatch: pytest.MonkeyPatch) -> dict[Problem, list[str]]:
    """Names of what is tried of 9 algorithms that each take a second of a made-up clock."""
    named = [VendorAlgorithm("hipBLASLt", "100202", f"0{rank}", f"rank {rank}") for rank in range(9)]
    clock_s = [1000.0]
    tried: dict[Problem, list[str]] = {}

    class Bench(FormulaStopwatch):
        def algorithms(self, problem: Problem) -> list[VendorAlgorithm]:
            return named

        def prove(self, attempt: Attempt, problem: Problem | None = None) -> Attempt:
            clock_s[0] += 1.0
            return attempt

    def record(attempt: Attempt, problem: Problem, outcome: Timing | Failure) -> Trial:
        [algorithm] = (each for each in named if each.config == attempt.config)
        tried.setdefault(problem, []).append(algorithm.name)
        return algorithm_trial(problem, algorithm)

    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    rows = VendorRows(cast("VendorBench", Bench()), record, lambda _: None, budget)
    rows.measure(problems, [])
    assert rows.named == dict.fromkeys(problems, frozenset(each.config.id for each in named))
    return tried


def test_no_more_than_trials_of_a_shape_are_tried_and_the_librarys_first(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem(16, 512, 1024), Problem(64, 512, 1024)]
    first = ["rank 0", "rank 1", "rank 2"]
    assert tried_of(Budget(3), problems, monkeypatch) == dict.fromkeys(problems, first)


@pytest.mark.parametrize(
    ("time_s", "counts"), [(9.0, [3, 3, 3]), (4.5, [2, 2, 1]), (0.1, [1, 1, 1]), (999.0, [9, 9, 9])]
)
def test_shapes_share_the_time_and_each_has_its_first(
    time_s: float, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [Problem(m, 512, 1024) for m in (16, 32, 64)]
    tried = tried_of(Budget(96, time_s), problems, monkeypatch)
    assert [len(tried[problem]) for problem in problems] == counts


def test_after_a_search_they_have_a_quarter_of_its_time() -> None:
    assert Budget(96, 60.0, 5).after_search == Budget(96, 15.0, 5)
    assert Budget(96).after_search == Budget(96)
