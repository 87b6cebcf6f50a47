"""Thirty-three HIP kernels of usual kinds, with what numpy or torch says they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

PRELUDE = r"""
#include <hip/hip_runtime.h>
#include <hip/hip_bf16.h>
#include <hip/hip_fp16.h>
#include <hip/hip_fp8.h>
#include <hip/hip_cooperative_groups.h>
#include <rocrand/rocrand_kernel.h>
namespace cg = cooperative_groups;
#define LAUNCH(threads) extern "C" __global__ __launch_bounds__(threads) void
"""


@dataclass(frozen=True)
class HipKernel:
    """`args` are made by a seeded generator; `reference` returns what the kernel's outputs hold, in order."""

    source: str
    grid: Any
    block: Any
    args: Callable[[np.random.Generator], list[Any]]
    reference: Callable[..., Any]
    outputs: tuple[int, ...]
    tolerance: tuple[float, float] | None = None
    lds_bytes: int = 0
    quick: bool = False
    notes: dict[str, str] = field(default_factory=dict)


def f32(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def empty(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


def t(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)


KERNELS: dict[str, HipKernel] = {}


def kernel(name: str, source: str, grid: Any, block: Any, args: Any, reference: Any, outputs: Any, **more: Any) -> None:
    KERNELS[name] = HipKernel(source, grid, block, args, reference, outputs, **more)


kernel(
    "saxpy",
    r"""LAUNCH(256) saxpy(const float *x, const float *y, float *out, float a, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) out[i] = a * x[i] + y[i];
}""",
    2,
    256,
    lambda r: [f32(r, 1000), f32(r, 1000), empty(1000), 2.5, 1000],
    lambda x, y, o, a, n: 2.5 * x + y,
    (2,),
    quick=True,
)

kernel(
    "reduce_sum",
    r"""LAUNCH(256) reduce_sum(const float *x, float *out, int n) {
    __shared__ float part[4];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += 256) sum += x[blockIdx.x * n + i];
    for (int step = 32; step; step >>= 1) sum += __shfl_down(sum, step);
    if ((threadIdx.x & 63) == 0) part[threadIdx.x >> 6] = sum;
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = part[0] + part[1] + part[2] + part[3];
}""",
    3,
    256,
    lambda r: [f32(r, 3, 900), empty(3), 900],
    lambda x, o, n: x.astype(float).sum(axis=1),
    (1,),
    tolerance=(1e-5, 1e-4),
    quick=True,
)

kernel(
    "softmax_rows",
    r"""LAUNCH(256) softmax_rows(const float *x, float *out, int columns) {
    __shared__ float shared[4];
    const float *row = x + blockIdx.x * columns;
    float most = -INFINITY;
    for (int i = threadIdx.x; i < columns; i += 256) most = fmaxf(most, row[i]);
    for (int step = 32; step; step >>= 1) most = fmaxf(most, __shfl_xor(most, step));
    if ((threadIdx.x & 63) == 0) shared[threadIdx.x >> 6] = most;
    __syncthreads();
    most = fmaxf(fmaxf(shared[0], shared[1]), fmaxf(shared[2], shared[3]));
    __syncthreads();
    float sum = 0;
    for (int i = threadIdx.x; i < columns; i += 256) sum += expf(row[i] - most);
    for (int step = 32; step; step >>= 1) sum += __shfl_xor(sum, step);
    if ((threadIdx.x & 63) == 0) shared[threadIdx.x >> 6] = sum;
    __syncthreads();
    sum = shared[0] + shared[1] + shared[2] + shared[3];
    for (int i = threadIdx.x; i < columns; i += 256) out[blockIdx.x * columns + i] = expf(row[i] - most) / sum;
}""",
    2,
    256,
    lambda r: [f32(r, 2, 700) * 3, empty(2, 700), 700],
    lambda x, o, n: torch.softmax(t(x).double(), 1),
    (1,),
    tolerance=(1e-5, 1e-7),
    quick=True,
)

kernel(
    "layer_norm",
    r"""LAUNCH(64) layer_norm(const __hip_bfloat16 *x, const float *weight, const float *bias, __hip_bfloat16 *out,
                      int n, float eps) {
    const __hip_bfloat16 *row = x + blockIdx.x * n;
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < n; i += 64) {
        const float value = __bfloat162float(row[i]);
        sum += value, squares += value * value;
    }
    for (int step = 1; step < 64; step *= 2) sum += __shfl_xor(sum, step), squares += __shfl_xor(squares, step);
    const float mean = sum / n, scale = rsqrtf(squares / n - mean * mean + eps);
    for (int i = threadIdx.x; i < n; i += 64)
        out[blockIdx.x * n + i] = __float2bfloat16((__bfloat162float(row[i]) - mean) * scale * weight[i] + bias[i]);
}""",
    3,
    64,
    lambda r: [t(f32(r, 3, 512)).bfloat16(), t(f32(r, 512)), t(f32(r, 512)), torch.zeros(3, 512).bfloat16(), 512, 1e-5],
    lambda x, w, b, o, n, eps: torch.nn.functional.layer_norm(x.float(), (512,), w, b, eps).bfloat16(),
    (3,),
    tolerance=(1.6e-2, 1e-2),
)

kernel(
    "rms_norm_half",
    r"""LAUNCH(128) rms_norm_half(const __half2 *x, const __half2 *weight, __half2 *out, int pairs) {
    __shared__ float total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    float squares = 0;
    for (int i = threadIdx.x; i < pairs; i += 128) {
        const float2 v = __half22float2(x[blockIdx.x * pairs + i]);
        squares += v.x * v.x + v.y * v.y;
    }
    atomicAdd(&total, squares);
    __syncthreads();
    const float scale = rsqrtf(total / (2 * pairs) + 1e-6f);
    for (int i = threadIdx.x; i < pairs; i += 128)
        out[blockIdx.x * pairs + i] =
            __hmul2(__hmul2(x[blockIdx.x * pairs + i], __floats2half2_rn(scale, scale)), weight[i]);
}""",
    2,
    128,
    lambda r: [f32(r, 2, 256).astype(np.float16), f32(r, 256).astype(np.float16), empty(2, 256, dtype=np.float16), 128],
    lambda x, w, o, n: x * (1 / np.sqrt((x.astype(float) ** 2).mean(1, keepdims=True) + 1e-6)) * w,
    (2,),
    tolerance=(4e-3, 1e-3),
)

kernel(
    "gelu",
    r"""LAUNCH(256) gelu(const float4 *x, float4 *y, int n) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    auto one = [](float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678f)); };
    const float4 v = x[i];
    y[i] = make_float4(one(v.x), one(v.y), one(v.z), one(v.w));
}""",
    1,
    256,
    lambda r: [f32(r, 1000) * 2, empty(1000), 250],
    lambda x, y, n: torch.nn.functional.gelu(t(x).double()),
    (1,),
    tolerance=(1e-5, 1e-6),
    quick=True,
)

kernel(
    "silu_and_mul",
    r"""LAUNCH(256) silu_and_mul(const __hip_bfloat16 *x, __hip_bfloat16 *y, int d) {
    const __hip_bfloat16 *row = x + 2 * blockIdx.x * d;
    for (int i = threadIdx.x; i < d; i += 256) {
        const float gate = row[i], up = row[d + i];
        y[blockIdx.x * d + i] = __float2bfloat16(gate / (1.0f + __expf(-gate)) * up);
    }
}""",
    2,
    256,
    lambda r: [t(f32(r, 2, 600)).bfloat16(), torch.zeros(2, 300).bfloat16(), 300],
    lambda x, y, d: (torch.nn.functional.silu(x[:, :300].float()) * x[:, 300:].float()).bfloat16(),
    (1,),
)

kernel(
    "tanh_pow_log",
    r"""LAUNCH(256) tanh_pow_log(const float *x, float *y, int n) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i < n) y[i] = tanhf(x[i]) + powf(fabsf(x[i]) + 0.1f, 1.7f) - logf(fabsf(x[i]) + 1.0f) + log1pf(x[i] * x[i]) +
                      cbrtf(x[i]) + expm1f(x[i] * 0.1f) + log2f(fabsf(x[i]) + 2.0f) + hypotf(x[i], 2.0f);
}""",
    1,
    256,
    lambda r: [f32(r, 256) * 3, empty(256), 256],
    lambda x, y, n: (
        lambda v: (
            np.tanh(v)
            + (np.abs(v) + np.float32(0.1).astype(float)) ** np.float32(1.7).astype(float)
            - np.log(np.abs(v) + 1)
            + np.log1p(v * v)
            + np.cbrt(v)
            + np.expm1(v * np.float32(0.1).astype(float))
            + np.log2(np.abs(v) + 2)
            + np.hypot(v, 2)
        )
    )(x.astype(float)),
    (1,),
    tolerance=(2e-6, 1e-6),
)

kernel(
    "rotary",
    r"""LAUNCH(64) rotary(const float *x, float *y, int half, float base) {
    const float *row = x + 2 * blockIdx.x * half;
    for (int i = threadIdx.x; i < half; i += 64) {
        float s, c;
        sincosf(blockIdx.x * powf(base, -static_cast<float>(i) / half), &s, &c);
        y[2 * blockIdx.x * half + i] = row[i] * c - row[half + i] * s;
        y[(2 * blockIdx.x + 1) * half + i] = row[half + i] * c + row[i] * s;
    }
}""",
    5,
    64,
    lambda r: [f32(r, 5, 128), empty(5, 128), 64, 10000.0],
    lambda x, y, half, base: (
        lambda a: np.concatenate(
            [x[:, :64] * np.cos(a) - x[:, 64:] * np.sin(a), x[:, 64:] * np.cos(a) + x[:, :64] * np.sin(a)], 1
        )
    )(np.arange(5)[:, None] * 10000.0 ** (-np.arange(64) / 64)),
    (1,),
    tolerance=(1e-5, 1e-5),
)

kernel(
    "transpose_tile",
    r"""LAUNCH(256) transpose_tile(const float *x, float *y, int rows, int columns) {
    __shared__ float tile[32][33];
    const int x0 = blockIdx.x * 32, y0 = blockIdx.y * 32;
    for (int i = threadIdx.y; i < 32; i += 8) tile[i][threadIdx.x] = x[(y0 + i) * columns + x0 + threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.y; i < 32; i += 8) y[(x0 + i) * rows + y0 + threadIdx.x] = tile[threadIdx.x][i];
}""",
    (3, 2),
    (32, 8),
    lambda r: [f32(r, 64, 96), empty(96, 64), 64, 96],
    lambda x, y, m, n: x.T.copy(),
    (1,),
    quick=True,
)

kernel(
    "gemm_tile",
    r"""LAUNCH(256) gemm_tile(const float *a, const float *b, float *c, int n, int k) {
    __shared__ float as[16][16], bs[16][17];
    const int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    for (int at = 0; at < k; at += 16) {
        as[threadIdx.y][threadIdx.x] = a[row * k + at + threadIdx.x];
        bs[threadIdx.y][threadIdx.x] = b[(at + threadIdx.y) * n + column];
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = sum;
}""",
    (2, 2),
    (16, 16),
    lambda r: [f32(r, 32, 48), f32(r, 48, 32), empty(32, 32), 32, 48],
    lambda a, b, c, n, k: a @ b,
    (2,),
    tolerance=(1e-5, 1e-4),
)

kernel(
    "gemm_mfma",
    r"""typedef float float4v __attribute__((ext_vector_type(4)));
typedef _Float16 half8v __attribute__((ext_vector_type(8)));
LAUNCH(64) gemm_mfma(const half8v *a, const half8v *b, float *c, int k) {
    const int row = threadIdx.x % 16, part = threadIdx.x / 16;
    float4v sum = 0;
    for (int at = 0; at < k; at += 32)
        sum = __builtin_amdgcn_mfma_f32_16x16x32_f16(
            a[((blockIdx.y * 16 + row) * k + at) / 8 + part], b[((blockIdx.x * 16 + row) * k + at) / 8 + part], sum, 0,
            0, 0);
    for (int i = 0; i < 4; i++) c[(blockIdx.y * 16 + part * 4 + i) * gridDim.x * 16 + blockIdx.x * 16 + row] = sum[i];
}""",
    (2, 2),
    64,
    lambda r: [f32(r, 32, 64).astype(np.float16), f32(r, 32, 64).astype(np.float16), empty(32, 32), 64],
    lambda a, b, c, k: a.astype(float) @ b.astype(float).T,
    (2,),
    tolerance=(1e-5, 1e-4),
    quick=True,
)

kernel(
    "histogram",
    r"""LAUNCH(256) histogram(const unsigned char *x, unsigned *bins, int n) {
    __shared__ unsigned local[256];
    local[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) atomicAdd(&local[x[i]], 1u);
    __syncthreads();
    if (local[threadIdx.x]) atomicAdd(&bins[threadIdx.x], local[threadIdx.x]);
}""",
    2,
    256,
    lambda r: [r.integers(0, 40, 3000).astype(np.uint8), empty(256, dtype=np.uint32), 3000],
    lambda x, b, n: np.bincount(x, minlength=256),
    (1,),
    quick=True,
    notes={"outputs": "added to"},
)

kernel(
    "scan_block",
    r"""LAUNCH(256) scan_block(const int *x, int *y) {
    __shared__ int sums[256];
    const int i = threadIdx.x, at = blockIdx.x * 256 + i;
    sums[i] = x[at];
    __syncthreads();
    for (int step = 1; step < 256; step *= 2) {
        const int before = i >= step ? sums[i - step] : 0;
        __syncthreads();
        sums[i] += before;
        __syncthreads();
    }
    y[at] = sums[i];
}""",
    2,
    256,
    lambda r: [r.integers(-99, 99, (2, 256)).astype(np.int32), empty(2, 256, dtype=np.int32)],
    lambda x, y: np.cumsum(x, axis=1),
    (1,),
)

kernel(
    "bitonic_sort",
    r"""LAUNCH(256) bitonic_sort(const float *x, float *y) {
    __shared__ float values[256];
    const int i = threadIdx.x;
    values[i] = x[blockIdx.x * 256 + i];
    __syncthreads();
    for (int size = 2; size <= 256; size *= 2)
        for (int step = size / 2; step; step /= 2) {
            const int other = i ^ step;
            if (other > i) {
                const float a = values[i], b = values[other];
                if ((a > b) == ((i & size) == 0)) values[i] = b, values[other] = a;
            }
            __syncthreads();
        }
    y[blockIdx.x * 256 + i] = values[i];
}""",
    1,
    256,
    lambda r: [f32(r, 256), empty(256)],
    lambda x, y: np.sort(x),
    (1,),
)

kernel(
    "argmax_rows",
    r"""LAUNCH(64) argmax_rows(const float *x, int *index, float *value, int n) {
    float best = -INFINITY;
    int at = 0;
    for (int i = threadIdx.x; i < n; i += 64)
        if (x[blockIdx.x * n + i] > best) best = x[blockIdx.x * n + i], at = i;
    for (int step = 32; step; step >>= 1) {
        const float other = __shfl_xor(best, step);
        const int place = __shfl_xor(at, step);
        if (other > best || (other == best && place < at)) best = other, at = place;
    }
    if (threadIdx.x == 0) index[blockIdx.x] = at, value[blockIdx.x] = best;
}""",
    4,
    64,
    lambda r: [f32(r, 4, 300), empty(4, dtype=np.int32), empty(4), 300],
    lambda x, i, v, n: (x.argmax(1), x.max(1)),
    (1, 2),
    quick=True,
)

kernel(
    "ballot_compact",
    r"""LAUNCH(64) ballot_compact(const int *x, int *kept, int *count) {
    const int value = x[threadIdx.x];
    const unsigned long long mask = __ballot(value > 0);
    if (value > 0) kept[__popcll(mask & ((1ull << threadIdx.x) - 1))] = value;
    if (threadIdx.x == 0) {
        count[0] = __popcll(mask), count[1] = __ffsll(mask), count[2] = __clzll(mask);
        count[3] = __any(0), count[4] = __all(1);
    }
}""",
    1,
    64,
    lambda r: [r.integers(-9, 9, 64).astype(np.int32), empty(64, dtype=np.int32), empty(5, dtype=np.int32)],
    lambda x, k, c: (
        np.pad(x[x > 0], (0, 64 - (x > 0).sum())),
        [(x > 0).sum(), np.flatnonzero(x > 0)[0] + 1, 63 - np.flatnonzero(x > 0)[-1], 0, 1],
    ),
    (1, 2),
    notes={"outputs": "partly"},
)

kernel(
    "bits",
    r"""LAUNCH(64) bits(const unsigned *x, unsigned *y) {
    const unsigned a = x[threadIdx.x], b = x[64 + threadIdx.x];
    y[threadIdx.x] = __popc(a) + 64 * __clz(a) + 4096 * __ffs(b);
    y[64 + threadIdx.x] = __brev(a) ^ __umulhi(a, b) ^ __byte_perm(a, b, 0x5140);
    y[128 + threadIdx.x] = __funnelshift_l(a, b, 7) + __sad(a & 0xffff, b & 0xffff, 3) + __umul24(a, b);
}""",
    1,
    64,
    lambda r: [r.integers(0, 2**32, 128, dtype=np.uint32), empty(192, dtype=np.uint32)],
    lambda x, y: np.concatenate(
        [
            [
                bin(a).count("1") + 64 * (32 - int(a).bit_length()) + 4096 * ((int(b) & -int(b)).bit_length())
                for a, b in zip(x[:64], x[64:], strict=True)
            ],
            [
                int(f"{int(a):032b}"[::-1], 2)
                ^ (int(a) * int(b) >> 32)
                ^ sum(((int(b) << 32 | int(a)) >> 8 * s & 255) << 8 * i for i, s in enumerate((0, 4, 1, 5)))
                for a, b in zip(x[:64], x[64:], strict=True)
            ],
            [
                (
                    ((int(b) << 32 | int(a)) << 7 >> 32 & 0xFFFFFFFF)
                    + abs((int(a) & 65535) - (int(b) & 65535))
                    + 3
                    + (int(a) & 0xFFFFFF) * (int(b) & 0xFFFFFF)
                )
                & 0xFFFFFFFF
                for a, b in zip(x[:64], x[64:], strict=True)
            ],
        ]
    ).astype(np.uint32),
    (1,),
)

kernel(
    "atomics",
    r"""LAUNCH(64) atomics(const int *x, int *out, float *sum, unsigned long long *big, double *wide) {
    const int v = x[blockIdx.x * 64 + threadIdx.x];
    atomicAdd(&out[0], v), atomicMax(&out[1], v), atomicMin(&out[2], v), atomicOr(&out[3], v & 0xff);
    atomicAnd(&out[4], v | 0xff), atomicXor(&out[5], v), atomicSub(&out[6], v);
    atomicInc(reinterpret_cast<unsigned *>(&out[7]), 99);
    int old = out[8];
    for (int seen; (seen = atomicCAS(&out[8], old, old + 1)) != old;) old = seen;
    atomicAdd(sum, static_cast<float>(v)), atomicAdd(big, 1ull << 33), atomicAdd(wide, v * 0.5);
}""",
    2,
    64,
    lambda r: [
        r.integers(-500, 500, 128).astype(np.int32),
        np.array([0, -999, 999, 0, -1, 0, 0, 0, 0], np.int32),
        empty(1),
        empty(1, dtype=np.uint64),
        empty(1, dtype=np.float64),
    ],
    lambda x, o, s, b, w: (
        [
            x.sum(),
            x.max(),
            x.min(),
            np.bitwise_or.reduce(x & 0xFF),
            np.bitwise_and.reduce(x | 0xFF),
            np.bitwise_xor.reduce(x),
            -x.sum(),
            28,
            128,
        ],
        [x.sum()],
        [128 << 33],
        [x.sum() * 0.5],
    ),
    (1, 2, 3, 4),
    notes={"outputs": "added to"},
    tolerance=(1e-6, 0.0),
)

kernel(
    "stencil",
    r"""LAUNCH(256) stencil(const float *x, float *y, int w, int h) {
    const int i = blockIdx.x * 16 + threadIdx.x, j = blockIdx.y * 16 + threadIdx.y;
    if (i >= w || j >= h) return;
    auto at = [&](int a, int b) { return a < 0 || b < 0 || a >= w || b >= h ? 0.0f : x[b * w + a]; };
    y[j * w + i] = 4.0f * x[j * w + i] - at(i - 1, j) - at(i + 1, j) - at(i, j - 1) - at(i, j + 1);
}""",
    (3, 2),
    (16, 16),
    lambda r: [f32(r, 30, 40), empty(30, 40), 40, 30],
    lambda x, y, w, h: (lambda p: 4 * x - p[1:-1, :-2] - p[1:-1, 2:] - p[:-2, 1:-1] - p[2:, 1:-1])(np.pad(x, 1)),
    (1,),
    tolerance=(1e-5, 1e-5),
)

kernel(
    "conv1d_lds",
    r"""LAUNCH(128) conv1d_lds(const float *x, const float *w, float *y, int n) {
    extern __shared__ float window[];
    const int begin = blockIdx.x * 128;
    for (int i = threadIdx.x; i < 128 + 6; i += 128) window[i] = begin + i < n ? x[begin + i] : 0.0f;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < 7; i++) sum += window[threadIdx.x + i] * w[i];
    if (begin + threadIdx.x < n - 6) y[begin + threadIdx.x] = sum;
}""",
    2,
    128,
    lambda r: [f32(r, 250), f32(r, 7), empty(244), 250],
    lambda x, w, y, n: np.correlate(x, w, "valid"),
    (2,),
    tolerance=(1e-5, 1e-5),
    lds_bytes=134 * 4,
)

kernel(
    "embedding",
    r"""LAUNCH(64) embedding(const long *ids, const __half *table, __half *out, int d) {
    const int4 *from = reinterpret_cast<const int4 *>(table + ids[blockIdx.x] * d);
    int4 *to = reinterpret_cast<int4 *>(out + blockIdx.x * d);
    for (int i = threadIdx.x; i < d / 8; i += 64) to[i] = from[i];
}""",
    6,
    64,
    lambda r: [
        r.integers(0, 10, 6).astype(np.int64),
        f32(r, 10, 256).astype(np.float16),
        empty(6, 256, dtype=np.float16),
        256,
    ],
    lambda ids, table, out, d: table[ids],
    (2,),
)

kernel(
    "quantize_fp8",
    r"""LAUNCH(64) quantize_fp8(const float *x, __hip_fp8_e4m3 *y, float *scale, int n) {
    float most = 0;
    for (int i = threadIdx.x; i < n; i += 64) most = fmaxf(most, fabsf(x[blockIdx.x * n + i]));
    for (int step = 32; step; step /= 2) most = fmaxf(most, __shfl_xor(most, step));
    const float inverse = 256.0f / most;
    for (int i = threadIdx.x; i < n; i += 64) y[blockIdx.x * n + i] = __hip_fp8_e4m3(x[blockIdx.x * n + i] * inverse);
    if (threadIdx.x == 0) scale[blockIdx.x] = most / 256.0f;
}""",
    2,
    64,
    lambda r: [t(f32(r, 2, 200)), torch.zeros(2, 200).to(torch.float8_e4m3fn), torch.zeros(2), 200],
    lambda x, y, s, n: (
        (x * (256 / x.abs().amax(1, keepdim=True))).to(torch.float8_e4m3fn).float(),
        x.abs().amax(1) / 256,
    ),
    (1, 2),
    tolerance=(1e-6, 1e-6),
)

kernel(
    "dequantize_int4",
    r"""LAUNCH(64) dequantize_int4(const unsigned *x, const __half *scale, __half *y, int words) {
    const int i = blockIdx.x * 64 + threadIdx.x;
    if (i >= words) return;
    const float s = __half2float(scale[i / 4]);
    for (int at = 0; at < 8; at++) y[8 * i + at] = __float2half((static_cast<int>(x[i] >> (4 * at) & 15) - 8) * s);
}""",
    2,
    64,
    lambda r: [
        r.integers(0, 2**32, 100, dtype=np.uint32),
        f32(r, 25).astype(np.float16),
        empty(800, dtype=np.float16),
        100,
    ],
    lambda x, s, y, n: (
        ((x[:, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(int) - 8).reshape(-1)
        * np.repeat(s.astype(np.float32), 32)
    ),
    (2,),
    tolerance=(1e-3, 1e-6),
)

kernel(
    "dot_int8",
    r"""LAUNCH(64) dot_int8(const int *a, const int *b, int *c, int words) {
    int sum = 0;
    for (int i = threadIdx.x; i < words; i += 64)
        sum = __builtin_amdgcn_sdot4(a[blockIdx.x * words + i], b[i], sum, false);
    for (int step = 32; step; step /= 2) sum += __shfl_xor(sum, step);
    if (threadIdx.x == 0) c[blockIdx.x] = sum;
}""",
    3,
    64,
    lambda r: [
        r.integers(-128, 128, (3, 400)).astype(np.int8),
        r.integers(-128, 128, 400).astype(np.int8),
        empty(3, dtype=np.int32),
        100,
    ],
    lambda a, b, c, n: a.astype(int) @ b.astype(int),
    (2,),
)

kernel(
    "double_math",
    r"""LAUNCH(64) double_math(const double *x, double *y) {
    const double v = x[threadIdx.x];
    y[threadIdx.x] = exp(v) / (1.0 + v * v) + sqrt(fabs(v)) + sin(v) * cos(v) + log(fabs(v) + 1.5) + fmod(v, 0.7) +
                     floor(v) + pow(fabs(v) + 0.5, -1.3) + rint(v * 3) + tanh(v) + erf(v);
}""",
    1,
    64,
    lambda r: [r.standard_normal(64) * 3, empty(64, dtype=np.float64)],
    lambda x, y: (
        np.exp(x) / (1 + x * x)
        + np.sqrt(np.abs(x))
        + np.sin(x) * np.cos(x)
        + np.log(np.abs(x) + 1.5)
        + np.fmod(x, 0.7)
        + np.floor(x)
        + (np.abs(x) + 0.5) ** -1.3
        + np.rint(x * 3)
        + np.tanh(x)
        + torch.erf(t(x)).numpy()
    ),
    (1,),
    tolerance=(1e-13, 1e-13),
)

kernel(
    "half_math",
    r"""LAUNCH(64) half_math(const __half *x, __half *y) {
    const __half v = x[threadIdx.x], one = __float2half(1.0f);
    __half r = __hdiv(hexp(v), __hadd(one, hexp(v)));
    r = __hadd(r, hsqrt(__habs(v))), r = __hmax(r, __hneg(v)), r = __hmul(r, hrcp(__hadd(__habs(v), one)));
    y[threadIdx.x] = __half(_Float16(r.data) / _Float16(3) + _Float16(__float2half(__sinf(0.5f)).data));
}""",
    1,
    64,
    lambda r: [f32(r, 64).astype(np.float16), empty(64, dtype=np.float16)],
    lambda x, y: (
        lambda v: np.maximum(1 / (1 + np.exp(-v)) + np.sqrt(np.abs(v)), -v) / (np.abs(v) + 1) / 3 + np.sin(0.5)
    )(x.astype(float)),
    (1,),
    tolerance=(5e-3, 2e-3),
)

kernel(
    "cooperative_tiles",
    r"""LAUNCH(128) cooperative_tiles(const float *x, float *y, int *ranks) {
    const cg::thread_block block = cg::this_thread_block();
    const auto tile = cg::tiled_partition<16>(block);
    const float sum = cg::reduce(tile, x[block.thread_rank()], cg::plus<float>());
    const unsigned long long votes = tile.ballot(x[block.thread_rank()] > 0);
    block.sync();
    if (tile.thread_rank() == 0) y[tile.meta_group_rank()] = sum, ranks[tile.meta_group_rank()] = __popcll(votes);
}""",
    1,
    128,
    lambda r: [f32(r, 128), empty(8), empty(8, dtype=np.int32)],
    lambda x, y, k: (x.reshape(8, 16).sum(1), (x.reshape(8, 16) > 0).sum(1)),
    (1, 2),
    tolerance=(1e-5, 1e-5),
)

kernel(
    "random_numbers",
    r"""LAUNCH(64) random_numbers(unsigned *bits, float *uniform) {
    rocrand_state_philox4x32_10 state;
    rocrand_init(0, threadIdx.x, 0, &state);
    for (int i = 0; i < 6; i++) bits[i * 64 + threadIdx.x] = rocrand(&state);
    uniform[threadIdx.x] = rocrand_uniform(&state);
}""",
    1,
    64,
    lambda r: [empty(6, 64, dtype=np.uint32), empty(64)],
    lambda b, u: philox(),
    (0, 1),
    tolerance=(1e-6, 0.0),
)

kernel(
    "attention_row",
    r"""LAUNCH(64) attention_row(const float *q, const float *k, const float *v, float *o, int keys, float scale) {
    __shared__ float scores[256];
    const float *query = q + blockIdx.x * 64;
    for (int j = threadIdx.x; j < keys; j += 64) {
        float sum = 0;
        for (int i = 0; i < 64; i++) sum += query[i] * k[j * 64 + i];
        scores[j] = j <= blockIdx.x ? sum * scale : -INFINITY;
    }
    __syncthreads();
    float most = -INFINITY, total = 0, out = 0;
    for (int j = 0; j < keys; j++) most = fmaxf(most, scores[j]);
    for (int j = 0; j < keys; j++) {
        const float weight = expf(scores[j] - most);
        total += weight, out += weight * v[j * 64 + threadIdx.x];
    }
    o[blockIdx.x * 64 + threadIdx.x] = out / total;
}""",
    4,
    64,
    lambda r: [f32(r, 4, 64), f32(r, 20, 64), f32(r, 20, 64), empty(4, 64), 20, 0.125],
    lambda q, k, v, o, n, s: torch.nn.functional.scaled_dot_product_attention(
        *(t(each).double()[None] for each in (q, k, v)), attn_mask=torch.ones(4, 20).tril().bool()
    )[0],
    (3,),
    tolerance=(1e-4, 1e-5),
)

kernel(
    "printf_and_clock",
    r"""LAUNCH(64) printf_and_clock(const int *x, long long *y, int n) {
    const long long begin = clock64();
    assert(n == 64);
    if (x[threadIdx.x] < -1000) printf("%d is small\n", x[threadIdx.x]);
    int sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * (i ^ threadIdx.x);
    y[threadIdx.x] = clock64() > begin && wall_clock64() > 0 ? sum : -1;
}""",
    1,
    64,
    lambda r: [r.integers(0, 9, 64).astype(np.int32), empty(64, dtype=np.int64), 64],
    lambda x, y, n: ((np.arange(64)[None] ^ np.arange(64)[:, None]) * x[None]).sum(1),
    (1,),
)

kernel(
    "batched_strided",
    r"""template <typename T> struct Matrix { const T *data; int rows, columns; long stride;
    __device__ T at(int b, int i, int j) const { return data[b * stride + static_cast<long>(i) * columns + j]; } };
LAUNCH(64) batched_strided(Matrix<double> a, double *row_sums, short *signs, unsigned char *flags) {
    double sum = 0;
    for (int j = 0; j < a.columns; j++) sum += a.at(blockIdx.x, threadIdx.x, j);
    row_sums[blockIdx.x * 64 + threadIdx.x] = sum;
    signs[blockIdx.x * 64 + threadIdx.x] = sum > 0 ? 1 : sum < 0 ? -1 : 0;
    flags[blockIdx.x * 64 + threadIdx.x] = static_cast<unsigned char>(fabs(sum) * 16.0);
}""",
    2,
    64,
    lambda r: [
        (r.standard_normal((2, 64, 10)), 64, 10, np.int64(640)),
        empty(2, 64, dtype=np.float64),
        empty(2, 64, dtype=np.int16),
        empty(2, 64, dtype=np.uint8),
    ],
    lambda a, s, g, f: (a[0].sum(2), np.sign(a[0].sum(2)), np.floor(np.abs(a[0].sum(2)) * 16).astype(np.uint8)),
    (1, 2, 3),
    tolerance=(1e-12, 1e-12),
)


kernel(
    "small_float_operators",
    r"""LAUNCH(64) small_float_operators(const __half2 *x, const __hip_bfloat16 *z, float4 *y, __half *shuffled) {
    const int i = threadIdx.x;
    __half2 a = x[i], b = __hfma2(a, a, __float2half2_rn(1.0f));
    b += a, b *= __float2half2_rn(0.5f);
    __hip_bfloat16 c = z[i];
    c += __float2bfloat16(1.0f);
    float4 v = make_float4(__low2float(b), __high2float(b), __hgt(a.x, a.y) ? 1.0f : 0.0f, c);
    v = 2.0f * v + 1;
    v -= -v * 0.25f;
    y[i] = v;
    shuffled[i] = __shfl_xor(a.x, 1);
}""",
    1,
    64,
    lambda r: [
        t(f32(r, 64, 2)).half(),
        t(f32(r, 64)).bfloat16(),
        torch.zeros(64, 4),
        torch.zeros(64).half(),
    ],
    lambda x, z, y, s: small_floats(x, z),
    (2, 3),
    tolerance=(1e-6, 1e-6),
)


def small_floats(x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    b = (x.double() * x.double() + 1).half()
    b = (b.float() + x.float()).half()
    b = (b.float() * 0.5).half().float()
    c = (z.float() + 1).bfloat16().float()
    v = 2 * torch.stack([b[:, 0], b[:, 1], (x[:, 0] > x[:, 1]).float(), c], 1) + 1
    return v * 1.25, x[torch.arange(64) ^ 1, 0]


def philox() -> tuple[Array, Array]:
    """Philox 4x32-10 of key 0, by its definition: the first six numbers of 64 subsequences, and the seventh as a
    fraction. Of counter 0 the first block is that of Random123's known answers."""
    numbers = np.zeros((8, 64), np.uint64)
    for lane in range(64):
        for block in range(2):
            c, k = [block, 0, lane, 0], [0, 0]
            for _ in range(10):
                left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [right >> 32 ^ c[1] ^ k[0], right & 0xFFFFFFFF, left >> 32 ^ c[3] ^ k[1], left & 0xFFFFFFFF]
                k = [k[0] + 0x9E3779B9 & 0xFFFFFFFF, k[1] + 0xBB67AE85 & 0xFFFFFFFF]
            numbers[4 * block : 4 * block + 4, lane] = c
    assert [int(each) for each in numbers[:4, 0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    return numbers[:6].astype(np.uint32), (numbers[6] + 1) * 2.0**-32
