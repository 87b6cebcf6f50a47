"""A run over two GPUs of which only the answers are made up: loops, compilers, processes, rows and table are real."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_gpus import find_gpus
from quiet_run import run
from rich.console import Console

from hktune.core.outcome import Stage, Status
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.report.summary import print_summary
from hktune.store import TrialStore
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

SHAPES = """
shapes:
  - {m: [16, 64], n: 512, k: 1024}
  - {m: [16, 64], n: 1024, k: 512}
  - {m: 128, n: 256, k: 256}
"""
TRIALS = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    """Two H200 that nobody has."""
    find_gpus(monkeypatch, 2)
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before, "every process has ended with the run"
    for order in cache.glob("*-[01]"):
        order.unlink()


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(SHAPES)
    return RunOptions(shapes, device="cuda", strategy="random", trials=TRIALS, out=tmp_path / "out", workers=2)


def process_of(trial: Trial) -> str:
    return (trial.detail or "").partition("process ")[2]


def searched(summary: RunSummary) -> list[Trial]:
    return [trial for trial in summary.trials if trial.stage is Stage.SCREENED]


def test_each_gpu_tunes_its_own_shapes_and_one_table_serves_all(
    options: RunOptions, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(options, cache)
    rows = searched(summary)
    assert len({(trial.problem, trial.config_id) for trial in rows}) == len(rows) == 5 * TRIALS
    assert [trial.trial for trial in summary.trials] == list(range(len(summary.trials)))
    by_gpu = {gpu: {trial.problem for trial in summary.trials if trial.gpu == gpu} for gpu in (0, 1)}
    assert all(by_gpu.values())
    assert not by_gpu[0] & by_gpu[1]
    families = [{(problem.n, problem.k) for problem in own} for own in by_gpu.values()]
    assert not families[0] & families[1]
    assert len({process_of(trial) for trial in summary.trials}) == 2

    assert set(summary.best) == set(summary.names)
    assert {trial.stage for trial in summary.best.values()} <= {Stage.CONFIRMED, Stage.NEIGHBOUR}
    assert {trial.stage for trial in summary.trials} >= {Stage.SCREENED, Stage.CONFIRMED}
    served = {entry.problem for entry in read_table(options.out or Path()).entries}
    assert served == set(summary.names)
    assert summary.usage is not None
    assert (summary.usage.gpus, summary.usage.busy_s, summary.usage.workers_lost) == (2, 1.0, 0)
    print_summary(Console(width=200), summary)
    assert "2 GPUs together: 1.0 s in timed rounds" in capsys.readouterr().out


def test_the_same_configs_are_tried_on_one_gpu(options: RunOptions, cache: Path, tmp_path: Path) -> None:
    def tried(gpus: int) -> set[tuple[Problem, str]]:
        summary = run(replace(options, gpus=gpus, out=tmp_path / str(gpus)), cache)
        assert summary.usage is not None
        assert summary.usage.gpus == gpus
        return {(trial.problem, trial.config_id) for trial in searched(summary)}

    assert tried(1) == tried(2)


def test_a_worker_killed_on_one_gpu_does_not_disturb_the_other(options: RunOptions, cache: Path) -> None:
    (cache / "die-1").touch()
    summary = run(options, cache)
    rows = searched(summary)
    assert len({(trial.problem, trial.config_id) for trial in rows}) == len(rows) == 5 * TRIALS
    assert {process_of(trial) for trial in rows if trial.gpu == 0} == {
        process_of(trial) for trial in summary.trials if trial.gpu == 0
    }
    assert len({process_of(trial) for trial in summary.trials if trial.gpu == 0}) == 1
    assert {trial.status for trial in rows} == {Status.OK}, "what kill -9 ended was asked once more"
    assert summary.usage is not None
    assert summary.usage.workers_lost == 1


def test_a_config_that_costs_two_workers_is_to_blame(options: RunOptions, cache: Path) -> None:
    for order in ("die-1", "die-again-1"):
        (cache / order).touch()
    summary = run(options, cache)
    failed = {(trial.status, trial.config_id) for trial in summary.trials if trial.status is not Status.OK}
    assert len(failed) == 1, "one config is to blame"
    [(status, config_id)] = failed
    assert status is Status.CRASHED
    [blamed] = {row.detail for row in summary.trials if row.quarantined}
    assert blamed is not None
    assert "quarantined, reproduce: hktune bench" in blamed
    assert {trial.gpu for trial in summary.best.values() if trial.config_id == config_id} <= {0}
    assert summary.usage is not None
    assert summary.usage.workers_lost == 2


def test_ctrl_c_ends_both_and_keeps_everything(options: RunOptions, cache: Path, ctrl_c: Callable[[], None]) -> None:
    (cache / "hang-1").touch()
    assert options.out
    store, over = TrialStore(options.out), threading.Event()

    def press() -> None:
        """When GPU 0 has served its shapes, while GPU 1's worker hangs."""
        while not over.wait(0.1):
            if len({trial.problem for trial in store.read()}) >= 2:
                ctrl_c()
                return

    presser = threading.Thread(target=press)
    presser.start()
    try:
        summary = run(replace(options, trials=5000), cache)
    finally:
        over.set()
        presser.join()
    assert summary.interrupted
    assert {trial.gpu for trial in summary.trials} == {0}, "no config is blamed for what Ctrl-C ended"
    assert {entry.problem for entry in read_table(options.out).entries} == set(summary.best) != set()


def test_a_gpu_that_cannot_be_used_costs_its_own_shapes_alone(options: RunOptions, cache: Path) -> None:
    (cache / "broken-1").touch()
    summary = run(options, cache)
    assert summary.stopped == (
        "no process can use GPU 1 (2 times: fell off the bus): repair what it printed, or choose GPUs with "
        "CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES",
    )
    assert {trial.status for trial in summary.trials} == {Status.OK}, "no config is blamed"
    assert options.out
    assert {entry.problem for entry in read_table(options.out).entries} == set(summary.best) != set()
    assert {trial.gpu for trial in summary.best.values()} == {0}


def test_no_gpu_that_can_be_used_is_a_run_without_rows(options: RunOptions, cache: Path) -> None:
    for order in ("broken-0", "broken-1"):
        (cache / order).touch()
    summary = run(options, cache)
    assert [line.partition(" (")[0] for line in summary.stopped] == [
        "no process can use GPU 0",
        "no process can use GPU 1",
    ]
    assert not summary.trials
