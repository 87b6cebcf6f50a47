"""Batched and grouped products of the sm90a GEMM on a real GPU: random configs, sizes, divisions and strides."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem, ProofProblem
from hktune.core.variant import CodeObject
from hktune.device.cuda import CudaDevice
from hktune.device.device import SEVERAL_OPERANDS
from hktune.space.search_space import SearchSpace, load_space
from hktune.verify import Proof
from hktune.verify.on_device import verify_on_device

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "sm90a_gemm_bf16.yaml"
OPERATIONS = [
    *("grouped.bf16.nt", "grouped.bf16.nn", "grouped.f16.nt", "grouped.f16.nn"),
    *("grouped.bf16.tn", "grouped.f16.tn"),
    *("batched.bf16.nt", "batched.f16.nn", "batched.bf16.tn", "batched.f16.tt"),
    *("batched.bf16.nt+residual", "batched.f16.nn+residual"),
]
CONFIGS_EACH = 6


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


def built(own: SearchSpace, config: Config) -> CodeObject:
    code = NvrtcCompiler().compile(own.template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    return code


@pytest.mark.parametrize("text", OPERATIONS)
def test_every_element_of_every_product_is_right(hopper: CudaDevice, text: str) -> None:
    own, chance, spilled = space(text), random.Random(text), 0
    for config in dict.fromkeys([*own.seeds[:2], *(own.sample(chance) for _ in range(CONFIGS_EACH))]):
        code = built(own, config)
        spilled += bool(code.resources.spills)
        if code.resources.spills:
            continue  # as in tuning: with one compiler or another a few do
        kernel = hopper.load(code.data, code.symbol)
        proofs = [ProofProblem(each, exact_sums=True) for each in problems(own, config, chance)]
        for proof in (*own.template.proof_problems(config), *proofs):
            launch = own.template.launch(config, proof.problem)
            outcome = verify_on_device(hopper, kernel, launch, proof, seed=chance.randrange(100))
            assert isinstance(outcome, Proof), f"{proof} {dict(config)}: {outcome}"
    assert spilled <= 1


@pytest.mark.parametrize("sizes", [[7, 0, 0, 90, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 100], [100, 0, 0, 0, 0], [1] * 5])
def test_rows_behind_the_last_group_are_left_alone(hopper: CudaDevice, sizes: list[int]) -> None:
    own, rows, n, k = space("grouped.bf16.nt"), 100, 136, 72
    operation: Operation = operation_of("grouped5.bf16.nt")
    config = own.config({"swapped": True, "schedule": "single", "block_m": 16, "block_n": 64, "cluster_rows": 1})
    code = built(own, config)
    kernel = hopper.load(code.data, code.symbol)
    a, b = torch.randn(rows, k, device="cuda").bfloat16(), torch.randn(5, n, k, device="cuda").bfloat16()
    c = torch.full((rows, n), 7.0, device="cuda", dtype=torch.bfloat16)
    offsets = torch.tensor(sizes, device="cuda").cumsum(0).int()
    problem = Problem(rows, n, k, operation)
    launch = own.template.launch(config, problem)
    tensors = {"a": a, "b": b, "c": c, "offsets": offsets}
    buffers = {name: hopper.borrow(tensor) for name, tensor in tensors.items()}
    torch.cuda.synchronize()
    hopper.launch(kernel, launch, launch.bound({**problem.numbers(), **buffers}))
    hopper.synchronize()
    used, expected = sum(sizes), torch._grouped_mm(a, b.mT, offs=offsets)
    assert torch.allclose(c[:used].float(), expected[:used].float(), rtol=2**-7, atol=2**-6)
    assert (c[used:] == 7.0).all()


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
        code, launch = built(own, config), own.template.launch(config, Problem(m, n, k, operation))
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
            left, right = text[-2:]
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
