"""Benches over a Ray cluster: what differs from one machine is where their workers are."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from hktune.core.settings import Settings
from hktune.tuning.benches import EmulatedBench, local_executor
from hktune.workers.executor import Executor, Limits, Prove
from hktune.workers.ray_cluster import Cluster, Facts, on_this_node
from hktune.workers.ray_executor import RayExecutor


@dataclass(frozen=True)
class OnNode:
    """An emulated bench as a node has it: with its files where they are there, and the settings of its environment.
    Calling it makes a prover."""

    bench: EmulatedBench
    space: PurePosixPath
    others: tuple[PurePosixPath, ...]

    def __call__(self) -> Prove:
        return self.there()()

    def facts(self) -> Facts:
        """What decides outcomes, on this node."""
        return facts_of(self.there())

    def there(self) -> EmulatedBench:
        """The bench, on the node that asks."""
        others = tuple(map(on_this_node, self.others))
        settings = Settings.from_environment(os.environ)
        return replace(self.bench, space=on_this_node(self.space), others=others, settings=settings)


@dataclass(frozen=True)
class ClusterExecutor:
    """A MakeExecutor: has workers on the nodes of `cluster`."""

    cluster: Cluster

    def __call__(self, bench: EmulatedBench, workers: int, deadline_s: float, limits: Limits) -> Executor:
        there = self.on_node(bench)
        return RayExecutor(there, workers, deadline_s, limits, there.facts, facts_of(bench))

    def on_node(self, bench: EmulatedBench) -> OnNode:
        """What nodes are sent of `bench`."""
        own = replace(bench, make_executor=local_executor, fastest={})
        return OnNode(own, self.cluster.on_node(bench.space), tuple(map(self.cluster.on_node, bench.others)))


def emulated_on(cluster: Cluster, bench: EmulatedBench, workers: int | None) -> EmulatedBench:
    """`bench` with its workers on the nodes of `cluster`: `workers` of them, else one for each CPU. Raises InputError
    where a node is unlike this machine, which makes the table."""
    make_executor = ClusterExecutor(cluster)
    cluster.require_alike(make_executor.on_node(bench).facts, facts_of(bench))
    return replace(bench, workers=workers or cluster.cpus, make_executor=make_executor)


def facts_of(bench: EmulatedBench) -> Facts:
    """What decides the outcomes of `bench` where it is: what compiles, what proves and models, what draws operands."""
    return {"compiler": bench.compiler.identity, "judge": bench.judge or "", "numpy": np.__version__}
