"""The kernels as first specified, executed as written: the 256 one is right, the 128 one leaves most of C unwritten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from gemm_bf16_variants import ROOT, compiled, proof

from hktune.core.config import Config
from hktune.core.dtype import BF16
from hktune.core.launch import Argument, Launch
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject, Variant
from hktune.device.emulated import EmulatedDevice
from hktune.verify import Answer, Operands, compare, random_operands

GOLDEN = ROOT / "tests" / "golden" / "spec_gemm.hip"
LDS_BYTES = 160000  # what the specification's host function asks for
THREADS = 512
ARGUMENTS = (
    *(Argument(name, "pointer") for name in ("a", "b", "c")),
    *(Argument(name, "i32") for name in ("m", "n", "k")),
)

# The kernels take kittens::gl by value, which only its host compiler knows how to lay out in a launch. So they become
# device functions, word for word, and a kernel with plain arguments calls the one under test.
BEFORE = """
#include <hip/hip_runtime.h>
#include "kittens.cuh"
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __global__
#define __global__ __device__ __forceinline__
"""
AFTER = """
struct gl_image { bf16 *data; size_t batch, depth, rows, cols, descriptors; };
static_assert(sizeof(gl_image) == sizeof(_gl));
__device__ __forceinline__ _gl matrix(bf16 *data, size_t rows, size_t cols) {
    const gl_image image{data, 1, 1, rows, cols, 0};
    return reinterpret_cast<const _gl &>(image);
}
extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, 512), amdgpu_waves_per_eu(2)))
void spec_gemm(bf16 *a, bf16 *bt, bf16 *c, int m, int n, int k) {
    @KERNEL@(matrix(a, m, k), matrix(bt, n, k), matrix(c, m, n), m, k, n);
}
"""


def spec_kernel(block: int, problem: Problem) -> tuple[CodeObject, Launch]:
    source = BEFORE + GOLDEN.read_text() + AFTER.replace("@KERNEL@", f"gemm_kernel_{block}")
    code = compiled(Variant("gfx950/spec", "0" * 64, "gfx950", "hip", "spec_gemm", source, Config({})))
    grid = (problem.m // block, problem.n // block, 1)
    return code, Launch(grid, (THREADS, 1, 1), LDS_BYTES, ARGUMENTS)


def output_of(code: CodeObject, launch: Launch, problem: Problem, operands: Operands) -> npt.NDArray[np.uint16]:
    device = EmulatedDevice()
    arrays = {**operands.stored, "c": np.full((problem.m, problem.n), BF16.poison_bits, np.uint16)}
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    device.launch(
        device.load(code.data, code.symbol), launch, {**buffers, "m": problem.m, "n": problem.n, "k": problem.k}
    )
    device.read(buffers["c"], arrays["c"])
    return arrays["c"]


def test_the_specified_256_kernel_is_right_but_truncates() -> None:
    problem = Problem(512, 256, 256)
    code, launch = spec_kernel(256, problem)
    operands = random_operands(problem, seed=1)
    output = output_of(code, launch, problem, operands)
    exact, error = operands.answer.exact, operands.answer.error
    step = 2.0**-7 * np.abs(exact)  # of bf16, at most: rounding errs by half of one
    assert compare(output, replace(operands, answer=Answer(exact, error + step))) is None
    values = BF16.values(output).astype(np.float64)
    assert np.all(np.abs(values) <= np.abs(exact) + error), "dropping bits never gains magnitude"
    rejected = proof(code, launch, problem)
    assert isinstance(rejected, Failure)
    assert "elements wrong" in rejected.detail
    assert "never written" not in rejected.detail


def test_the_specified_128_kernel_is_caught_with_three_quarters_of_the_output_never_written() -> None:
    problem = Problem(256, 256, 256)
    outcome = proof(*spec_kernel(128, problem), problem)
    assert isinstance(outcome, Failure)
    assert outcome.status is Status.WRONG
    unwritten = 3 * problem.m * problem.n // 4
    assert f"{unwritten} of them never written" in outcome.detail, outcome.detail
