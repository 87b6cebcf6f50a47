"""Ray clusters of several nodes on this machine, for tests: each node is a raylet of its own, as on a machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'hktune[ray]'")

from ray.cluster_utils import Cluster

TESTS = Path(__file__).resolve().parent
STORE_BYTES = 100 << 20
"""Of each node's object store, in shared memory: as little as Ray takes."""


@contextmanager
def local_cluster(**environment: str) -> Iterator[Cluster]:
    """A cluster whose head has no CPU to give. Its nodes can import what tests can, and have this `environment` too: a
    node has the one that it was started in."""
    folders = [str(TESTS), str(TESTS / "contracts"), str(TESTS / "unit")]
    wanted = {
        **environment,
        "PYTHONPATH": os.pathsep.join(folders),
        "RAY_worker_niceness": "0",
    }  # Ray's own is 15: other tests run too
    saved = {name: os.environ.get(name) for name in wanted}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    os.environ.update(wanted)
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def add_nodes(cluster: Cluster, nodes: int, **resources: Any) -> list[Any]:
    """Start so many nodes at once, each with `resources`: num_cpus, num_gpus, env_vars."""
    added = [cluster.add_node(wait=False, object_store_memory=STORE_BYTES, **resources) for _ in range(nodes)]
    cluster.wait_for_nodes()
    return added


def when(happened: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Does something once, soon after something else."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not happened() and time.monotonic() < until:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
