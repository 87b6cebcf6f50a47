"""A run over two real GPUs of one model: who measured what, and what a worker's death costs."""

from __future__ import annotations

import itertools
import os
import signal
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import quiet_run

from hktune.core.candidate import Candidate
from hktune.core.outcome import Source, Stage, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.core.shipped import SPACES
from hktune.core.trial import Trial
from hktune.device.cuda import CudaDevice
from hktune.device.opening import count_devices, open_device
from hktune.dispatch import read_table
from hktune.space import load_space
from hktune.tuning.benches import gpu_bench
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.tuning.run_options import RunOptions
from hktune.tuning.run_summary import RunSummary
from hktune.workers.gpu_service import GpuService
from hktune.workers.gpu_worker import Answer, Request, Screen, Serve

SPACE = SPACES / "sm90a_gemm_bf16.yaml"
SHAPES = """
shapes:
  - {m: [16, 256], n: 1024, k: 512}
  - {m: [16, 256], n: 512, k: 1024}
  - {m: 512, n: 512, k: 512}
  - {m: 128, n: 2048, k: 256}
"""
SHAPE_COUNT = 6
TRIALS = 4
CONTEXT_BYTES = 64 << 20
"""A context alone takes some hundreds of MB; what comes and goes on an idle GPU is less than this."""


class Watched(GpuService):
    """The service, which names its process in every time, and kills itself once where a file says so."""

    def __call__(self) -> Serve:
        serve, order = super().__call__(), self.settings.cache_dir / f"die-{self.ordinal}"

        def watched(request: Request | None) -> Answer:
            if isinstance(request, Screen) and order.exists():
                order.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            answer = serve(request)
            if isinstance(answer.value, Timing):
                named = replace(answer.value, note=f"{answer.value.note}; process {os.getpid()}")
                return replace(answer, value=named)
            return answer

        return watched


@pytest.fixture(scope="module", autouse=True)
def two(hopper: CudaDevice) -> None:
    count = count_devices("cuda")
    if count < 2:
        pytest.skip(f"needs two GPUs, this process sees {count}")
    if open_device("cuda", 1).identity != hopper.identity:
        pytest.skip("needs two GPUs of one model")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(tmp_path: Path, cache: Path) -> RunSummary:
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(SHAPES)
    out = tmp_path / "out"
    options = RunOptions(shapes, device="cuda", strategy="random", trials=TRIALS, out=out, gpus=2)
    return quiet_run.run(options, cache)


def screened(summary: RunSummary) -> list[Trial]:
    rows = [trial for trial in summary.trials if trial.stage is Stage.SCREENED]
    assert len({(trial.problem, trial.config_id) for trial in rows}) == len(rows) == SHAPE_COUNT * TRIALS
    assert [trial.trial for trial in summary.trials] == list(range(len(summary.trials)))
    return rows


def assert_sane(trial: Trial) -> None:
    assert trial.status is Status.OK, trial.detail
    assert trial.source is Source.MEASURED
    assert trial.relative_error is not None
    assert trial.relative_error < 2.0**-8
    assert trial.time_us
    assert trial.baseline_us
    assert 0.02 < trial.baseline_us / trial.time_us < 10, trial.detail


def test_both_gpus_measure_their_own_shapes(tmp_path: Path, cache: Path) -> None:
    summary = run(tmp_path, cache)
    screened(summary)
    owners: defaultdict[Problem, set[int | None]] = defaultdict(set)
    for trial in summary.trials:
        assert_sane(trial)
        owners[trial.problem].add(trial.gpu)
    assert all(len(gpus) == 1 for gpus in owners.values())
    assert set().union(*owners.values()) == {0, 1}
    families = {(problem.n, problem.k, gpu) for problem, gpus in owners.items() for gpu in gpus}
    assert len(families) == len({family[:2] for family in families}), "one GPU for every m of an (n, k)"
    assert {trial.stage for trial in summary.best.values()} <= {Stage.CONFIRMED, Stage.NEIGHBOUR}
    assert {entry.problem for entry in read_table(summary.directory).entries} <= set(summary.names)
    assert summary.usage is not None
    assert (summary.usage.gpus, summary.usage.workers_lost) == (2, 0)
    assert 0 < summary.usage.busy_s < summary.usage.asked_s


def test_a_worker_killed_on_one_gpu_does_not_disturb_the_other(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_bench, "GpuService", Watched)
    (cache / "die-1").touch()
    summary = run(tmp_path, cache)
    rows = screened(summary)
    processes: defaultdict[int | None, set[str]] = defaultdict(set)
    for trial in rows:
        assert_sane(trial)  # what kill -9 ended was asked once more, and no config is to blame
        processes[trial.gpu].add((trial.detail or "").partition("process ")[2])
    assert set(processes) == {0, 1}
    assert len(processes[0]) == 1, "its worker lived through it all"
    assert len(set(itertools.chain(*processes.values()))) == 2, "GPU 1's first died before it had timed anything"
    assert summary.usage is not None
    assert summary.usage.workers_lost == 1
    assert set(summary.best) == set(summary.names), "every shape has a kernel none the less"


def test_a_worker_leaves_every_other_gpu_alone(cache: Path) -> None:
    """By the driver's own account of who has how much memory in use."""
    nvml = pytest.importorskip("pynvml")
    problem, settings = Problem(2048, 2048, 2048), Settings(cache)
    config = load_space(SPACE).domain(problem).seeds[0]
    gpu_bench = GpuBench("cuda", SPACE, 0, settings, gpus=(1,))
    attempt = gpu_bench()(Candidate(config))
    before = memory_in_use(nvml)
    work = gpu_bench.open([problem], {})
    try:
        timing = work.stopwatch.time(work.stopwatch.prove(attempt), problem)
        assert isinstance(timing, Timing), timing
        grown = [now - then for now, then in zip(memory_in_use(nvml), before, strict=True)]
    finally:
        work.close()
    assert grown[1] > CONTEXT_BYTES
    assert max(grown[:1] + grown[2:]) < CONTEXT_BYTES


def memory_in_use(nvml: ModuleType) -> list[int]:
    """Bytes in use on each GPU that this process sees, by CUDA's numbers; NVML has numbers of its own."""
    from cuda.bindings import driver

    nvml.nvmlInit()
    in_use = []
    for ordinal in range(count_devices("cuda")):
        status, bus_id = driver.cuDeviceGetPCIBusId(32, ordinal)
        assert not status
        handle = nvml.nvmlDeviceGetHandleByPciBusId(bus_id.split(b"\0")[0].decode())
        in_use.append(int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
    return in_use
