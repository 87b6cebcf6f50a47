"""The stopwatch on a real GPU: what it says of kernels whose relation is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from hktune.core.candidate import Candidate
from hktune.core.operation import BF16_NT, operation_of
from hktune.core.outcome import Timing
from hktune.core.problem import Problem
from hktune.core.settings import Settings
from hktune.device.cuda import CudaDevice
from hktune.measure.arena import COLD_FACTOR
from hktune.measure.stopping import CONFIRMING
from hktune.space import load_space
from hktune.tuning.benches.gpu_bench import GpuBench
from hktune.workers.gpu_service import GpuService, Serving

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml"
F16_NT = operation_of("f16.nt")
PROBLEMS = (
    Problem(1, 4096, 4096),
    Problem(4096, 4096, 4096),
    Problem(133, 2056, 1048),
    Problem(512, 4096, 4096, F16_NT),
    Problem(133, 2056, 1048, F16_NT.with_steps("bias")),
)


@pytest.fixture(scope="module")
def bench(hopper: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> GpuBench:
    return GpuBench("cuda", SPACE, 0, Settings(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def serving(bench: GpuBench) -> Serving:
    return GpuService("cuda", SPACE, bench.make_compiler, PROBLEMS, bench.settings)()


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_a_kernel_is_timed_beside_the_vendor(serving: Serving, bench: GpuBench, problem: Problem) -> None:
    code = F16_NT if problem.operation.a == "f16" else BF16_NT
    attempt = bench()(Candidate(load_space(SPACE).config({}), code))
    assert serving.proved(attempt).failure is None
    timing = serving.stopwatch.time(attempt, problem)
    assert isinstance(timing, Timing), timing
    assert timing.time_us_low is not None
    assert timing.time_us_high is not None
    assert timing.time_us_low <= timing.time_us <= timing.time_us_high
    assert timing.cache == "cold"
    assert "CUDA" in (timing.baseline or "")
    assert timing.clock_mhz is not None
    assert 100 < timing.clock_mhz < 4000
    needed_us = problem.flops / 1.0e15 * 1e6  # no H100 multiplies 1 PFLOP/s of dense bf16
    assert timing.time_us > needed_us


def test_finalists_share_rounds_with_every_way_of_the_vendors(serving: Serving, bench: GpuBench) -> None:
    space = load_space(SPACE)
    attempts = [bench()(Candidate(config)) for config in (space.config({}), space.config({"store_buffers": 2}))]
    confirmation = serving.stopwatch.confirm(attempts, PROBLEMS[1])
    assert all(isinstance(time, Timing) for time in confirmation.finalists), confirmation
    assert any("cuBLASLt" in name for name in confirmation.rivals)
    assert all(0.2 < ratio < 1.5 for ratio in confirmation.rivals.values()), confirmation.rivals


def test_cold_operands_exceed_the_cache(serving: Serving) -> None:
    for problem in PROBLEMS:
        sets = serving.stopwatch._arena.sets(problem)
        touched = sum(tensor.nbytes for each in sets[1:] for tensor in each.values())
        assert touched >= COLD_FACTOR * serving.device.last_level_cache_bytes
        assert len({each["a"].data_ptr() for each in sets}) == len(sets)


def test_a_graph_of_the_same_launches_takes_the_same_time(serving: Serving, bench: GpuBench) -> None:
    attempt = bench()(Candidate(load_space(SPACE).config({})))
    sides = [serving.stopwatch.side(attempt, PROBLEMS[1]) for _ in range(2)]
    [comparison] = serving.stopwatch.compared_graphs(sides, CONFIRMING)
    assert abs(comparison.ratio.median - 1) < 0.01, comparison
