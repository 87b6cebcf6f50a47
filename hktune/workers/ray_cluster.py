"""A Ray cluster that this process is connected to, and what its nodes get: this very hktune, its kernels and spaces.

Ray has its nodes, their resources, what is placed where, and what becomes of a node that is lost. A node needs Python,
Ray and the packages that hktune depends on; hktune itself is shipped, so no node can have another.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

# Ray reads this when it is imported. Without it the last lines of a lost node's log are printed into the progress.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hktune.core.errors import HktuneError, InputError
from hktune.core.interruption import SIGNALS
from hktune.core.publish import scratch_folder
from hktune.core.shipped import KERNELS, PACKAGE, SPACES
from hktune.space import template_folder

Facts = Mapping[str, str]
"""What decides what a node's outcomes mean, by name."""

Describe = Callable[[], Facts]

_CONNECT_S = 10.0
_GIVEN = "given"
_DESCRIBE_S = 180.0
"""For a node's first words: it unpacks what it was sent, and imports it."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, as Ray has it."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """The cluster; `placed` says where, below the folder that nodes get, files of the user's own are."""

    placed: Mapping[Path, PurePosixPath] = field(default_factory=dict)

    @property
    def cpus(self) -> int:
        """Of all nodes."""
        return sum(node.cpus for node in live_nodes())

    @property
    def gpus(self) -> int:
        """Of all nodes."""
        return sum(node.gpus for node in live_nodes())

    def on_node(self, path: Path) -> PurePosixPath:
        """Where a search space, or a folder of objects, is below the folder of a node; see `on_this_node`."""
        return self.placed.get(path) or PurePosixPath(path.relative_to(PACKAGE.parent))

    def require_alike(self, describe: Describe, expected: Facts) -> None:
        """Raises InputError, naming nodes, where one that has processors says other things than `expected` of itself.
        `describe` is called on each."""
        asked = {_asked(node, describe): node for node in live_nodes() if node.cpus}
        if not asked:
            raise InputError("--ray: no node of the cluster has a CPU to give: start one with ray start --num-cpus N")
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_DESCRIBE_S)
        unlike = [f"{asked[ref].name} says nothing for {_DESCRIBE_S:.0f} s" for ref in late]
        unlike += [f"{asked[ref].name}: {line}" for ref in ready if (line := _difference(ref, expected))]
        if unlike:
            rule = f"--ray: unlike nodes make no one table: {'; '.join(sorted(set(unlike)))}"
            raise InputError(f"{rule}: install the same there, or start Ray without them")


def live_nodes() -> list[Node]:
    """The nodes of the cluster, without those that are gone."""
    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(each["NodeID"], each["NodeName"], *(int(each["Resources"].get(what, 0)) for what in ("CPU", "GPU")))
        for each in listed
        if each["Alive"]
    ]


def on_this_node(place: PurePosixPath) -> Path:
    """The file that `Cluster.on_node` called `place`, where this process is one of a node."""
    return PACKAGE.parent / place


@functools.cache
def shipped_sha256() -> str:
    """Of all that hktune is here: its sources, kernels and spaces. On a node that got what was sent it is the same."""
    digest = hashlib.sha256()
    for file in sorted(path for source in {PACKAGE, KERNELS, SPACES} for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(PACKAGE.parent)
        if "__pycache__" not in name.parts:
            digest.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def connected(address: str, spaces: Sequence[Path], prebuilt: Path | None = None) -> Iterator[Cluster]:
    """The cluster at `address`, which is HOST:PORT, or auto for the one that this machine belongs to. Its nodes get,
    once each, hktune, the files of `spaces` that do not come with it, and the objects of `prebuilt`. Raises InputError
    where there is no such cluster."""
    if ray.is_initialized():
        raise InputError("--ray: this process is connected to a Ray cluster already: call ray.shutdown() first")
    with scratch_folder() as folder:
        placed = _shipment(folder, spaces)
        if prebuilt is not None:
            placed[prebuilt] = PurePosixPath(_GIVEN, "prebuilt")
            shutil.copytree(prebuilt, folder / placed[prebuilt])
        _connect(address, folder)
    try:
        yield Cluster(placed)
    finally:
        with _own_signals():
            ray.shutdown()


def difference(found: Facts, expected: Facts) -> str:
    """The first fact that differs; "" where none does."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return f"{name}={found.get(name)}, not {expected.get(name)}"
    return ""


def _connect(address: str, shipment: Path) -> None:
    """Raises InputError."""
    if "://" in address:
        raise InputError(f"--ray {address}: run hktune on a machine of the cluster, and pass auto or HOST:PORT")
    try:
        if address != "auto":
            _require_listener(address)  # Ray asks for minutes, and then ends the process
        with _own_signals():
            ray.init(
                address=address,
                runtime_env={"working_dir": str(shipment)},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # OSError, ValueError, RuntimeError: as the address is wrong
        said = next(iter(str(error).splitlines()), type(error).__name__)
        rule = f"--ray {address}: cannot connect to a cluster ({said})"
        raise InputError(f"{rule}: start one with ray start --head, or pass its address") from None


def _require_listener(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, and ValueError for another text."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Signals do afterwards what they did before: Ray takes SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        with suppress(ValueError):  # not in the main thread, where Ray takes none
            for number, handler in before.items():
                signal.signal(number, handler)


def _shipment(folder: Path, spaces: Sequence[Path]) -> dict[Path, PurePosixPath]:
    """Fill `folder` with what nodes get, and say where in it the files of `spaces` are that do not come with hktune."""
    for source in {PACKAGE, KERNELS, SPACES}:
        target = folder / source.relative_to(PACKAGE.parent)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    placed = {}
    for number, space in enumerate(path for path in spaces if SPACES not in path.parents):
        own = PurePosixPath(_GIVEN, str(number))
        placed[space] = own / space.name
        shutil.copytree(template_folder(space), folder / own)  # a template beside a space is the space's own
        shutil.copy(space, folder / placed[space])
    return placed


def _asked(node: Node, describe: Describe) -> ray.ObjectRef[Any]:
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(_described).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return task.remote(describe)


def _described(describe: Describe) -> Facts | HktuneError:
    """What a node says of itself, or why it cannot be used."""
    try:
        return describe()
    except HktuneError as error:
        return error


def _difference(ref: ray.ObjectRef[Any], expected: Facts) -> str:
    try:
        found = ray.get(ref)
    except ray.exceptions.RayError as error:
        return last_line(error)
    return str(found) if isinstance(found, HktuneError) else difference(found, expected)


def last_line(error: BaseException) -> str:
    """What an error of Ray comes to: it begins with a trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
