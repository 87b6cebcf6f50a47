"""The sm90a GEMM's epilogues on a real GPU: proofs, and every number that a sum may be."""

from __future__ import annotations

import pytest
import torch
from activation_truths import DTYPES, SPECIAL, check_activated, every_number, special_activated
from test_sm90a_gemm_bf16_proofs import built, configs, label, space

from hktune.core.config import Config
from hktune.core.operation import ACTIVATIONS, Operation, operation_of
from hktune.core.problem import Problem, ProofProblem
from hktune.device.cuda import CudaDevice
from hktune.verify import Proof
from hktune.verify.on_device import verify_on_device

ROWS = 64
OPERATIONS = [
    *(operation_of(f"{dtype}+{each}") for each in ACTIVATIONS for dtype in ("bf16.nt", "f16.nn")),
    *map(operation_of, ("bf16.nt+residual", "f16.nn+bias+residual", "bf16.nt+silu+gated", "f16.nn+bias+gelu+gated")),
    *map(
        operation_of,
        ("bf16.nt+bias+silu+gated+residual", "f16.nn->f32+gelu+residual", "bf16.nn->f32+relu+gated+residual"),
    ),
]
RAGGED = [(1, 8, 8), (133, 200, 72), (513, 1536, 1048), (16, 64, 4096)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("config", configs(), ids=label)
def test_every_element_is_right(hopper: CudaDevice, config: Config, operation: Operation) -> None:
    of_operation = space().for_operation(operation.code)
    if not of_operation.is_legal(config):
        pytest.skip("no config of this operation")
    template, code = of_operation.template, built(of_operation.template, config)
    kernel = hopper.load(code.data, code.symbol)
    ragged = [ProofProblem(Problem(*sizes, operation), exact_sums=True) for sizes in RAGGED]
    for what in [*template.proof_problems(config), *ragged]:
        if of_operation.is_legal(config, what.problem):
            proof = verify_on_device(hopper, kernel, template.launch(config, what.problem), what, 1)
            assert isinstance(proof, Proof), f"{what}: {proof}"


def made_of(device: CudaDevice, config: Config, sums: torch.Tensor, activation: str, bias: bool) -> torch.Tensor:
    """What a kernel makes of `sums` [ROWS, N]: the product of the identity and themselves, or the bias alone."""
    dtype = next(name for name, each in DTYPES.items() if each is sums.dtype)
    steps = ("bias", activation) if bias else (activation,)
    problem = Problem(ROWS, sums.shape[1], ROWS, Operation(dtype, epilogue=steps))
    template = space().for_operation(problem.operation.code).template
    code = built(template, config)
    factors = torch.zeros_like(sums) if bias else sums
    tensors = {"a": torch.eye(ROWS, dtype=sums.dtype), "b": factors.t().contiguous(), "c": torch.empty_like(sums)}
    if bias:
        tensors["bias"] = sums[0]
    there = {name: tensor.cuda() for name, tensor in tensors.items()}
    torch.cuda.synchronize()
    buffers = {name: device.borrow(tensor) for name, tensor in there.items()}
    launch = template.launch(config, problem)
    device.launch(
        device.load(code.data, code.symbol), launch, launch.bound({"bias": None, **problem.numbers(), **buffers})
    )
    device.synchronize()
    return there["c"].cpu()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_of_every_number_is_the_one_rounding_or_next_to_it(
    hopper: CudaDevice, activation: str, dtype: torch.dtype
) -> None:
    sums = every_number(dtype, ROWS)
    for config in (space().config({}), space().config({"store": "direct"})):
        check_activated(made_of(hopper, config, sums, activation, bias=False), sums, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_no_number_or_beyond_all_is_as_in_torch(hopper: CudaDevice, activation: str) -> None:
    bias = SPECIAL.repeat_interleave(8).bfloat16().expand(ROWS, -1)
    expected = special_activated(activation).repeat_interleave(8).bfloat16().expand(ROWS, -1)
    got = made_of(hopper, space().config({}), bias, activation, bias=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
