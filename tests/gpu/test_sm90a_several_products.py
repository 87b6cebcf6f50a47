"""Batched and grouped products of the sm90a GEMM on a real GPU: random configs, sizes, divisions and strides."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config, Value
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.device.cuda import CudaDevice
from hktune.device.device import SEVERAL_OPERANDS
from hktune.space.search_space import SearchSpace, load_space
from hktune.verify import Proof
from hktune.verify.on_device import verify_on_device

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml"
OPERATIONS = [
    *("grouped.bf16.nt", "grouped.bf16.nn", "grouped.f16.nt", "grouped.f16.nn"),
    *("grouped.bf16.tn", "grouped.f16.tn", "grouped.bf16.tn->f32", "grouped.f16.tn->f32"),
    *("batched.bf16.nt", "batched.f16.nn", "batched.bf16.tn", "batched.f16.tt"),
    *("batched.bf16.nt+residual", "batched.f16.nn+residual"),
    *("grouped.bf16.nt+gelu", "grouped.f16.nn+silu", "grouped.bf16.nt+silu+gated", "grouped.f16.nn+gelu+gated"),
    *("grouped.bf16.nt+silu+gated_interleaved", "grouped.f16.nt+gelu_tanh+gated_interleaved"),
    *("grouped.e4m3.nt.rows->bf16", "grouped.e4m3.nt.rows->f32", "grouped.e4m3.nt.rows.fast->f16"),
    *("grouped.e4m3.nt.rows->bf16+relu", "grouped.e4m3.nt.rows.fast->bf16+silu+gated"),
    *("grouped.e4m3.nt.rows->bf16+gelu+gated_interleaved", "grouped.i8.nt.rows->bf16", "grouped.i8.nt.rows->f32"),
]
CONFIGS_EACH = 6
NARROW: dict[str, Value] = {"swapped": True, "schedule": "single", "block_m": 16, "block_n": 128, "cluster_rows": 1}
WIDE: dict[str, Value] = {"schedule": "ping_pong", "block_m": 64, "block_n": 128, "k_step": 128, "cluster_rows": 1}


@lru_cache
def space(text: str) -> SearchSpace:
    return load_space(SPACE).for_operation(operation_of(text))


def problems(own: SearchSpace, config: Config, chance: random.Random) -> list[Problem]:
    """Whole tiles and ragged ones, few rows in many products, and many."""
    tile, operation = own.template.tile(config), own.template.operation
    depth = tile.k * chance.randint(1, 9)
    ragged = depth + 8 * chance.randint(0, tile.k // 8)
    if operation.divides_k:
        depth, ragged = depth * chance.randint(1, 9), ragged * chance.randint(1, 9) + chance.randint(0, 99)
    sizes = [
        (tile.m * chance.randint(1, 3), tile.n * chance.randint(1, 3), depth, chance.choice([1, 2, 3, 5])),
        (tile.m + chance.randint(1, 3 * tile.m), tile.n + chance.randint(1, tile.n), ragged, chance.randint(1, 9)),
        (tile.m + 8 * chance.randint(0, 9), tile.n + 8 * chance.randint(1, 9), depth, chance.randint(1, 20)),
        (8 * chance.randint(1, 3), tile.n + 8 * chance.randint(1, 8), depth, chance.choice([1, 8, 64, 130])),
        (8 * chance.randint(60, 150), 8 * chance.randint(60, 200), depth, chance.choice([2, 7, 16])),
    ]
    made = [Problem(m, n, k, replace(operation, count=groups)) for m, n, k, groups in sizes]
    return [problem for problem in made if own.is_legal(config, problem)]


@lru_cache
def built(text: str, config: Config) -> CodeObject:
    code = NvrtcCompiler().compile(space(text).template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    return code


@pytest.mark.parametrize("text", OPERATIONS)
def test_every_element_of_every_product_is_right(hopper: CudaDevice, text: str) -> None:
    own, chance, spilled = space(text), random.Random(text), 0
    for config in dict.fromkeys([*own.seeds[:2], *(own.sample(chance) for _ in range(CONFIGS_EACH))]):
        code = built(text, config)
        spilled += bool(code.resources.spills)
        if code.resources.spills:
            continue  # as in tuning: with one compiler or another a few do
        kernel = hopper.load(code.data, code.symbol)
        proofs = [own.template.own_proof(each) for each in problems(own, config, chance)]
        for proof in (*own.template.proof_problems(config), *proofs):
            launch = own.template.launch(config, proof.problem)
            outcome = verify_on_device(hopper, kernel, launch, proof, seed=chance.randrange(100))
            assert isinstance(outcome, Proof), f"{proof} {dict(config)}: {outcome}"
    assert spilled <= 1


SIZES = [[7, 0, 0, 90, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 100], [100, 0, 0, 0, 0], [1] * 5]
"""Rows of five groups, of 100 in all: empty ones, all rows in one, and rows behind the last."""
ROWS, N, K = 100, 144, 208
UNTOUCHED = 7.0


def groups_of(sizes: list[int]) -> list[slice]:
    ends = [0, *itertools.accumulate(sizes)]
    return [slice(first, end) for first, end in itertools.pairwise(ends)]


def launched(device: CudaDevice, text: str, values: dict[str, Value], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """C, of which no row behind the last group may be written."""
    own, operation = space(text), operation_of(text.replace("grouped", "grouped5"))
    config = own.config(values)
    problem = Problem(ROWS, N, K, operation)
    assert own.is_legal(config, problem)
    code, launch = built(text, config), own.template.launch(config, problem)
    out_dtype = getattr(torch, operation.c_dtype.torch_name)
    c = torch.full((ROWS, N), UNTOUCHED, device="cuda", dtype=out_dtype)
    buffers = {name: device.borrow(tensor) for name, tensor in {**tensors, "c": c}.items()}
    torch.cuda.synchronize()
    device.launch(device.load(code.data, code.symbol), launch, launch.bound({**problem.numbers(), **buffers}))
    device.synchronize()
    used = int(tensors["offsets"][-1])
    assert (c[used:] == UNTOUCHED).all()
    return c[:used]


def ends_of(sizes: list[int]) -> torch.Tensor:
    return torch.tensor(sizes, device="cuda").cumsum(0).int()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("values", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    "gates", ["", "+silu+gated", "+silu+gated_interleaved", "+bias", "+bias+silu+gated", "+bias+silu+gated_interleaved"]
)
def test_each_group_has_its_own_matrix_and_its_own_bias(
    hopper: CudaDevice, gates: str, values: dict[str, Value], sizes: list[int]
) -> None:
    columns = 2 * N if "gated" in gates else N
    a = torch.randn(ROWS, K, device="cuda").bfloat16()
    b = torch.randn(5, columns, K, device="cuda").bfloat16()
    biases = {"bias": torch.randn(5, columns, device="cuda").bfloat16()} if "bias" in gates else {}
    found = launched(hopper, f"grouped.bf16.nt{gates}", values, {"a": a, "b": b, "offsets": ends_of(sizes), **biases})
    parts = [a[rows].double() @ b[group].double().mT for group, rows in enumerate(groups_of(sizes))]
    if biases:
        parts = [part + own.double() for part, own in zip(parts, biases["bias"], strict=True)]
    product = torch.cat(parts)
    if "gated" in gates:
        halves = (product[:, ::2], product[:, 1::2]) if "interleaved" in gates else product.chunk(2, 1)
        product = torch.nn.functional.silu(halves[0]) * halves[1]
    assert torch.allclose(found.double(), product, rtol=2**-8, atol=2**-7)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("values", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    "text", ["grouped.e4m3.nt.rows->bf16", "grouped.e4m3.nt.rows.fast->f32", "grouped.e4m3.nt.rows->bf16+silu+gated"]
)
def test_factors_are_of_their_row_and_of_their_groups_column(
    hopper: CudaDevice, text: str, values: dict[str, Value], sizes: list[int]
) -> None:
    """Against float64 of the very operands; a factor that is NaN or 0 is so of its row, or of its column, alone.

    Elements are -1, 0 and 1, so that sums are exact. Others are cut to 14 bits by the matrix unit, so that sums that
    are nearly 0 become 0. No gate is below -87, whose exponential float32 has not.
    """
    columns = 2 * N if "gated" in text else N
    a = torch.randint(-1, 2, (ROWS, K), device="cuda").to(torch.float8_e4m3fn)
    b = torch.randint(-1, 2, (5, columns, K), device="cuda").to(torch.float8_e4m3fn)
    scale_a, scale_b = torch.rand(ROWS, device="cuda") + 0.25, torch.rand(5, columns, device="cuda") + 0.25
    scale_a[3], scale_a[5], scale_b[3, 2], scale_b[0, 9] = torch.nan, 0.0, torch.nan, 0.0
    scale_b[4, -1] = torch.nan
    tensors = {"a": a, "b": b, "scale_a": scale_a, "scale_b": scale_b, "offsets": ends_of(sizes)}
    found = launched(hopper, text, values, tensors).double()
    parts = [
        (a[rows].double() @ b[group].double().mT) * scale_a[rows, None].double() * scale_b[group].double()
        for group, rows in enumerate(groups_of(sizes))
    ]
    product = torch.cat(parts)
    if "gated" in text:
        gate, up = product.chunk(2, 1)
        product = torch.nn.functional.silu(gate) * up
    assert torch.equal(found.isnan(), product.isnan())
    assert torch.equal(found == 0.0, product == 0.0)
    rtol = 2**-18 if "->f32" in text else 2**-8
    assert torch.allclose(found, product, rtol=rtol, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("text", ["batched.bf16.nt", "batched.bf16.nn", "batched.f16.tn", "batched.f16.tt"])
def test_matrices_may_be_anywhere_and_may_be_one(hopper: CudaDevice, text: str) -> None:
    """Rows that are apart, matrices in another order, those of every other layer, and one for all."""
    own, count, m, n, k = space(text), 6, 72, 136, 88
    operation, dtype = (
        operation_of(text.replace("batched", f"batched{count}")),
        torch.bfloat16 if "bf16" in text else torch.half,
    )
    configs = [own.seeds[0], own.seeds[4], *(own.sample(random.Random(text)) for _ in range(3))]
    for config in configs:
        code, launch = built(text, config), own.template.launch(config, Problem(m, n, k, operation))
        kernel = hopper.load(code.data, code.symbol)
        for number in range(6):
            a, b = (
                stored(number + own_number, count, rows, columns, dtype)
                for own_number, (rows, columns) in enumerate(sides(text, m, n, k))
            )
            strides = {"lda": a.stride(1), "ldb": b.stride(1), "stride_a": a.stride(0), "stride_b": b.stride(0)}
            numbers = {**Problem(m, n, k, operation).numbers(), **strides}
            c = torch.full((count, m, n), 7.0, device="cuda", dtype=dtype)
            prepared = hopper.prepare(kernel, launch, numbers, SEVERAL_OPERANDS)
            torch.cuda.synchronize()
            prepared(a, b, c, None, None, None, torch.cuda.current_stream().cuda_stream)
            torch.cuda.synchronize()
            left, right = text[-2], text[-1]
            expected = (a if left == "n" else a.mT).double() @ (b if right == "n" else b.mT).double()
            assert torch.allclose(c.double(), expected, rtol=2**-7, atol=2**-6), (number, dict(config))


def sides(text: str, m: int, n: int, k: int) -> list[tuple[int, int]]:
    return [(m, k) if text[-2] == "n" else (k, m), (k, n) if text[-1] == "n" else (n, k)]


def stored(number: int, count: int, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Matrices in one of six storages."""
    wide = torch.randn(2 * count, rows, columns + 24, device="cuda").to(dtype)
    return [
        wide[:count, :, :columns],  # rows apart
        wide[::2, :, :columns].contiguous(),
        wide[:1, :, :columns].contiguous().expand(count, -1, -1),  # one for all
        wide[:count, :, :columns].transpose(0, 1).contiguous().transpose(0, 1),  # heads behind tokens
        wide[::2, :, 8 : columns + 8],  # every other one, and not from its first column on
        wide[:1, :, :columns].expand(count, -1, -1),
    ][number % 6]
