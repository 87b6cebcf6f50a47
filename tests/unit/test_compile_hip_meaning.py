"""What the HIP headers of our own compute, executed on the emulated device and compared with numpy and torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hktune.compile import HipCompiler
from hktune.compile.hipkittens import find_hipkittens
from hktune.compile.toolchain import find_zig
from hktune.core.config import Config
from hktune.core.launch import Argument, Launch
from hktune.core.settings import Settings
from hktune.core.variant import CodeObject, Variant
from hktune.device.emulated import EmulatedDevice

Array = npt.NDArray[Any]
LANES = np.arange(64)


@pytest.fixture(scope="session")
def compiler() -> HipCompiler:
    toolchain = find_zig()
    assert toolchain is not None, "pip install 'hktune[gfx950]'"
    return HipCompiler(toolchain, find_hipkittens(Settings.from_environment(os.environ)))


def execute(
    compiler: HipCompiler,
    statements: str,
    inputs: Array,
    out: Array,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (64, 1, 1),
    types: tuple[str, str] = ("float", "float"),
) -> Array:
    """Run `statements` in every work-item, with `in`, `out` and the flat index `i` at hand; returns `out` filled."""
    source = f"""
#include <hip/hip_bf16.h>
#include <hip/hip_fp16.h>
extern "C" __global__ __launch_bounds__({block[0] * block[1] * block[2]})
void probe(const {types[0]}* in, {types[1]}* out) {{ const unsigned i = threadIdx.x; {statements} }}
"""
    built = compiler.compile(Variant("probe", "", "gfx950", "hip", "probe", source, Config({})), 300)
    assert isinstance(built, CodeObject), built
    device = EmulatedDevice()
    source_buffer, target = device.allocate(inputs.nbytes), device.allocate(out.nbytes)
    device.write(source_buffer, inputs)
    launch = Launch(grid, block, 0, (Argument("a", "pointer"), Argument("c", "pointer")))
    device.launch(device.load(built.data, "probe"), launch, {"a": source_buffer, "c": target})
    device.read(target, out)
    return out


def test_coordinates(compiler: HipCompiler) -> None:
    grid, block = (3, 2, 2), (8, 4, 2)
    statements = """
    const unsigned group = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned item = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[group * (blockDim.x * blockDim.y * blockDim.z) + item] = group * 1000 + item;
    """
    got = execute(compiler, statements, np.zeros(4), np.zeros(12 * 64, np.uint32), grid, block, ("float", "unsigned"))
    expected = np.arange(12)[:, None] * 1000 + np.arange(64)
    assert np.array_equal(got.reshape(12, 64), expected)


@pytest.mark.parametrize("width", [64, 16])
@pytest.mark.parametrize(
    ("call", "source_lane"),
    [
        ("__shfl(in[i], 5, {width})", lambda lane, width: lane // width * width + 5),
        ("__shfl_xor(in[i], 3, {width})", lambda lane, _: lane ^ 3),
        ("__shfl_down(in[i], 6, {width})", lambda lane, w: np.where(lane % w + 6 < w, lane + 6, lane)),
        ("__shfl_up(in[i], 6, {width})", lambda lane, w: np.where(lane % w >= 6, lane - 6, lane)),
    ],
)
def test_shuffles_read_the_lane_that_hip_says(compiler: HipCompiler, call: str, source_lane: Any, width: int) -> None:
    values = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    got = execute(compiler, f"out[i] = {call.format(width=width)};", values, np.zeros(64, np.float32))
    assert np.array_equal(got, values[source_lane(LANES, width)])


def test_a_shuffle_moves_more_than_one_register(compiler: HipCompiler) -> None:
    values = np.random.default_rng(0).standard_normal(64)
    got = execute(compiler, "out[i] = __shfl_xor(in[i], 1);", values, np.zeros(64), types=("double", "double"))
    assert np.array_equal(got, values[LANES ^ 1])


def awkward_floats() -> npt.NDArray[np.float32]:
    """Values whose rounding is easy to get wrong: ties both ways, denormals, the largest, infinities."""
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x00000001, 0x00800000, 0x7F7FFFFF, 0x7F800000]
    bits += [0x38800000, 0x33800000, 0x33000000, 0x33000001, 0x477FEFFF, 0x477FF000, 0x3F801000, 0x3F803000]
    edges = np.array(bits + [0x80000000 | word for word in bits], np.uint32).view(np.float32)
    drawn = np.random.default_rng(1).standard_normal(32).astype(np.float32)
    return np.concatenate([edges, drawn])


def test_bf16_rounds_to_nearest_even(compiler: HipCompiler) -> None:
    values = awkward_floats()
    got = execute(
        compiler,
        "out[i] = __float2bfloat16(in[i]);",
        values,
        np.zeros(64, np.uint16),
        types=("float", "__hip_bfloat16"),
    )
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(got, expected)


def test_fp16_rounds_to_nearest_even(compiler: HipCompiler) -> None:
    values = awkward_floats()
    got = execute(compiler, "out[i] = __float2half(in[i]);", values, np.zeros(64, np.uint16), types=("float", "__half"))
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("__hadd", lambda a, b: a + b),
        ("__hsub", lambda a, b: a - b),
        ("__hmul", lambda a, b: a * b),
        ("__hmax", torch.maximum),
        ("__hmin", torch.minimum),
    ],
)
def test_bf16_arithmetic_is_torchs(compiler: HipCompiler, name: str, operation: Any) -> None:
    values = torch.randn(64, generator=torch.Generator().manual_seed(2)).bfloat16()
    got = execute(
        compiler,
        f"out[i] = {name}(in[i], in[i ^ 7]);",
        values.view(torch.uint16).numpy(),
        np.zeros(64, np.uint16),
        types=("__hip_bfloat16", "__hip_bfloat16"),
    )
    expected = operation(values, values[torch.arange(64) ^ 7]).view(torch.uint16).numpy()
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("call", "truth", "relative"),
    [
        ("__expf(in[i])", np.exp, 1e-5),
        ("exp2f(in[i])", np.exp2, 1e-6),
        ("__logf(fabsf(in[i]))", lambda x: np.log(np.abs(x)), 1e-5),
        ("__log2f(fabsf(in[i]))", lambda x: np.log2(np.abs(x)), 1e-5),
        ("__frcp_rn(in[i])", lambda x: 1 / x, 1e-6),
        ("sqrtf(fabsf(in[i]))", lambda x: np.sqrt(np.abs(x)), 1e-6),
        ("fmaf(in[i], in[i], max(in[i], 0.5f))", lambda x: x * x + np.maximum(x, 0.5), 1e-6),
    ],
)
def test_float_maths(compiler: HipCompiler, call: str, truth: Any, relative: float) -> None:
    values = (np.random.default_rng(3).standard_normal(64) * 4).astype(np.float32)
    got = execute(compiler, f"out[i] = {call};", values, np.zeros(64, np.float32))
    assert np.allclose(got, truth(values.astype(np.float64)), rtol=relative, atol=1e-6)


def test_a_barrier_orders_lds(compiler: HipCompiler) -> None:
    values = np.arange(256, dtype=np.float32)
    statements = "__shared__ float staged[256]; staged[i] = in[i]; __syncthreads(); out[i] = staged[255 - i];"
    got = execute(compiler, statements, values, np.zeros(256, np.float32), block=(256, 1, 1))
    assert np.array_equal(got, values[::-1])
