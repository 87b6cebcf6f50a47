"""Thirty Triton kernels of usual kinds, with what torch says they compute.

`python tests/unit/triton_kernels.py` compiles those of RECORDED again, which tests run where Triton is not installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl


@dataclass(frozen=True)
class TritonKernel:
    """`args` are made after torch's seed is set; `reference` returns the outputs in order, or writes into them."""

    function: Any
    grid: Any
    args: Callable[[], list[Any]]
    reference: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] | None = None
    tolerance: tuple[float, float] | None = None
    options: dict[str, Any] = field(default_factory=dict)


KERNELS: dict[str, TritonKernel] = {}


def case(grid: Any, args: Any, reference: Any, outputs: tuple[int, ...] | None = None, **more: Any) -> Any:
    """Registers the function below it."""

    def register(function: Any) -> Any:
        KERNELS[function.fn.__name__] = TritonKernel(function, grid, args, reference, outputs=outputs, **more)
        return function

    return register


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


def philox(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first number of Philox 4x32-10 of each counter, by its definition, as Triton turns it into a fraction."""
    numbers = []
    for counter in range(256):
        c, k = [counter, 0, 0, 0], [seed, 0]
        for _ in range(10):
            left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [right >> 32 ^ c[1] ^ k[0], right & 0xFFFFFFFF, left >> 32 ^ c[3] ^ k[1], left & 0xFFFFFFFF]
            k = [k[0] + 0x9E3779B9 & 0xFFFFFFFF, k[1] + 0xBB67AE85 & 0xFFFFFFFF]
        numbers.append(c[0] - (c[0] >> 31 << 32))
    bits = torch.tensor(numbers, dtype=torch.int32)
    return torch.where(bits < 0, -bits - 1, bits).float() * 4.6566127342e-10, bits


F16, BF16, F8, I32, I8 = torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int32, torch.int8


@case(4, lambda: [rand(1000), rand(1000), zeros(1000), 1000], lambda x, y, z, n: x + y, (2,), constants={"B": 256})
@triton.jit
def add(x, y, z, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(z + i, tl.load(x + i, i < n) + tl.load(y + i, i < n), i < n)


@case(3, lambda: [rand(3, 700), zeros(3, 700), 700], lambda x, y, n: torch.softmax(x, 1), (1,), constants={"B": 1024})
@triton.jit
def softmax(x, y, n, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    value = tl.load(x + row * n + i, i < n, other=-float("inf"))
    weight = tl.exp(value - tl.max(value, 0))
    tl.store(y + row * n + i, weight / tl.sum(weight, 0), i < n)


@case(
    3,
    lambda: [rand(3, 500, dtype=BF16), rand(500), rand(500), zeros(3, 500, dtype=BF16), 500, 1e-5],
    lambda x, w, b, y, n, eps: torch.nn.functional.layer_norm(x.float(), (500,), w, b, eps).to(BF16),
    (3,),
    constants={"B": 512},
    tolerance=(1.6e-2, 1e-2),
)
@triton.jit
def layer_norm(x, w, b, y, n, eps, B: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, B)
    value = tl.load(x + row * n + i, i < n, other=0.0).to(tl.float32)
    mean = tl.sum(value, 0) / n
    centred = tl.where(i < n, value - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / n + eps)
    out = centred * scale * tl.load(w + i, i < n) + tl.load(b + i, i < n)
    tl.store(y + row * n + i, out.to(tl.bfloat16), i < n)


@case(
    2,
    lambda: [rand(2, 256, dtype=F16), rand(256, dtype=F16), zeros(2, 256, dtype=F16)],
    lambda x, w, y: (x.float() * torch.rsqrt(x.float().pow(2).mean(1, keepdim=True) + 1e-6) * w.float()).half(),
    (2,),
    tolerance=(2e-3, 1e-3),
)
@triton.jit
def rms_norm(x, w, y):
    row, i = tl.program_id(0), tl.arange(0, 256)
    value = tl.load(x + row * 256 + i).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / 256 + 1e-6)
    tl.store(y + row * 256 + i, (value * scale * tl.load(w + i)).to(tl.float16))


@triton.jit
def _matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, OUT: tl.constexpr):
    im = tl.program_id(0) * BM + tl.arange(0, BM)
    jn = tl.program_id(1) * BN + tl.arange(0, BN)
    kk = tl.arange(0, BK)
    total = tl.zeros((BM, BN), OUT)
    for at in range(0, k, BK):
        left = tl.load(a + im[:, None] * k + at + kk[None, :])
        right = tl.load(b + (at + kk)[:, None] * n + jn[None, :])
        total = tl.dot(left, right, total, out_dtype=OUT)
    tl.store(c + im[:, None] * n + jn[None, :], total.to(c.dtype.element_ty))


def product(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, *sizes: int) -> torch.Tensor:
    whole = a.dtype == I8
    exact = a.long() @ b.long() if whole else a.double() @ b.double()
    return exact.to(c.dtype)


for name, dtype, out, accumulator in (
    ("matmul_f16", F16, F16, tl.float32), ("matmul_bf16", BF16, BF16, tl.float32), ("matmul_f8", F8, F16, tl.float32),
    ("matmul_i8", I8, I32, tl.int32), ("matmul_f32", torch.float32, torch.float32, tl.float32),
):  # fmt: skip
    KERNELS[name] = TritonKernel(
        _matmul,
        (2, 1),
        (
            lambda dtype=dtype, out=out: [
                (torch.randint(-9, 9, (64, 128)) if dtype == I8 else torch.randn(64, 128)).to(dtype),
                (torch.randint(-9, 9, (128, 64)) if dtype == I8 else torch.randn(128, 64)).to(dtype),
                zeros(64, 64, dtype=out),
                64,
                64,
                128,
            ]
        ),
        product,
        {"BM": 32, "BN": 64, "BK": 64, "OUT": accumulator},
        (2,),
        (1.6e-2, 1e-2) if dtype != torch.float32 else (1e-4, 1e-4),
    )


def scaled(a: torch.Tensor, sa: torch.Tensor, b: torch.Tensor, sb: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    left = a.double() * torch.exp2(sa.double() - 127).repeat_interleave(32, 1)
    right = b.double() * torch.exp2(sb.double() - 127).repeat_interleave(32, 1)
    return (left @ right.T).float()


@case(
    1,
    lambda: [
        rand(32, 128, dtype=F8),
        torch.randint(120, 134, (32, 4), dtype=torch.uint8),
        rand(32, 128, dtype=F8),
        torch.randint(120, 134, (32, 4), dtype=torch.uint8),
        zeros(32, 32),
    ],
    scaled,
    (4,),
    tolerance=(1e-4, 1e-3),
)
@triton.jit
def matmul_mx(a, sa, b, sb, c):
    i, k, s = tl.arange(0, 32), tl.arange(0, 128), tl.arange(0, 4)
    left, right = tl.load(a + i[:, None] * 128 + k[None, :]), tl.load(b + i[None, :] * 128 + k[:, None])
    scale_a, scale_b = tl.load(sa + i[:, None] * 4 + s[None, :]), tl.load(sb + i[:, None] * 4 + s[None, :])
    total = tl.dot_scaled(left, scale_a, "e4m3", right, scale_b, "e4m3")
    tl.store(c + i[:, None] * 32 + i[None, :], total)


@case(
    (2, 2),
    lambda: [
        rand(2, 64, 64, dtype=F16),
        rand(2, 128, 64, dtype=F16),
        rand(2, 128, 64, dtype=F16),
        zeros(2, 64, 64, dtype=F16),
        64,
        128,
        0.125,
    ],
    lambda q, k, v, o, *r: torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double()).half(),
    (3,),
    constants={"BM": 32, "BN": 32, "D": 64},
    tolerance=(1e-2, 2e-3),
)
@triton.jit
def attention(q, k, v, o, rows, keys, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    head, i, d = tl.program_id(1), tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    query = tl.load(q + head * rows * D + i[:, None] * D + d[None, :])
    most, total = tl.full((BM,), -float("inf"), tl.float32), tl.zeros((BM,), tl.float32)
    out = tl.zeros((BM, D), tl.float32)
    for at in range(0, keys, BN):
        j = at + tl.arange(0, BN)
        key = tl.load(k + head * keys * D + j[None, :] * D + d[:, None])
        score = tl.dot(query, key) * (scale * 1.4426950408889634)
        above = tl.maximum(most, tl.max(score, 1))
        weight, fade = tl.exp2(score - above[:, None]), tl.exp2(most - above)
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(v + head * keys * D + j[:, None] * D + d[None, :])
        out = out * fade[:, None] + tl.dot(weight.to(tl.float16), value)
        most = above
    tl.store(o + head * rows * D + i[:, None] * D + d[None, :], (out / total[:, None]).to(tl.float16))


@case(
    2,
    lambda: [rand(64, 64, dtype=BF16), rand(64, 64, dtype=BF16), rand(64, 64, dtype=BF16), zeros(64, 64)],
    lambda q, k, v, o: torch.nn.functional.scaled_dot_product_attention(
        *(x.double()[None] for x in (q, k, v)), is_causal=True
    )[0].float(),
    (3,),
    tolerance=(2e-2, 1e-2),
)
@triton.jit
def attention_causal(q, k, v, o):
    i, j, d = tl.program_id(0) * 32 + tl.arange(0, 32), tl.arange(0, 64), tl.arange(0, 64)
    score = tl.dot(tl.load(q + i[:, None] * 64 + d[None, :]), tl.load(k + j[None, :] * 64 + d[:, None])) * 0.125
    score = tl.where(i[:, None] >= j[None, :], score, -1e9)
    weight = tl.exp(score - tl.max(score, 1)[:, None])
    weight = (weight / tl.sum(weight, 1)[:, None]).to(tl.bfloat16)
    out = tl.dot(weight, tl.load(v + j[:, None] * 64 + d[None, :]))
    tl.store(o + i[:, None] * 64 + d[None, :], out)


@case(2, lambda: [rand(2, 256), zeros(2, 256)], lambda x, y: torch.sort(x, 1).values, (1,))
@triton.jit
def sort_rows(x, y):
    i = tl.program_id(0) * 256 + tl.arange(0, 256)
    tl.store(y + i, tl.sort(tl.load(x + i)))


@case(
    2,
    lambda: [rand(2, 256), zeros(2, 256)],
    lambda x, y: torch.cumsum(x.double(), 1).float(),
    (1,),
    tolerance=(1e-5, 1e-4),
)
@triton.jit
def cumsum_rows(x, y):
    i = tl.program_id(0) * 256 + tl.arange(0, 256)
    tl.store(y + i, tl.cumsum(tl.load(x + i), 0))


@case(
    1,
    lambda: [torch.randint(0, 32, (512,), dtype=I32), zeros(32, dtype=I32)],
    lambda x, y: torch.bincount(x, minlength=32),
    (1,),
)
@triton.jit
def histogram(x, y):
    tl.store(y + tl.arange(0, 32), tl.histogram(tl.load(x + tl.arange(0, 512)), 32))


@case(
    4,
    lambda: [torch.randint(0, 16, (1000,), dtype=I32), zeros(16, dtype=I32), 1000],
    lambda x, y, n: torch.bincount(x, minlength=16),
)
@triton.jit
def histogram_atomic(x, y, n):
    i = tl.program_id(0) * 256 + tl.arange(0, 256)
    tl.atomic_add(y + tl.load(x + i, i < n, other=0), 1, i < n)


@case(
    4, lambda: [rand(4, 300), zeros(4, dtype=I32), zeros(4), 300], lambda x, i, v, n: (x.argmax(1), x.amin(1)), (1, 2)
)
@triton.jit
def argmax_and_min(x, index, least, n):
    row, i = tl.program_id(0), tl.arange(0, 512)
    tl.store(index + row, tl.argmax(tl.load(x + row * n + i, i < n, other=-float("inf")), 0))
    tl.store(least + row, tl.min(tl.load(x + row * n + i, i < n, other=float("inf")), 0))


@case((2, 2), lambda: [rand(64, 64), zeros(64, 64)], lambda x, y: x.T.contiguous(), (1,))
@triton.jit
def transpose(x, y):
    i, j = tl.program_id(0) * 32 + tl.arange(0, 32), tl.program_id(1) * 32 + tl.arange(0, 32)
    tile = tl.load(x + i[:, None] * 64 + j[None, :])
    tl.store(y + j[:, None] * 64 + i[None, :], tl.trans(tile))


@case(
    2,
    lambda: [rand(2, 600, dtype=BF16), zeros(2, 300, dtype=BF16), 300],
    lambda x, y, d: (torch.nn.functional.silu(x[:, :300].float()) * x[:, 300:].float()).to(BF16),
    (1,),
)
@triton.jit
def silu_and_mul(x, y, d):
    row, i = tl.program_id(0), tl.arange(0, 512)
    gate = tl.load(x + row * 2 * d + i, i < d).to(tl.float32)
    up = tl.load(x + row * 2 * d + d + i, i < d).to(tl.float32)
    tl.store(y + row * d + i, (gate * tl.sigmoid(gate) * up).to(tl.bfloat16), i < d)


@case(1, lambda: [rand(512) * 2, zeros(512)], lambda x, y: torch.nn.functional.gelu(x), (1,), tolerance=(1e-5, 1e-6))
@triton.jit
def gelu(x, y):
    i = tl.arange(0, 512)
    value = tl.load(x + i)
    tl.store(y + i, 0.5 * value * (1 + tl.erf(value * 0.7071067811865476)))


@case(
    1,
    lambda: [rand(256) * 3, zeros(256)],
    lambda x, y: (
        torch.sin(x)
        + torch.cos(x)
        + torch.log(x.abs() + 1)
        + torch.log2(x.abs() + 2)
        + torch.floor(x)
        + torch.ceil(x)
        + torch.sqrt(x.abs())
        + torch.exp2(x * 0.1)
    ),
    (1,),
    tolerance=(1e-5, 1e-5),
)
@triton.jit
def elementary(x, y):
    i = tl.arange(0, 256)
    v = tl.load(x + i)
    out = tl.sin(v) + tl.cos(v) + tl.log(tl.abs(v) + 1) + tl.log2(tl.abs(v) + 2) + tl.floor(v) + tl.ceil(v)
    tl.store(y + i, out + tl.sqrt(tl.abs(v)) + tl.exp2(v * 0.1))


@case(
    3,
    lambda: [rand(3, 128), rand(3, 64), rand(3, 64), zeros(3, 128)],
    lambda x, c, s, y: torch.cat([x[:, :64] * c - x[:, 64:] * s, x[:, 64:] * c + x[:, :64] * s], 1),
    (3,),
    tolerance=(1e-5, 1e-5),
)
@triton.jit
def rotary(x, c, s, y):
    row, i = tl.program_id(0), tl.arange(0, 64)
    a, b = tl.load(x + row * 128 + i), tl.load(x + row * 128 + 64 + i)
    cosine, sine = tl.load(c + row * 64 + i), tl.load(s + row * 64 + i)
    tl.store(y + row * 128 + i, a * cosine - b * sine)
    tl.store(y + row * 128 + 64 + i, b * cosine + a * sine)


@case(
    3,
    lambda: [rand(3, 100), torch.tensor([5, 99, 0]), zeros(3), 100],
    lambda x, target, loss, n: torch.nn.functional.cross_entropy(x, target, reduction="none"),
    (2,),
    tolerance=(1e-5, 1e-5),
)
@triton.jit
def cross_entropy(x, target, loss, n):
    row, i = tl.program_id(0), tl.arange(0, 128)
    value = tl.load(x + row * n + i, i < n, other=-float("inf"))
    most = tl.max(value, 0)
    total = tl.log(tl.sum(tl.exp(value - most), 0)) + most
    tl.store(loss + row, total - tl.load(x + row * n + tl.load(target + row)))


@case(1, lambda: [zeros(256), zeros(256, dtype=I32), 7], lambda *args: philox(7), outputs=(0, 1))
@triton.jit
def random_numbers(uniform, bits, seed):
    i = tl.arange(0, 256)
    tl.store(uniform + i, tl.rand(seed, i))
    tl.store(bits + i, tl.randint(seed, i))


@case(
    6,
    lambda: [torch.randint(0, 10, (6,)), rand(10, 128, dtype=F16), zeros(6, 128, dtype=F16)],
    lambda ids, table, out: table[ids],
    (2,),
)
@triton.jit
def embedding(ids, table, out):
    row, i = tl.program_id(0), tl.arange(0, 128)
    tl.store(out + row * 128 + i, tl.load(table + tl.load(ids + row) * 128 + i))


@case(
    2,
    lambda: [rand(2, 256), zeros(2, 256, dtype=F8), zeros(2)],
    lambda x, y, s: ((x * (256 / x.abs().amax(1, keepdim=True))).to(F8).float(), x.abs().amax(1) / 256),
    (1, 2),
    tolerance=(0.13, 1e-3),
)
@triton.jit
def quantize_f8(x, y, s):
    row, i = tl.program_id(0), tl.arange(0, 256)
    value = tl.load(x + row * 256 + i)
    most = tl.max(tl.abs(value), 0)
    tl.store(y + row * 256 + i, (value * (256 / most)).to(tl.float8e4nv))
    tl.store(s + row, most / 256)


@case(
    1,
    lambda: [torch.randint(0, 256, (128,), dtype=torch.uint8), rand(128, dtype=F16), zeros(256, dtype=F16)],
    lambda x, s, y: ((torch.stack([x & 15, x >> 4], 1).float() - 8) * s.float()[:, None]).half().reshape(-1),
    (2,),
)
@triton.jit
def dequantize_int4(x, s, y):
    i = tl.arange(0, 128)
    byte, scale = tl.load(x + i), tl.load(s + i)
    low, high = (byte & 15).to(tl.float16) - 8, (byte >> 4).to(tl.float16) - 8
    tl.store(y + tl.arange(0, 256), tl.interleave(low * scale, high * scale))


@case(
    1,
    lambda: [rand(64, 64), zeros(64), zeros(64)],
    lambda x, a, b: (x.sum(0), x.amax(1)),
    (1, 2),
    tolerance=(1e-5, 1e-5),
)
@triton.jit
def reduce_both_axes(x, a, b):
    i = tl.arange(0, 64)
    tile = tl.load(x + i[:, None] * 64 + i[None, :])
    tl.store(a + i, tl.sum(tile, 0))
    tl.store(b + i, tl.max(tile, 1))


@triton.jit
def _combine(a0, b0, a1, b1):
    return a0 * a1, b0 * a1 + b1


def recurrence(a: torch.Tensor, b: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    state, out = torch.tensor(0.0).double(), []
    for x, z in zip(a.double(), b.double(), strict=True):
        state = state * x + z
        out.append(state)
    return torch.stack(out).float()


@case(1, lambda: [torch.rand(256), rand(256), zeros(256)], recurrence, (2,), tolerance=(1e-5, 1e-5))
@triton.jit
def associative_scan(a, b, y):
    i = tl.arange(0, 256)
    _, out = tl.associative_scan((tl.load(a + i), tl.load(b + i)), 0, _combine)
    tl.store(y + i, out)


@case(
    1,
    lambda: [rand(128, dtype=torch.float64), zeros(128, dtype=torch.float64)],
    lambda x, y: x.exp() / (1 + x * x) + x.abs().sqrt(),
    (1,),
    tolerance=(1e-12, 1e-12),
)
@triton.jit
def doubles(x, y):
    i = tl.arange(0, 128)
    value = tl.load(x + i)
    tl.store(y + i, tl.exp(value) / (1 + value * value) + tl.sqrt(tl.abs(value)))


@case(
    2,
    lambda: [torch.randint(-(2**40), 2**40, (512,)), torch.randint(1, 1000, (512,)), zeros(512, dtype=torch.int64)],
    lambda a, b, c: torch.div(a, b, rounding_mode="trunc") * 3 + torch.fmod(a, b) ^ (a << 2),
    (2,),
)
@triton.jit
def integers(a, b, c):
    i = tl.program_id(0) * 256 + tl.arange(0, 256)
    x, y = tl.load(a + i), tl.load(b + i)
    tl.store(c + i, (x // y) * 3 + x % y ^ (x << 2))


@case(
    2,
    lambda: [rand(64, 32, dtype=F16), rand(32, 128, dtype=F16), rand(128), zeros(64, 128)],
    lambda a, b, bias, c: torch.relu(a.double() @ b.double() + bias.double()).float(),
    (3,),
    tolerance=(1e-3, 1e-3),
    options={"num_warps": 8},
)
@triton.jit
def linear_bias_relu(a, b, bias, c):
    i, j, k = tl.program_id(0) * 32 + tl.arange(0, 32), tl.arange(0, 128), tl.arange(0, 32)
    total = tl.dot(tl.load(a + i[:, None] * 32 + k[None, :]), tl.load(b + k[:, None] * 128 + j[None, :]))
    tl.store(c + i[:, None] * 128 + j[None, :], tl.maximum(total + tl.load(bias + j)[None, :], 0))


@case(
    4,
    lambda: [rand(4, 256), zeros(1), zeros(4, dtype=I32)],
    lambda x, total, lock: (x.sum().reshape(1), lock + 1),
    tolerance=(1e-4, 1e-4),
)
@triton.jit
def atomics(x, total, lock):
    row = tl.program_id(0)
    tl.atomic_add(total, tl.sum(tl.load(x + row * 256 + tl.arange(0, 256)), 0))
    tl.atomic_cas(lock + row, 0, 1)


RECORDED = ("attention", "cumsum_rows", "elementary", "histogram", "matmul_mx", "softmax")
FOLDER = Path(__file__).resolve().parents[1] / "recorded" / "triton_kernels"


def record() -> None:
    """Leave RECORDED in FOLDER as Triton's cache has them: the code object, and what it says of the launch."""
    from hktune.verify.called_arguments import CalledArguments
    from hktune.verify.triton_kernel import compiled_for

    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    FOLDER.mkdir(exist_ok=True)
    for name in RECORDED:
        kernel = KERNELS[name]
        built, _ = compiled_for(kernel.function, CalledArguments(kernel.args()), kernel.constants, kernel.options)
        (FOLDER / f"{name}.hsaco").write_bytes(built.asm["hsaco"])
        kept = ("triton_version", "num_warps", "warp_size", "shared", "global_scratch_size", "profile_scratch_size")
        said = {key: getattr(built.metadata, key, 0) for key in kept}
        (FOLDER / f"{name}.json").write_text(json.dumps(said) + "\n")


if __name__ == "__main__":
    record()
