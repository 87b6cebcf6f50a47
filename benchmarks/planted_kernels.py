"""Kernels of usual kinds that are right, and bugs that are planted into them: what `planted_bugs.py` runs.

A bug is one replacement in the source. Its kind is one of wait, barrier, offset, size, race, constant, uninitialised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]
_RNG = np.random.default_rng(7)
_N = 512


@dataclass(frozen=True)
class Bug:
    """In the source, `right` (which is there once) becomes `wrong`."""

    kind: str
    right: str
    wrong: str


@dataclass(frozen=True)
class PlantedKernel:
    """A kernel, its launch, its arguments, and what it should leave in its last array: `truth` of its arrays."""

    name: str
    source: str
    grid: int
    block: int
    arguments: tuple[Any, ...]
    truth: Callable[..., npt.NDArray[Any]]
    bugs: tuple[Bug, ...]
    whole: bool = True
    tolerance: float = 1e-4


def _floats(*shape: int) -> npt.NDArray[np.float32]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _softmax(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


_HEAD = '#include <hip/hip_runtime.h>\nextern "C" __global__ void '


def _zeros(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


REVERSE = PlantedKernel(
    "reverse",
    _HEAD
    + """kernel(const float* x, float* y, int n) {
  __shared__ float block[256];
  const int at = blockIdx.x * 256 + threadIdx.x;
  block[threadIdx.x] = x[at];
  __syncthreads();
  y[at] = 2.0f * block[255 - threadIdx.x];
}
""",
    2,
    256,
    (_floats(_N), _zeros(_N), _N),
    lambda x, _: 2 * x.reshape(-1, 256)[:, ::-1].reshape(-1),
    (
        Bug("barrier", "  __syncthreads();\n", ""),
        Bug("offset", "255 - threadIdx.x", "254 - threadIdx.x"),
        Bug("offset", "block[threadIdx.x] =", "block[threadIdx.x + 1] ="),
        Bug("size", "float block[256]", "float block[192]"),
        Bug("size", "blockIdx.x * 256", "blockIdx.x * 264"),
        Bug("constant", "2.0f *", "2.0001f * 1.01f *"),
        Bug("race", "block[threadIdx.x] =", "block[threadIdx.x & 127] ="),
        Bug("uninitialised", "  block[threadIdx.x] = x", "  if (threadIdx.x) block[threadIdx.x] = x"),
    ),
)

TRANSPOSE = PlantedKernel(
    "transpose",
    _HEAD
    + """kernel(const float* x, float* y, int rows, int columns) {
  __shared__ float tile[16][17];
  const int r = threadIdx.x / 16, c = threadIdx.x % 16;
  const int tiles = columns / 16, top = blockIdx.x / tiles * 16, left = blockIdx.x % tiles * 16;
  tile[r][c] = x[(top + r) * columns + left + c];
  __syncthreads();
  y[(left + r) * rows + top + c] = tile[c][r];
}
""",
    8,
    256,
    (_floats(32, 64), _zeros(64, 32), 32, 64),
    lambda x, _: x.T,
    (
        Bug("barrier", "  __syncthreads();\n", ""),
        Bug("offset", "left + c];", "left + c + 1];"),
        Bug("offset", "tile[c][r];", "tile[r][c];"),
        Bug("size", "tile[16][17]", "tile[12][17]"),
        Bug("size", "* rows + top", "* columns + top"),
        Bug("race", "tile[r][c] =", "tile[r & 3][c] ="),
        Bug("constant", "blockIdx.x / tiles * 16", "blockIdx.x / tiles * 8"),
        Bug("uninitialised", "tile[r][c] =", "if (c != 5) tile[r][c] ="),
    ),
)

REDUCTION = PlantedKernel(
    "reduction",
    _HEAD
    + """kernel(const float* x, float* y, int n) {
  __shared__ float part[256];
  const int t = threadIdx.x, at = blockIdx.x * 256 + t;
  part[t] = at < n ? x[at] : 0.0f;
  __syncthreads();
  for (int half = 128; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    __syncthreads();
  }
  if (t == 0) y[blockIdx.x] = part[0];
}
""",
    2,
    256,
    (_floats(500), _zeros(2), 500),
    lambda x, _: np.pad(x, (0, 12)).reshape(2, 256).sum(axis=1),
    (
        Bug("barrier", "0.0f;\n  __syncthreads();", "0.0f;"),
        Bug("barrier", "part[t + half];\n    __syncthreads();", "part[t + half];"),
        Bug("offset", "part[t + half];", "part[t + half - 1];"),
        Bug("size", "at < n ?", "at < n + 64 ?"),
        Bug("size", "part[256];", "part[250];"),
        Bug("race", "if (t < half) part", "part"),
        Bug("constant", "int half = 128;", "int half = 64;"),
        Bug("race", "if (t == 0) y[blockIdx.x] = part[0];", "if (t % 64 == 0) y[blockIdx.x] = part[t];"),
        Bug("constant", ": 0.0f;", ": 1.0f;"),
    ),
    tolerance=1e-3,
)

SCAN = PlantedKernel(
    "scan",
    _HEAD
    + """kernel(const float* x, float* y, int n) {
  __shared__ float sums[2][256];
  const int t = threadIdx.x;
  int now = 0;
  sums[0][t] = x[t];
  for (int reach = 1; reach < n; reach *= 2) {
    __syncthreads();
    sums[1 - now][t] = sums[now][t] + (t >= reach ? sums[now][t - reach] : 0.0f);
    now = 1 - now;
  }
  y[t] = sums[now][t];
}
""",
    1,
    256,
    (_floats(256), _zeros(256), 256),
    lambda x, _: np.cumsum(x.astype(np.float64)),
    (
        Bug("barrier", "    __syncthreads();\n", ""),
        Bug("race", "sums[1 - now][t] = ", "sums[now][t] = "),
        Bug("offset", "sums[now][t - reach]", "sums[now][t - reach + 1]"),
        Bug("size", "reach < n;", "reach < n / 2;"),
        Bug("constant", "reach *= 2", "reach *= 4"),
        Bug("size", "t >= reach ?", "t + 1 >= reach ?"),
        Bug("offset", "y[t] =", "y[t + 1] ="),
        Bug("uninitialised", "sums[0][t] = x[t];", "if (t < 200) sums[0][t] = x[t];"),
    ),
    tolerance=1e-3,
)

SOFTMAX = PlantedKernel(
    "softmax",
    _HEAD
    + """kernel(const float* x, float* y, int columns) {
  __shared__ float most[4], total[4];
  const int t = threadIdx.x, wave = t / 64, lane = t % 64;
  const float value = x[blockIdx.x * columns + t];
  float top = value;
  for (int step = 32; step > 0; step /= 2) top = fmaxf(top, __shfl_xor(top, step));
  if (lane == 0) most[wave] = top;
  __syncthreads();
  top = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
  const float power = __expf(value - top);
  float sum = power;
  for (int step = 32; step > 0; step /= 2) sum += __shfl_xor(sum, step);
  if (lane == 0) total[wave] = sum;
  __syncthreads();
  y[blockIdx.x * columns + t] = power / (total[0] + total[1] + total[2] + total[3]);
}
""",
    2,
    256,
    (_floats(2, 256), _zeros(2, 256), 256),
    lambda x, _: _softmax(x),
    (
        Bug("barrier", "most[wave] = top;\n  __syncthreads();", "most[wave] = top;"),
        Bug("barrier", "total[wave] = sum;\n  __syncthreads();", "total[wave] = sum;"),
        Bug("offset", "total[2] + total[3]", "total[2] + total[2]"),
        Bug("uninitialised", "if (lane == 0) most[wave]", "if (t == 0) most[wave]"),
        Bug("race", "total[wave] = sum;", "total[0] = sum;"),
        Bug("constant", "for (int step = 32; step > 0; step /= 2) sum", "for (int step = 16; step > 0; step /= 2) sum"),
        Bug("size", "y[blockIdx.x * columns + t]", "y[blockIdx.x * columns + t + blockIdx.x]"),
        Bug("constant", "__expf(value - top)", "__expf(top - value)"),
        Bug("race", "y[blockIdx.x * columns + t]", "y[t]"),
    ),
)
STENCIL = PlantedKernel(
    "stencil",
    _HEAD
    + """kernel(const float* x, float* y, int n) {
  __shared__ float near[258];
  const int t = threadIdx.x, at = blockIdx.x * 256 + t;
  near[t + 1] = x[at];
  if (t == 0) near[0] = at > 0 ? x[at - 1] : 0.0f;
  if (t == 255) near[257] = at + 1 < n ? x[at + 1] : 0.0f;
  __syncthreads();
  y[at] = 0.25f * near[t] + 0.5f * near[t + 1] + 0.25f * near[t + 2];
}
""",
    2,
    256,
    (_floats(_N), _zeros(_N), _N),
    lambda x, _: 0.25 * np.pad(x, 1)[:-2] + 0.5 * x + 0.25 * np.pad(x, 1)[2:],
    (
        Bug("barrier", "  __syncthreads();\n", ""),
        Bug("size", "at > 0 ? x[at - 1] : 0.0f", "x[at - 1]"),
        Bug("size", "at + 1 < n ? x[at + 1] : 0.0f", "x[at + 1]"),
        Bug("size", "near[258]", "near[257]"),
        Bug("uninitialised", "  if (t == 255) near[257]", "  if (t == 256) near[257]"),
        Bug("offset", "near[t + 2];", "near[t + 3];"),
        Bug("constant", "0.5f * near", "0.51f * near"),
        Bug("race", "near[t + 1] = x[at];", "near[t + 1] = x[at]; near[t] = x[at];"),
        Bug("offset", "near[t + 1] = x[at];", "near[t + 1] = x[at + 1];"),
    ),
)

HISTOGRAM = PlantedKernel(
    "histogram",
    _HEAD
    + """kernel(const int* x, int* y, int n) {
  __shared__ int count[64];
  const int t = threadIdx.x;
  if (t < 64) count[t] = 0;
  __syncthreads();
  for (int at = blockIdx.x * 256 + t; at < n; at += 512) atomicAdd(&count[x[at] & 63], 1);
  __syncthreads();
  if (t < 64) atomicAdd(&y[t], count[t]);
}
""",
    2,
    256,
    (_RNG.integers(0, 64, 1000).astype(np.int32), np.zeros(64, np.int32), 1000),
    lambda x, _: np.bincount(x, minlength=64),
    (
        Bug("barrier", "count[t] = 0;\n  __syncthreads();", "count[t] = 0;"),
        Bug("barrier", "1);\n  __syncthreads();", "1);"),
        Bug("uninitialised", "if (t < 64) count[t] = 0;", "if (t < 60) count[t] = 0;"),
        Bug("race", "atomicAdd(&count[x[at] & 63], 1);", "count[x[at] & 63] += 1;"),
        Bug("race", "atomicAdd(&y[t], count[t]);", "y[t] += count[t];"),
        Bug("size", "at < n;", "at < n + 24;"),
        Bug("constant", "], 1);", "], 2);"),
        Bug("offset", "&y[t], count[t]", "&y[t + 1], count[t]"),
        Bug("constant", "at += 512", "at += 1024"),
    ),
    whole=False,
)

MATMUL = PlantedKernel(
    "matmul",
    _HEAD
    + """kernel(const float* a, const float* b, float* c, int n) {
  __shared__ float ta[16][16], tb[16][16];
  const int r = threadIdx.x / 16, q = threadIdx.x % 16, side = n / 16;
  const int row = blockIdx.x / side * 16 + r, column = blockIdx.x % side * 16 + q;
  float sum = 0.0f;
  for (int k = 0; k < n; k += 16) {
    ta[r][q] = a[row * n + k + q];
    tb[r][q] = b[(k + r) * n + column];
    __syncthreads();
    for (int i = 0; i < 16; i++) sum += ta[r][i] * tb[i][q];
    __syncthreads();
  }
  c[row * n + column] = sum;
}
""",
    4,
    256,
    (_floats(32, 32), _floats(32, 32), _zeros(32, 32), 32),
    lambda a, b, _: a.astype(np.float64) @ b,
    (
        Bug("barrier", "column];\n    __syncthreads();", "column];"),
        Bug("barrier", "tb[i][q];\n    __syncthreads();", "tb[i][q];"),
        Bug("offset", "ta[r][i] * tb[i][q]", "ta[r][i] * tb[q][i]"),
        Bug("size", "i < 16; i++", "i < 15; i++"),
        Bug("size", "k < n; k += 16", "k < n + 16; k += 16"),
        Bug("constant", "float sum = 0.0f;", "float sum = 0.5f;"),
        Bug("uninitialised", "    tb[r][q] = b", "    if (r < 15) tb[r][q] = b"),
        Bug("race", "c[row * n + column]", "c[row / 2 * n + column]"),
        Bug("offset", "a[row * n + k + q]", "a[row * n + q]"),
    ),
    tolerance=1e-3,
)

MFMA = PlantedKernel(
    "mfma",
    """#include <hip/hip_runtime.h>
