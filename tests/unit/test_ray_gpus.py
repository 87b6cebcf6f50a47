"""`hktune tune --ray` on the GPUs of real clusters of several nodes on this machine; only the GPUs' answers are made
up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

from local_ray import add_nodes, local_cluster, when
from made_up_gpus import H200, MadeUpGpuBench
from quiet_run import run
from ray.cluster_utils import Cluster as LocalCluster

from hktune.core.errors import InputError
from hktune.core.outcome import Stage, Status
from hktune.core.shipped import SPACE_OF
from hktune.core.trial import Trial
from hktune.dispatch import read_table
from hktune.store import TrialStore
from hktune.tuning import run_options
from hktune.tuning.cluster import ray_gpus
from hktune.tuning.cluster.ray_part import GpuFacts
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary
from hktune.workers.ray_cluster import Node

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


@pytest.fixture(scope="module")
def cluster(cache: Path) -> Iterator[LocalCluster]:
    with local_cluster(HKTUNE_CACHE=str(cache)) as local:
        yield local


@pytest.fixture(autouse=True)
def made_up(cluster: LocalCluster, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two nodes with an H200 each that nobody has."""
    add_nodes(cluster, 2 - len(cluster.worker_nodes), num_cpus=2, num_gpus=1)
    monkeypatch.setattr(run_options, "GpuBench", MadeUpGpuBench)
    monkeypatch.setattr(ray_gpus, "device_of", lambda *_: ("cuda", SPACE_OF["sm90a"]))
    monkeypatch.setattr(run_options, "choose_device", lambda *_: ("cuda", SPACE_OF["sm90a"]))
    monkeypatch.setattr(run_options, "choose_gpus", lambda *_: (0, 1))
    yield
    (cache / "slow").unlink(missing_ok=True)


@pytest.fixture
def options(tmp_path: Path, cluster: LocalCluster) -> RunOptions:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(SHAPES)
    out = tmp_path / "ray"
    return RunOptions(shapes, device="cuda", strategy="random", trials=TRIALS, out=out, ray=cluster.address)


def found(summary: RunSummary) -> set[tuple[object, ...]]:
    """What rows say, but for when and where they were made."""
    names = ("problem", "config_id", "stage", "status", "time_us", "object_sha256", "device")
    return {tuple(getattr(trial, name) for name in names) for trial in summary.trials}


def gpus_of(trials: list[Trial]) -> set[int | None]:
    return {trial.gpu for trial in trials}


@pytest.mark.slow
def test_what_two_gpus_of_one_machine_find_two_nodes_find_and_one_that_is_left(
    options: RunOptions, cluster: LocalCluster, cache: Path
) -> None:
    assert options.out
    here = run(replace(options, ray=None, out=options.out.parent / "here"), cache)
    both = run(options, cache)
    assert (both.stopped, both.notes) == ((), ())
    # On a busy machine one may be through before the other has begun. Below, the slow ones are both waited for.
    assert gpus_of(list(both.trials)) <= {0, 1}
    assert found(both) == found(here)
    assert both.usage is not None
    assert (both.usage.gpus, both.usage.workers_lost) == (2, 0)

    (cache / "slow").touch()
    directory = options.out.parent / "lost"
    store = TrialStore(directory)
    lose = when(lambda: gpus_of(store.read()) == {0, 1}, lambda: cluster.remove_node(cluster.worker_nodes.copy().pop()))
    left = run(replace(options, out=directory), cache)
    lose.join()
    assert left.stopped == ()
    assert left.notes == ("1 GPUs were lost at work, and others went on with their shapes",)
    assert found(left) == found(here)
    tables = [read_table(summary.directory).entries for summary in (here, both, left)]
    assert tables[0] == tables[1] == tables[2]
    assert [trial.trial for trial in left.trials] == list(range(len(left.trials)))
    screened = [trial for trial in left.trials if trial.stage is Stage.SCREENED]
    assert len({(trial.problem, trial.config_id) for trial in screened}) == len(screened) == 5 * TRIALS


def objects_in(cache: Path) -> set[str]:
    return {path.name for path in (cache / "objects").rglob("*.entry")}


@pytest.mark.slow
def test_nodes_without_a_gpu_compile_for_those_that_have_one(
    options: RunOptions, cluster: LocalCluster, cache: Path, tmp_path: Path
) -> None:
    """The made-up GPUs compile nothing themselves: what is in their nodes' cache was sent there."""
    cpu_cache = tmp_path / "cpu"
    before = objects_in(cache)
    [node] = add_nodes(cluster, 1, num_cpus=2, env_vars={"HKTUNE_CACHE": str(cpu_cache)})
    summary = run(replace(options, trials=TRIALS + 2), cache)
    cluster.remove_node(node)
    assert (summary.stopped, summary.notes) == ((), ())
    made = objects_in(cpu_cache)
    assert len(made) == len({(trial.config_id, trial.operation.code) for trial in summary.trials})
    assert made <= objects_in(cache)
    assert made - before, "some were not there before"


def test_more_gpus_than_the_cluster_has_are_refused(options: RunOptions, cache: Path) -> None:
    with pytest.raises(InputError, match=r"^--gpus 9: the cluster has 2; pass --gpus 2 or leave it out$"):
        run(replace(options, gpus=9), cache)


def test_gpus_that_are_unlike_are_refused_by_the_names_of_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_gpus, "live_nodes", lambda: [Node("0a", "big-1", 1, 8), Node("0b", "odd-2", 1, 8)])
    alike = GpuFacts("0a", H200, {"driver": "580.1"})
    assert ray_gpus._expected([alike, alike]) == alike
    with pytest.raises(
        InputError, match=r"^--ray: unlike GPUs make no one table: odd-2: driver=575.9, not 580.1: start"
    ):
        ray_gpus._expected([GpuFacts("0b", H200, {"driver": "575.9"}), alike, alike])


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found(options: RunOptions, cache: Path, ctrl_c: Callable[[], None]) -> None:
    (cache / "slow").touch()
    assert options.out
    store = TrialStore(options.out)
    presser = when(lambda: gpus_of(store.read()) == {0, 1}, ctrl_c)
    summary = run(replace(options, trials=5000), cache)
    presser.join()
    assert summary.interrupted
    assert {trial.status for trial in summary.trials} == {Status.OK}
    assert {entry.problem for entry in read_table(options.out).entries} == set(summary.best) != set()
