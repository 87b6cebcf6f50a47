"""`hktune tune --ray`, on real clusters of several nodes on this machine, whose device is emulated."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from local_ray import STORE_BYTES, add_nodes, local_cluster, when
from quiet_run import run
from ray.cluster_utils import Cluster as LocalCluster
from test_run_ends import own_cache

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.errors import InputError, MachineError
from hktune.core.outcome import Status
from hktune.core.shipped import DEFAULT_SPACE
from hktune.core.trial import Trial
from hktune.measure.stopwatch import Attempt
from hktune.store import TrialStore
from hktune.tuning.run_options import RunOptions, asked_cluster
from hktune.workers.executor import Limits
from hktune.workers.ray_cluster import Cluster
from hktune.workers.ray_executor import LOSSES_MAX, RayExecutor

SHAPES = """
shapes:
  - {m: [256, 512], n: 512, k: 512}
  - {m: 4096, n: 4096, k: 4096}
"""
TRIALS = 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is cold, but for HipKittens' headers: nothing is fetched."""
    return own_cache(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def cluster(cache: Path) -> Iterator[LocalCluster]:
    """A head without CPUs. Tests add the nodes that they need."""
    with local_cluster(HKTUNE_CACHE=str(cache)) as local:
        yield local


@pytest.fixture
def two_nodes(cluster: LocalCluster) -> None:
    """There are two nodes, with a CPU each."""
    add_nodes(cluster, 2 - len(cluster.worker_nodes), num_cpus=1, node_name="alike")


@pytest.fixture
def connected(cluster: LocalCluster) -> Iterator[None]:
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def options(tmp_path: Path, cluster: LocalCluster) -> RunOptions:
    shapes, space = tmp_path / "shapes.yaml", tmp_path / "search_spaces" / "own.yaml"
    shapes.write_text(SHAPES)
    space.parent.mkdir()
    space.write_text(DEFAULT_SPACE.read_text())  # one that nodes do not have
    common = {"device": "emulated", "strategy": "random", "trials": TRIALS, "out": tmp_path / "ray"}
    return RunOptions(shapes, space=space, ray=cluster.address, **common)  # type: ignore[arg-type]


def found(trials: list[Trial]) -> set[tuple[object, ...]]:
    """What rows say, but for when they were made and how long that took."""
    names = ("problem", "config_id", "status", "time_us", "object_sha256", "compiler", "relative_error")
    return {tuple(getattr(trial, name) for name in names) for trial in trials}


def table(directory: Path) -> Any:
    content = json.loads((directory / "table.json").read_text())
    del content["created_at"], content["content_sha256"]
    return content


@pytest.mark.slow
def test_a_run_that_loses_a_node_finds_what_one_machine_finds(
    options: RunOptions, two_nodes: None, cluster: LocalCluster, cache: Path
) -> None:
    assert options.out
    store = TrialStore(options.out)
    kill = when(lambda: bool(store.read()), lambda: cluster.remove_node(cluster.worker_nodes.copy().pop()))
    over_ray = run(options, cache)
    kill.join()
    assert not over_ray.stopped
    assert not over_ray.interrupted
    assert not ray.is_initialized()
    here = run(replace(options, ray=None, out=options.out.parent / "here"), cache)
    assert found(list(over_ray.trials)) == found(list(here.trials))
    assert len(over_ray.trials) == 3 * TRIALS
    assert table(over_ray.directory) == table(here.directory)


def hang_at_first(candidate: Candidate) -> Attempt:
    """Hang, as often as the candidate says, in a process that says which node it is of; after that be done."""
    for time_ in range(int(candidate.config["times"])):
        try:
            with Path(f"{candidate.config['at']}.{time_}").open("x") as file:
                file.write(os.environ["RAY_RAYLET_PID"])
        except FileExistsError:
            continue
        time.sleep(3600)
    return Attempt(candidate.config)


def make_hang_at_first() -> Callable[[Candidate], Attempt]:
    return hang_at_first


def drained(executor: RayExecutor) -> list[Attempt]:
    attempts: list[Attempt] = []
    while executor.pending:
        attempts += executor.collect(1.0)
    return attempts


def kill_node_of(cluster: LocalCluster, announced: Path) -> None:
    """End the node that a hanging process announced."""
    pid = int(announced.read_text())
    [node] = [each for each in cluster.worker_nodes if each.all_processes["raylet"][0].process.pid == pid]
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.usefixtures("connected")
def test_what_a_lost_node_had_in_hand_is_done_elsewhere(cluster: LocalCluster, two_nodes: None, tmp_path: Path) -> None:
    executor = RayExecutor(make_hang_at_first, 2, 60.0, Limits())
    announced = tmp_path / "at.0"
    executor.submit(Candidate(Config({"at": str(tmp_path / "at"), "times": 1})))
    killer = when(lambda: announced.exists() and bool(announced.read_text()), lambda: kill_node_of(cluster, announced))
    attempts = drained(executor)
    killer.join()
    assert [attempt.failure for attempt in attempts] == [None], "no config is to blame for a node"
    assert executor.notes == ("1 trials were in flight where a node was lost, and were tried again elsewhere",)
    executor.close()


@pytest.mark.slow
@pytest.mark.usefixtures("connected")
def test_a_candidate_that_costs_node_after_node_stops_the_run(
    cluster: LocalCluster, two_nodes: None, tmp_path: Path
) -> None:
    add_nodes(cluster, LOSSES_MAX - 2, num_cpus=1)
    executor = RayExecutor(make_hang_at_first, 1, 60.0, Limits())
    candidate = Candidate(Config({"at": str(tmp_path / "at"), "times": LOSSES_MAX}))
    executor.submit(candidate)
    files = [tmp_path / f"at.{time_}" for time_ in range(LOSSES_MAX)]
    killers = [
        when(lambda at=at: at.exists() and bool(at.read_text()), lambda at=at: kill_node_of(cluster, at))  # type: ignore[misc]
        for at in files
    ]
    rule = rf"{LOSSES_MAX} nodes or their actors were lost, each with {candidate.id}"
    with pytest.raises(MachineError, match=rule):
        drained(executor)
    for killer in killers:
        killer.join()
    executor.close()


def cpus_here() -> dict[str, str]:
    """What differs between the nodes of the test below."""
    [own] = [node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id()]
    return {"cpus": f"{own['Resources']['CPU']:.0f}"}


@pytest.mark.usefixtures("connected")
def test_nodes_that_are_unlike_are_refused_by_name(cluster: LocalCluster, two_nodes: None) -> None:
    Cluster().require_alike(cpus_here, {"cpus": "1"})
    unlike = cluster.add_node(num_cpus=2, node_name="unlike", object_store_memory=STORE_BYTES)
    with pytest.raises(InputError, match=r"^--ray: unlike nodes make no one table: unlike: cpus=2, not 1: install the"):
        Cluster().require_alike(cpus_here, {"cpus": "1"})
    cluster.remove_node(unlike)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"cannot connect to a cluster \(.*refused\): start one with ray start --head"),
        ("nonsense", r"cannot connect to a cluster \(.*\): start one"),
        ("ray://127.0.0.1:10001", r"run hktune on a machine of the cluster, and pass auto or HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(options: RunOptions, address: str, said: str) -> None:
    with pytest.raises(InputError, match=said), asked_cluster(replace(options, ray=address)):
        pass


def test_a_machine_without_ray_says_what_to_install(options: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"Ray is not installed here: pip install 'hktune\[ray\]'"),
        asked_cluster(options),
    ):
        pass


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found(
    options: RunOptions, two_nodes: None, cache: Path, ctrl_c: Callable[[], None]
) -> None:
    assert options.out
    store = TrialStore(options.out)
    presser = when(lambda: bool(store.read()), ctrl_c)
    summary = run(replace(options, trials=5000), cache)
    presser.join()
    assert summary.interrupted
    assert {trial.status for trial in summary.trials} == {Status.OK}
    assert (options.out / "table.json").exists()


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on(options: RunOptions, two_nodes: None, cache: Path) -> None:
    assert options.out
    assert options.ray
    words = ["tune", "--device", "emulated", "--strategy", "random", "--trials", "12", "--shapes", str(options.shapes)]
    words += ["--space", str(options.space), "--out", str(options.out), "--ray", options.ray]
    environment = {**os.environ, "HKTUNE_CACHE": str(cache / "cold")}
    with subprocess.Popen([sys.executable, "-m", "hktune", *words], env=environment) as driver:
        when(lambda: bool(TrialStore(options.out).read()), driver.kill).join()  # type: ignore[arg-type]
    before = TrialStore(options.out).read()
    assert 0 < len(before) < 3 * 12
    summary = run(replace(options, trials=12), cache)
    here = run(replace(options, trials=12, ray=None, out=options.out.parent / "here"), cache)
    assert summary.trials[: len(before)] == before, "no row is lost"
    assert found(list(summary.trials)) == found(list(here.trials))
    assert table(options.out) == table(here.directory)