typedef float four __attribute__((ext_vector_type(4)));
typedef _Float16 halves __attribute__((ext_vector_type(8)));
extern "C" __global__ void kernel(const _Float16* a, const _Float16* b, float* c, int k) {
  const int lane = threadIdx.x, r = lane % 16, part = lane / 16 * 8;
  four sum = {0, 0, 0, 0};
  for (int at = 0; at < k; at += 32) {
    const halves x = *(const halves*)(a + r * k + at + part);
    const halves z = *(const halves*)(b + r * k + at + part);
    sum = __builtin_amdgcn_mfma_f32_16x16x32_f16(x, z, sum, 0, 0, 0);
  }
  for (int i = 0; i < 4; i++) c[(lane / 16 * 4 + i) * 16 + r] = sum[i];
}
""",
    1,
    64,
    (_floats(16, 64).astype(np.float16), _floats(16, 64).astype(np.float16), _zeros(16, 16), 64),
    lambda a, b, _: a.astype(np.float64) @ b.astype(np.float64).T,
    (
        Bug("offset", "a + r * k + at + part", "a + r * k + at + 8"),
        Bug("size", "at < k; at += 32", "at < k - 32; at += 32"),
        Bug("size", "at < k; at += 32", "at < k + 32; at += 32"),
        Bug("constant", "sum = {0, 0, 0, 0}", "sum = {0, 0, 0, 1}"),
        Bug("offset", "lane / 16 * 4 + i) * 16", "lane / 16 * 4 + i) * 8"),
        Bug("constant", "lane / 16 * 8", "lane / 16 * 4"),
        Bug("size", "i < 4; i++", "i < 3; i++"),
        Bug("offset", "b + r * k + at", "b + r * k + at + k"),
    ),
    tolerance=1e-2,
)

PRODUCER = PlantedKernel(
    "producer and consumer",
    _HEAD
    + """kernel(const float* x, float* y, int rounds) {
  __shared__ float ring[2][64];
  const int lane = threadIdx.x % 64;
  const bool makes = threadIdx.x < 64;
  if (makes) ring[0][lane] = 3.0f * x[lane];
  __syncthreads();
  for (int i = 0; i < rounds; i++) {
    if (makes && i + 1 < rounds) ring[(i + 1) % 2][lane] = 3.0f * x[(i + 1) * 64 + lane];
    if (!makes) y[i * 64 + lane] = ring[i % 2][63 - lane];
    __syncthreads();
  }
}
""",
    1,
    128,
    (_floats(8, 64), _zeros(8, 64), 8),
    lambda x, _: 3 * x[:, ::-1],
    (
        Bug("barrier", "3.0f * x[lane];\n  __syncthreads();", "3.0f * x[lane];"),
        Bug("barrier", "63 - lane];\n    __syncthreads();", "63 - lane];"),
        Bug("race", "ring[(i + 1) % 2][lane] =", "ring[i % 2][lane] ="),
        Bug("race", "ring[i % 2][63 - lane]", "ring[(i + 1) % 2][63 - lane]"),
        Bug("size", "makes && i + 1 < rounds", "makes"),
        Bug("size", "ring[2][64]", "ring[1][64]"),
        Bug("constant", "= 3.0f * x[lane]", "= 3.1f * x[lane]"),
        Bug("offset", "x[(i + 1) * 64 + lane]", "x[i * 64 + lane]"),
        Bug("uninitialised", "if (makes) ring[0][lane]", "if (threadIdx.x < 63) ring[0][lane]"),
    ),
)

LAST_BLOCK = PlantedKernel(
    "the last block sums up",
    _HEAD
    + """kernel(const float* x, float* part, unsigned* done, float* y, int n) {
  __shared__ bool last;
  const int t = threadIdx.x;
  float sum = 0.0f;
  for (int at = blockIdx.x * 64 + t; at < n; at += gridDim.x * 64) sum += x[at];
  for (int step = 32; step > 0; step /= 2) sum += __shfl_xor(sum, step);
  if (t == 0) {
    part[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (t == 0) {
    float all = 0.0f;
    for (unsigned i = 0; i < gridDim.x; i++) all += part[i];
    y[0] = all;
  }
}
""",
    4,
    64,
    (_floats(_N), _zeros(4), np.zeros(1, np.uint32), _zeros(1), _N),
    lambda x, *_: np.array([x.astype(np.float64).sum()]),
    (
        Bug("wait", "    __threadfence();\n    last", "    last"),
        Bug("wait", "  __threadfence();\n  if", "  if"),
        Bug("race", "part[blockIdx.x] = sum;", "part[0] = sum;"),
        Bug("constant", "== gridDim.x - 1", "== gridDim.x - 2"),
        Bug("size", "i < gridDim.x; i++", "i < gridDim.x - 1; i++"),
        Bug("size", "at < n;", "at < n + 64;"),
        Bug("race", "  if (!last) return;\n", ""),
        Bug("offset", "part[i];", "part[0];"),
        Bug("constant", "int step = 32;", "int step = 16;"),
    ),
    tolerance=1e-3,
)

AXPY = PlantedKernel(
    "axpy",
    _HEAD
    + """kernel(const float* x, float* y, float a, int n) {
  for (int at = blockIdx.x * 256 + threadIdx.x; at < n; at += gridDim.x * 256) y[at] = a * x[at] + y[at];
}
""",
    2,
    256,
    (_floats(700), _floats(700), 1.5, 700),
    lambda x, y: 1.5 * x + y,
    (
        Bug("size", "at < n;", "at <= n;"),
        Bug("size", "at < n;", "at < n - 1;"),
        Bug("offset", "a * x[at]", "a * x[at + 1]"),
        Bug("race", "y[at] = a", "y[at / 2] = a"),
        Bug("constant", "a * x[at] + y", "a * x[at] - y"),
        Bug("constant", "at += gridDim.x * 256", "at += gridDim.x * 255"),
        Bug("offset", "blockIdx.x * 256 + threadIdx.x", "blockIdx.x * 128 + threadIdx.x"),
    ),
    whole=False,
)

ALL = (
    REVERSE, TRANSPOSE, REDUCTION, SCAN, SOFTMAX, STENCIL, HISTOGRAM, MATMUL, MFMA, PRODUCER, LAST_BLOCK, AXPY,
)  # fmt: skip
