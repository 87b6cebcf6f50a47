"""GPUs of which only the answers are made up, in the place of the process that has one, for tests of what asks it."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hktune.compile import CachedCompiler
from hktune.core.errors import DeviceError
from hktune.core.group_sizes import Tokens
from hktune.core.identity import Identity
from hktune.core.outcome import Failure, Source, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.measure.energy import Energies, Energy
from hktune.measure.stopwatch import Attempt, Confirmation
from hktune.tuning.benches import device_choice, gpu_bench, gpus
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.workers.gpu_worker import Answer, Confirm, MeasureEnergy, NameAlgorithms, Prove, Request, Screen, Serve

H200 = Identity("cuda", "sm90a", "NVIDIA H200", 132, "10de:2335:18be")
SLOW_S = 0.5


@dataclass(frozen=True)
class Found:
    """What opening a device gives, as far as a run looks at it."""

    identity: Identity = H200


def find_gpus(monkeypatch: pytest.MonkeyPatch, count: int, identity: Identity = H200) -> None:
    """Let runs of this process find `count` GPUs that nobody has, and let a StandInService answer for each."""
    for module in (device_choice, gpu_bench, gpus):
        monkeypatch.setattr(module, "open_device", lambda *_, **__: Found(identity))
    monkeypatch.setattr(gpus, "count_devices", lambda *_: count)
    monkeypatch.setattr(gpu_bench, "GpuService", StandInService)


@dataclass(frozen=True)
class StandInService:
    """Takes GpuService's place, and its arguments: answers at once, or as a file in the cache folder orders."""

    kind: str
    space: Path
    make_compiler: Callable[[], CachedCompiler]
    problems: tuple[Problem, ...]
    settings: Settings
    cache: str
    seed: int
    ordinal: int
    others: tuple[Path, ...]
    tokens: Mapping[Problem, Tokens] = field(default_factory=dict)

    def __call__(self) -> Serve:
        if (self.settings.cache_dir / f"broken-{self.ordinal}").exists():
            raise DeviceError("fell off the bus")
        return functools.partial(answer, self)


def answer(service: StandInService, request: Request | None) -> Answer:
    if isinstance(request, NameAlgorithms):
        return Answer(named(service), 0.5)
    if isinstance(request, Prove) and request.attempt.algorithm and request.attempt.algorithm.name == "wrong":
        return Answer(replace(request.attempt, failure=Failure(Status.WRONG, "1 of 4 elements wrong")), 0.5)
    if isinstance(request, Prove):
        return Answer(replace(request.attempt, relative_error=1e-3), 0.5)
    if isinstance(request, Screen):
        obey(service)
        return Answer(timing(service, request.attempt, request.problem), 0.5)
    if isinstance(request, Confirm):
        timings = [timing(service, attempt, request.problem) for attempt in request.attempts]
        return Answer(Confirmation(tuple(timings), {}), 0.5)
    if isinstance(request, MeasureEnergy):
        return Answer(energies(service, request), 0.5)
    return Answer(None)


def energies(service: StandInService, request: MeasureEnergy) -> Energies:
    """Of the file `energy` in the cache folder: by config id, what its launch takes in mJ; without one nothing counts
    energy."""
    file = service.settings.cache_dir / "energy"
    if not file.exists():
        return Energies(None, tuple(None for _ in request.attempts))
    words = file.read_text().split()
    joules = dict(zip(words[::2], (int(word) / 1000 for word in words[1::2]), strict=True))
    found = [joules.get(attempt.config.id, 0.1) for attempt in request.attempts]
    return Energies(Energy(0.2, 0.19, 0.21), tuple(Energy(each, each * 0.99, each * 1.01) for each in found))


def named(service: StandInService) -> tuple[VendorAlgorithm, ...]:
    """The algorithms of the file `algorithms` in the cache folder: a version, then a name and a time in ns each."""
    file = service.settings.cache_dir / "algorithms"
    version, *words = file.read_text().split() if file.exists() else [""]
    pairs = zip(words[::2], words[1::2], strict=True)
    return tuple(VendorAlgorithm("cublasLt", version, f"{int(time_ns):x}", name) for name, time_ns in pairs)


def obey(service: StandInService) -> None:
    """Die once for each such order, or hang, if this GPU is ordered to; or take time, if all are."""
    orders = service.settings.cache_dir
    if (orders / "slow").exists():
        time.sleep(SLOW_S)
    hangs = orders / f"hang-{service.ordinal}"
    for dies in (orders / f"die-{service.ordinal}", orders / f"die-again-{service.ordinal}"):
        if dies.exists():
            dies.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    if hangs.exists():
        time.sleep(3600)


def timing(service: StandInService, attempt: Attempt, problem: Problem) -> Timing:
    assert problem in service.problems, "the arena was made for others"
    time_us = 10.0 + int(attempt.config.id[:3], 16) / 1000
    if attempt.algorithm:
        time_us = int(attempt.algorithm.handle, 16) / 1000
    return Timing(
        source=Source.MEASURED,
        time_us=time_us,
        time_us_low=time_us - 0.001,
        time_us_high=time_us + 0.001,
        samples=8,
        cache="cold",
        baseline="vendor",
        baseline_us=20.0,
        gpu=service.ordinal,
        note=f"process {os.getpid()}",
    )


class MadeUpGpuBench(GpuBench):
    """A bench of H200 that nobody has."""

    @property
    def identity(self) -> Identity:
        return H200

    def service(self, problems: Sequence[Problem]) -> Callable[[], Serve]:
        [gpu] = self.gpus
        own = (self.kind, self.space, self.make_compiler, tuple(problems), self.settings, self.cache, self.seed, gpu)
        return StandInService(*own, others=self.others)
