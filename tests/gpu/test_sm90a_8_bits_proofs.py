"""The sm90a GEMM of numbers of 8 bits on a real GPU: every element against float64 of the very operands."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from hktune.compile.nvrtc import NvrtcCompiler
from hktune.core.config import Config
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.variant import CodeObject
from hktune.device.cuda import CudaDevice
from hktune.device.cuda_launch import LoadedKernel
from hktune.measure.scaled_baseline import multiply_scaled
from hktune.space.search_space import SearchSpace, load_space
from hktune.verify import Proof
from hktune.verify.on_device import verify_on_device

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    *("e4m3.nt.rows->bf16", "e4m3.nt.rows.fast->bf16", "e4m3.nt.tensor->f32", "e4m3.nt.tensor.fast->f16"),
    *("e4m3.nt.blocks->bf16", "e5m2*e4m3.nt.tensor->f32", "e4m3*e5m2.nt.rows.fast->bf16"),
    *("i8.nt->i32", "i8.nt.rows->bf16", "i8.nt.tensor->f32"),
]
SIZES = [(1, 8, 16), (7, 4096, 512), (133, 200, 144), (513, 1536, 1040), (16, 64, 4096)]
RANDOM = 2  # configs of each operation


@lru_cache
def space(operation: Operation) -> SearchSpace:
    return load_space(ROOT / "search_spaces" / "sm90a_gemm_bf16.yaml").for_operation(operation)


def loaded(device: CudaDevice, config: Config, operation: Operation) -> LoadedKernel:
    code = NvrtcCompiler().compile(space(operation).template.render(config), 120.0)
    assert isinstance(code, CodeObject), code
    return device.load(code.data, code.symbol)


@pytest.mark.parametrize("text", TEXTS)
def test_every_element_is_right(hopper: CudaDevice, text: str) -> None:
    operation = operation_of(text)
    own, draw = space(operation), random.Random(text)
    for config in [*own.seeds[:2], *(own.sample(draw) for _ in range(RANDOM))]:
        kernel, template = loaded(hopper, config, operation), own.template
        ragged = [template.own_proof(Problem(*sizes, operation)) for sizes in SIZES]
        for what in [*template.proof_problems(config), *ragged]:
            if own.is_legal(config, what.problem):
                launch = template.launch(config, what.problem)
                proof = verify_on_device(hopper, kernel, launch, what, 1)
                assert isinstance(proof, Proof), f"{what}, {dict(config)}: {proof}"


@pytest.mark.parametrize("text", [text for text in TEXTS if text != "e4m3.nt.blocks->bf16" and ".rows->f" not in text])
def test_torchs_own_product_is_right_by_the_same_rules(hopper: CudaDevice, text: str) -> None:
    """It is what candidates are compared with."""
    from hktune.measure.agreement import mistake
    from hktune.measure.arena import Arena

    problem = Problem(64, 256, 512, operation_of(text))
    [operands] = Arena([problem], "warm", 1 << 20, 0).sets(problem)
    if operands["a"].dtype == torch.int8:
        operands["a"].random_(-100, 100)
    multiply_scaled(problem.operation, operands)
    sums = space(problem.operation).template.own_proof(problem).sums
    assert mistake(problem, operands, operands["c"].clone(), sums) is None


def test_a_nan_scale_is_of_its_row_alone(hopper: CudaDevice) -> None:
    problem = Problem(32, 64, 128, operation_of("e4m3.nt.rows->f32"))
    own = space(problem.operation)
    config = own.seeds[0]
    kernel, launch = loaded(hopper, config, problem.operation), own.template.launch(config, problem)
    one = torch.ones(64, 128, device="cuda").to(torch.float8_e4m3fn)
    scale_a, scale_b = torch.ones(32, device="cuda"), torch.full((64,), 2.0, device="cuda")
    scale_a[5] = float("nan")
    tensors = {"a": one[:32], "b": one, "scale_a": scale_a, "scale_b": scale_b, "c": torch.zeros(32, 64, device="cuda")}
    torch.cuda.synchronize()
    buffers = {name: hopper.borrow(tensor) for name, tensor in tensors.items()}
    hopper.launch(kernel, launch, launch.bound({**problem.numbers(), **buffers}))
    hopper.synchronize()
    c = tensors["c"].cpu().numpy()
    assert np.isnan(c[5]).all()
    assert (np.delete(c, 5, axis=0) == 256.0).all()


def test_scales_of_blocks_may_come_column_by_column(hopper: CudaDevice) -> None:
    problem = Problem(200, 384, 656, operation_of("e4m3.nt.blocks->f32"))
    own, (m, n, k) = space(problem.operation), (200, 384, 656)
    draw = torch.Generator("cuda").manual_seed(0)
    a, b = (torch.randn(rows, k, device="cuda", generator=draw).to(torch.float8_e4m3fn) for rows in (m, n))
    scale_a, scale_b = (torch.rand(rows, 6, device="cuda", generator=draw) + 0.5 for rows in (m, 3))
    of_k, of_n = torch.arange(k, device="cuda") // 128, torch.arange(n, device="cuda") // 128
    exact = (a.double() * scale_a[:, of_k]) @ (b.double() * scale_b[of_n][:, of_k]).t()
    for config in own.seeds:
        kernel, launch = loaded(hopper, config, problem.operation), own.template.launch(config, problem)
        found = []
        for stored, strides in ((scale_a, (6, 1)), (scale_a.t().contiguous(), (1, m))):
            c = torch.full((m, n), torch.nan, device="cuda")
            tensors = {"a": a, "b": b, "scale_a": stored, "scale_b": scale_b, "c": c}
            torch.cuda.synchronize()
            buffers = {name: hopper.borrow(tensor) for name, tensor in tensors.items()}
            numbers = {**problem.numbers(), "ldscale_a": strides[0], "incscale_a": strides[1]}
            hopper.launch(kernel, launch, launch.bound({**numbers, **buffers}))
            hopper.synchronize()
            found.append(c)
        assert torch.equal(*found), dict(config)
        torch.testing.assert_close(found[0].double(), exact, rtol=2.0**-10, atol=0.05)
