"""The gfx950 GEMM's activations on every number that a sum may be, against torch in float64; and their resources."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pytest
import torch
from activation_truths import DTYPES, SPECIAL, check_activated, every_number, special_activated
from gemm_bf16_variants import compiled, model, space

from hktune.core.config import Config
from hktune.core.errors import InputError
from hktune.core.operation import ACTIVATIONS, Operation, operation_of
from hktune.core.problem import Problem
from hktune.core.shipped import KERNELS
from hktune.core.variant import CodeObject
from hktune.device.emulated import EmulatedDevice
from hktune.template import load_template

ROWS = 64
SMALL = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}


@lru_cache
def built(config: Config, operation: Operation) -> CodeObject:
    return compiled(space().for_operation(operation).template.render(config))


def made_of(sums: torch.Tensor, bias: torch.Tensor | None, activation: str) -> torch.Tensor:
    """What the kernel makes of `sums` [ROWS, N], which are the product of the identity and themselves."""
    dtype = next(name for name, each in DTYPES.items() if each is sums.dtype)
    steps = (*([] if bias is None else ["bias"]), activation)
    problem = Problem(ROWS, sums.shape[1], ROWS, Operation(dtype, epilogue=steps))
    config, device = space().config(SMALL), EmulatedDevice(find_hazards=True)
    launch = space().for_operation(problem.operation).template.launch(config, problem)
    tensors = {"a": torch.eye(ROWS, dtype=sums.dtype), "b": sums.t().contiguous(), "c": torch.empty_like(sums)}
    if bias is not None:
        tensors["bias"] = bias
    buffers = {name: device.allocate(tensor.nbytes) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        device.write(buffers[name], tensor.view(torch.int16).numpy())
    numbers = {"m": ROWS, "n": problem.n, "k": ROWS, "lda": ROWS, "ldb": ROWS, "ldc": problem.n}
    code = built(config, problem.operation.code)
    device.launch(device.load(code.data, code.symbol), launch, {"bias": None, "workspace": None, **buffers, **numbers})
    bits = np.empty(tuple(sums.shape), np.int16)
    device.read(buffers["c"], bits)
    return torch.from_numpy(bits).view(sums.dtype)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_of_every_number_is_the_one_rounding_or_next_to_it(activation: str, dtype: torch.dtype) -> None:
    """Nearly all are the one rounding of torch's float64 function. Where it is near to halfway between two numbers, the
    other one may come out; far below 0, where gelu is next to nothing, it is as exact as torch's own."""
    sums = every_number(dtype, ROWS)
    check_activated(made_of(sums, None, activation), sums, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_no_number_or_beyond_all_is_as_in_torch(activation: str) -> None:
    """Sums that the bias makes: with 8 columns for each."""
    bias = SPECIAL.repeat_interleave(8).bfloat16()
    got = made_of(torch.zeros(ROWS, len(bias), dtype=torch.bfloat16), bias, activation)
    expected = special_activated(activation).repeat_interleave(8).bfloat16().expand_as(got)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@lru_cache
def largest() -> list[Config]:
    """The configs of a draw that need most registers, one for each number of warps."""
    draw = random.Random(7)
    found: dict[int, Config] = {}
    for _ in range(100):
        config = space().sample(draw)
        warps = model(config)["warps"]
        if warps not in found or model(found[warps])["vgprs"] < model(config)["vgprs"]:
            found[warps] = config
    return [found[warps] for warps in sorted(found) if warps in (4, 8)]


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_an_activation_takes_no_registers_beyond_the_budget(activation: str) -> None:
    """It comes after the main loop, whose fragments need no registers by then."""
    for config in largest():
        used = built(config, operation_of(f"bf16.nt+{activation}")).resources
        assert (used.spills, used.scratch_bytes, used.agprs) == (0, 0, 0), config
        assert used.vgprs <= model(config)["vgpr_budget"], config


@pytest.mark.parametrize(
    ("text", "nearest"), [("bf16.tn+gelu", "bf16.tn, bf16.tn+bias,"), ("f16.tt+bias+silu", "f16.tt+bias, f16.tt,")]
)
def test_a_template_refuses_other_layouts_in_one_line(text: str, nearest: str) -> None:
    template = load_template(KERNELS / "sm90a" / "gemm_bf16")
    with pytest.raises(InputError) as refused:
        template.for_operation(operation_of(text))
    assert str(refused.value).startswith(f"sm90a/gemm_bf16 cannot do {text}: it does {nearest}")
    assert str(refused.value).endswith(f" and {len(template.operations) - 6} more")
    assert "\n" not in str(refused.value)
