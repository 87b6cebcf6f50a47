"""Kernels that hang, fault and lie, on a real GPU: each costs its own config, and the next one is measured."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from toy_space import space_in

from hktune.core.candidate import Candidate
from hktune.core.config import Config
from hktune.core.outcome import Failure, Status, Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.device.cuda import CudaDevice
from hktune.measure.stopwatch import Attempt
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.workers.gpu_service import GpuService
from hktune.workers.gpu_worker import Answer, ContainedStopwatch, GpuWorker, Request, Serve

TIMED = Problem(256, 512, 128)
TEMPLATE = """
name: trouble
arch: sm90a
language: cuda
source: trouble.cu
symbol: trouble
arguments:
  - {name: a, kind: pointer}
  - {name: bt, kind: pointer}
  - {name: c, kind: pointer}
  - {name: m, kind: i32}
  - {name: n, kind: i32}
  - {name: k, kind: i32}
derived: {threads: 128}
fields: {hangs: does == 'hang', faults: does == 'fault', faults_late: does == 'fault_late', lies: does == 'lie'}
tile: {m: 1, n: threads, k: 1}
launch: {grid: ["ceil_div(n, threads)", m, 1], block: [threads, 1, 1], dynamic_lds_bytes: 0}
proof: [{m: 33, n: 130, k: 40}]
"""
SOURCE = """
extern "C" __global__ void trouble(
    const unsigned short* a, const unsigned short* bt, unsigned short* c, int m, int n, int k) {
    const int row = blockIdx.y, column = blockIdx.x * 128 + threadIdx.x;
    if (column >= n) return;
    if (${hangs}) while (*reinterpret_cast<volatile int*>(c) != 123456789) {}
    if (${faults} || (${faults_late} && m == 256)) c[1ull << 40] = 1;
    float sum = 0;
    for (int i = 0; i < k; ++i)
        sum += __uint_as_float(a[row * k + i] << 16) * __uint_as_float(bt[column * k + i] << 16);
    unsigned bits = __float_as_uint(sum);
    bits += 0x7fff + (bits >> 16 & 1);
    c[row * n + column] = bits >> 16 ^ (${lies} && m == 256 && row == 7 ? 0x80 : 0);
}
"""
SPACE = """
name: trouble
template: sm90a/trouble
parameters:
  does: {values: [right, hang, fault, fault_late, lie, die], default: right, help: what it does}
constraints: []
seeds: []
"""


@dataclass(frozen=True)
class Dying:
    """The service, in a process that kills itself when it is asked to prove a config that says so."""

    service: GpuService

    def __call__(self) -> Serve:
        serve = self.service()

        def serve_or_die(request: Request | None) -> Answer:
            if request is not None and "attempt" in vars(request) and request.attempt.config["does"] == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            return serve(request)

        return serve_or_die


@pytest.fixture(scope="module")
def bench(hopper: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> GpuBench:
    root = tmp_path_factory.mktemp("trouble")
    space = space_in(root, "sm90a/trouble.cu", TEMPLATE, SOURCE, SPACE)
    return GpuBench("cuda", space, 0, Settings(root / "cache"))


@pytest.fixture
def stopwatch(bench: GpuBench) -> Iterator[ContainedStopwatch]:
    service = GpuService("cuda", bench.space, bench.make_compiler, (TIMED,), bench.settings)
    contained = ContainedStopwatch(
        GpuWorker(Dying(service), deadline_s=10.0), lambda candidate, _: f"run {candidate.config['does']}"
    )
    yield contained
    contained.worker.close()


def compiled(bench: GpuBench, does: str) -> Attempt:
    attempt = bench()(Candidate(Config({"does": does})))
    assert attempt.failure is None, attempt.failure
    return attempt


def test_a_right_kernel_is_proved_and_timed(bench: GpuBench, stopwatch: ContainedStopwatch) -> None:
    attempt = stopwatch.prove(compiled(bench, "right"))
    assert attempt.failure is None
    timing = stopwatch.time(attempt, TIMED)
    assert isinstance(timing, Timing), timing
    assert timing.baseline_us is not None
    assert timing.time_us > timing.baseline_us, "no naive kernel beats the vendor's"
    assert stopwatch.worker.usage.workers_lost == 0


@pytest.mark.parametrize(
    ("does", "status", "said"),
    [
        ("hang", Status.TIMEOUT, "no answer after 10 s"),
        ("fault", Status.CRASHED, "CUDA driver says CUDA_ERROR_"),
        ("die", Status.CRASHED, "exit code -9"),
    ],
)
def test_a_proof_that_costs_the_worker_costs_nothing_else(
    bench: GpuBench, stopwatch: ContainedStopwatch, does: str, status: Status, said: str
) -> None:
    failed = stopwatch.prove(compiled(bench, does))
    assert failed.failure is not None
    assert failed.failure.status is status
    assert said in failed.failure.detail
    assert failed.failure.detail.endswith(f"quarantined, reproduce: run {does}")
    lost = 2 if does == "die" else 1  # what kill -9 ended is asked once more
    assert stopwatch.worker.usage.workers_lost == lost
    test_right = stopwatch.prove(compiled(bench, "right"))
    assert isinstance(stopwatch.time(test_right, TIMED), Timing)
    assert stopwatch.time(failed, TIMED) == failed.failure, "it is not run again"
    assert stopwatch.worker.usage.workers_lost == lost


def test_a_kernel_that_lies_on_the_timed_operands_gets_no_time(bench: GpuBench, stopwatch: ContainedStopwatch) -> None:
    attempt = stopwatch.prove(compiled(bench, "lie"))
    assert attempt.failure is None, "the proof's problem is smaller"
    outcome = stopwatch.time(attempt, TIMED)
    assert isinstance(outcome, Failure)
    assert outcome.status is Status.WRONG
    assert "elements differ from the vendor's, first at [7,0]" in outcome.detail
    assert stopwatch.worker.usage.workers_lost == 0


def test_what_was_measured_beside_a_fault_is_measured_again(bench: GpuBench, stopwatch: ContainedStopwatch) -> None:
    right, late = compiled(bench, "right"), compiled(bench, "fault_late")
    assert stopwatch.prove(late).failure is None
    first, second = stopwatch.confirm([right, late], TIMED).finalists
    assert isinstance(first, Timing)
    assert isinstance(second, Failure)
    assert "quarantined" in second.detail
