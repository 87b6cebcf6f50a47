"""Benches as nodes of a Ray cluster have them, and the emulated one with its workers there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant
from hktune.device.driver import driver_version
from hktune.measure.stopwatch import Attempt
from hktune.space import load_spaces
from hktune.tuning.benches.bench_workers import local_executor
from hktune.tuning.benches.emulated_bench import EmulatedBench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.workers.executor import Executor, Limits, Prove
from hktune.workers.prover import COMPILE_DEADLINE_S
from hktune.workers.ray_cluster import Cluster, Facts, on_this_node, shipped_sha256
from hktune.workers.ray_executor import RayExecutor

SomeBench = TypeVar("SomeBench", EmulatedBench, GpuBench)


@dataclass(frozen=True)
class OnNode(Generic[SomeBench]):
    """A bench as a node has it: `places` are its files there, by the fields that name them, and its settings are of
    that node's environment. Calling it makes what a worker applies."""

    bench: SomeBench
    places: Mapping[str, PurePosixPath | tuple[PurePosixPath, ...]]

    def __call__(self) -> Prove:
        return self.there()()

    def facts(self) -> Facts:
        """What decides outcomes, on this node."""
        return facts_of(self.there())

    def compiles_with(self) -> Facts:
        """What decides what is compiled, on this node."""
        return _compiles_with(self.there())

    def there(self) -> SomeBench:
        """The bench, on the node that asks."""
        files: dict[str, Path | tuple[Path, ...]] = {
            name: tuple(map(on_this_node, place)) if isinstance(place, tuple) else on_this_node(place)
            for name, place in self.places.items()
        }
        return replace(self.bench, settings=Settings.from_environment(os.environ), **files)  # type: ignore[arg-type]


def on_nodes(cluster: Cluster, bench: SomeBench) -> OnNode[SomeBench]:
    """What nodes are sent of `bench`."""
    places: dict[str, PurePosixPath | tuple[PurePosixPath, ...]] = {
        "space": cluster.on_node(bench.space),
        "others": tuple(map(cluster.on_node, bench.others)),
    }
    if isinstance(bench, GpuBench) and bench.prebuilt:
        places["prebuilt"] = cluster.on_node(bench.prebuilt)
    return OnNode(bench, places)


@dataclass(frozen=True)
class ClusterExecutor:
    """A MakeExecutor: has workers on the nodes of `cluster`. What they compile for a GPU comes with the attempt."""

    cluster: Cluster

    def __call__(self, bench: EmulatedBench | GpuBench, workers: int, deadline_s: float, limits: Limits) -> Executor:
        if isinstance(bench, EmulatedBench):
            proving = on_nodes(self.cluster, replace(bench, make_executor=local_executor, fastest={}))
            return RayExecutor(proving, workers, deadline_s, limits, proving.facts, facts_of(bench))
        own = replace(bench, make_executor=local_executor)
        there = on_nodes(self.cluster, own)
        expected, objects = _compiles_with(bench), Objects(there, own)
        return RayExecutor(there, workers, deadline_s, limits, there.compiles_with, expected, objects, spread=False)


@dataclass(frozen=True)
class Objects:
    """Cargo: the code object of an attempt, from the object cache of the node that compiled it to that of the node
    with the GPU."""

    there: OnNode[GpuBench]
    here: GpuBench

    def load(self, attempt: Attempt) -> object:
        if attempt.object_sha256 is None:
            return None
        bench = self.there.there()
        variant = _variant(bench, attempt)
        return bench.compiler.compile(variant, COMPILE_DEADLINE_S)

    def unload(self, attempt: Attempt, sent: object) -> None:
        if isinstance(sent, CodeObject):
            self.here.compiler.keep(_variant(self.here, attempt), sent)


def _variant(bench: GpuBench, attempt: Attempt) -> Variant:
    """What was compiled for `attempt`."""
    template = load_spaces((bench.space, *bench.others)).templates.of(attempt.template)
    return template.for_operation(attempt.operation).render(attempt.config)


def _compiles_with(bench: EmulatedBench | GpuBench) -> Facts:
    return {"hktune": shipped_sha256()[:16], "compiler": bench.compiler.identity}


def emulated_on(cluster: Cluster, bench: EmulatedBench, workers: int | None) -> EmulatedBench:
    """`bench` with its workers on the nodes of `cluster`: `workers` of them, else one for each CPU. Raises InputError
    where a node is unlike this machine, which makes the table."""
    cluster.require_alike(on_nodes(cluster, bench).facts, facts_of(bench))
    return replace(bench, workers=workers or cluster.cpus, make_executor=ClusterExecutor(cluster))


def facts_of(bench: EmulatedBench | GpuBench) -> Facts:
    """What decides the outcomes of `bench` where it is: what compiles, what proves and times, which device."""
    facts = {**_compiles_with(bench), "numpy": metadata.version("numpy")}
    if isinstance(bench, EmulatedBench):
        return {**facts, "judge": bench.judge or ""}
    own = {"GPU": str(bench.identity), "driver": driver_version(bench.kind)}
    return {**facts, **own, "torch": metadata.version("torch")}  # torch has the vendor's library
