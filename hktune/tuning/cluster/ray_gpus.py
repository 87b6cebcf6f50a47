"""The GPUs of a Ray cluster that a run uses: chosen on their nodes, asked what they are, and all alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import ray
from ray.exceptions import GetTimeoutError, RayError

from hktune.core.errors import HktuneError, InputError
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.tuning.benches.device_choice import choose_device
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.cluster.ray_benches import ClusterExecutor, OnNode, on_nodes
from hktune.tuning.cluster.ray_part import GpuActor, GpuFacts
from hktune.tuning.cluster.ray_search import RemoteGpu, RemoteSearch
from hktune.workers.executor import START_DEADLINE_S
from hktune.workers.ray_cluster import Cluster, difference, last_line, live_nodes, on_this_node


def device_of(cluster: Cluster, device: str, space: Path | None, settings: Settings) -> tuple[str, Path]:
    """As `choose_device`, on a node of `cluster` that has a GPU; without one the emulated device is what is there."""
    if device == "emulated" or (device == "auto" and not cluster.gpus):
        return choose_device("emulated", space, settings)
    if not cluster.gpus:
        raise InputError(f"--device {device}: no node of the cluster has a GPU: start one with ray start --num-gpus N")
    asked = ray.remote(_chosen_there).options(num_gpus=1, max_retries=0)
    ref = asked.remote(device, None if space is None else cluster.on_node(space))
    try:
        said = ray.get(ref, timeout=START_DEADLINE_S)
    except GetTimeoutError:
        raise InputError("--ray: no GPU of the cluster is free (ray status): end what uses them") from None
    except RayError as error:
        raise InputError(f"--ray: a node with a GPU cannot be used ({last_line(error)}): repair that") from None
    if isinstance(said, HktuneError):
        raise said
    kind, name = said
    return kind, space or SPACES / name


def _chosen_there(device: str, space: PurePosixPath | None) -> tuple[str, str] | HktuneError:
    settings = Settings.from_environment(os.environ)
    try:
        kind, chosen = choose_device(device, None if space is None else on_this_node(space), settings)
    except HktuneError as error:
        return error
    return kind, chosen.name


def gpus_of(cluster: Cluster, bench: GpuBench, asked: int | None, workers: int | None) -> tuple[GpuBench, RemoteSearch]:
    """`bench` for `asked` GPUs of `cluster`, or all, and what searches on them. `workers` compile, of all nodes, else
    one for each CPU. Raises InputError where there are fewer GPUs, or where they or their nodes are unlike."""
    count = asked or cluster.gpus
    if count > cluster.gpus:
        raise InputError(f"--gpus {count}: the cluster has {cluster.gpus}; pass --gpus {cluster.gpus} or leave it out")
    there = on_nodes(cluster, _with_workers(replace(bench, gpus=(0,)), cluster, count, workers))

    def start(number: int) -> RemoteGpu:
        return _started(there, number)

    gpus = [start(number) for number in range(count)]
    found = _begun(gpus)
    expected = _expected(found)
    search = RemoteSearch(gpus, start, expected)
    return replace(bench, gpus=tuple(range(count)), known=expected.identity), search


def _with_workers(bench: GpuBench, cluster: Cluster, gpus: int, workers: int | None) -> GpuBench:
    """`bench` with its part of `workers`: on nodes without a GPU where these have a CPU for each GPU, else on the GPU's
    own."""
    cpus = sum(node.cpus for node in live_nodes() if not node.gpus)
    if bench.prebuilt or cpus < gpus:
        return replace(bench, workers=max(1, (workers or cluster.cpus) // gpus))
    part = max(1, min(workers or cpus, cpus) // gpus)
    return replace(bench, workers=part, make_executor=ClusterExecutor(Cluster()))


def _started(there: OnNode[GpuBench], number: int) -> RemoteGpu:
    """One more actor with a GPU; Ray lets it see that one alone, so it is number 0 there."""
    actor = ray.remote(GpuActor).options(num_gpus=1, num_cpus=1, max_concurrency=2).remote(there, number)
    return RemoteGpu(actor, number, actor.begin.remote())  # type: ignore[attr-defined]


def _begun(gpus: Sequence[RemoteGpu]) -> list[GpuFacts]:
    """What all of them say of themselves. Raises InputError where some do not come, or HktuneError as one does."""
    ready, late = ray.wait([gpu.began for gpu in gpus], num_returns=len(gpus), timeout=START_DEADLINE_S)
    if late:
        rule = f"--ray: {len(ready)} of {len(gpus)} GPUs of the cluster are free"
        raise InputError(f"{rule}: pass --gpus {max(len(ready), 1)}, or end what uses the others (ray status)")
    try:
        said = ray.get([gpu.began for gpu in gpus])
    except RayError as error:
        raise InputError(f"--ray: a node with a GPU cannot be used ({last_line(error)}): repair that") from None
    for each in said:
        if isinstance(each, HktuneError):
            raise each
    return said


def _expected(found: Sequence[GpuFacts]) -> GpuFacts:
    """What most GPUs say. Raises InputError, naming nodes, where others say something else."""
    most, _ = Counter(tuple(sorted(each.facts.items())) for each in found).most_common(1)[0]
    names = {node.id: node.name for node in live_nodes()}
    unlike = {
        f"{names.get(each.node, each.node)}: {line}" for each in found if (line := difference(each.facts, dict(most)))
    }
    if unlike:
        rule = f"--ray: unlike GPUs make no one table: {'; '.join(sorted(unlike))}"
        raise InputError(f"{rule}: start Ray on nodes that are alike, or install the same there")
    return found[0]
