"""PyTorch's own samples of matmul and linear, every dtype, forward and backward: ours gives what torch's gives.

The table has a kernel for every bfloat16 and float16 sample that one can serve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor
from torch.nn import functional
from torch_alike import Product, same

import hktune
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

pytest.importorskip("expecttest")  # which PyTorch's samples import
pytestmark = pytest.mark.filterwarnings("ignore")  # that module's own, and each fallback's

OPERATORS = ("matmul", "nn.functional.linear")
SERVED = {torch.bfloat16: Operation("bf16"), torch.float16: Operation("f16")}
DTYPES = (
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
PRODUCTS: dict[str, tuple[Product, Product]] = {
    "matmul": (hktune.matmul, torch.matmul),
    "nn.functional.linear": (hktune.linear, functional.linear),
}


def samples(name: str, dtype: torch.dtype, wants_gradients: bool) -> list[tuple[Tensor, ...]]:
    from torch.testing._internal.common_methods_invocations import op_db

    (op,) = (op for op in op_db if op.name == name)
    found = op.sample_inputs("cpu", dtype, requires_grad=wants_gradients)
    return [(sample.input, *sample.args, *sample.kwargs.values()) for sample in found]


def transposed(operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same a and b, with b lying as kernels read it."""
    a, b = operands
    if b.dim() != 2:
        return operands
    return a, b.detach().t().contiguous().t().requires_grad_(b.requires_grad)


def problems() -> Iterator[Problem]:
    """Of the samples of those dtypes that are served."""
    for dtype, bare in SERVED.items():
        for x, weight, *bias in samples("nn.functional.linear", dtype, False):
            if weight.dim() == 2 and min(*x.shape, *weight.shape):
                n, k = weight.shape
                yield Problem(math.prod(x.shape[:-1]), n, k, bare.with_steps("bias") if bias else bare)
        for a, b in samples("matmul", dtype, False):
            if b.dim() == 2 and min(*a.shape, *b.shape):
                yield Problem(math.prod(a.shape[:-1]), b.shape[1], b.shape[0], bare)


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, *map(trial, sorted(set(problems()))))
    return hktune.load(tmp_path, allow_modelled=True)


def gradients(out: Tensor, operands: tuple[Tensor, ...]) -> tuple[Any, ...]:
    wanted = [each for each in operands if each.requires_grad]
    slope = torch.ones_like(out) * torch.arange(out.numel()).reshape(out.shape).remainder(3)
    return torch.autograd.grad(out, wanted, slope)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", OPERATORS)
def test_samples(table: LoadedTable, name: str, dtype: torch.dtype) -> None:
    ours, theirs = PRODUCTS[name]
    differentiable = dtype.is_floating_point or dtype.is_complex
    found = samples(name, dtype, differentiable)
    found += [transposed(each) for each in found] if name == "matmul" else []
    assert len(found) == {"matmul": 2 * 15, "nn.functional.linear": 18}[name]
    for operands in found:
        with torch.no_grad():
            same(ours(*operands), theirs(*operands))
        if differentiable:
            mine, torchs = ours(*operands), theirs(*operands)
            same(mine.detach(), torchs.detach())
            for slope, expected in zip(gradients(mine, operands), gradients(torchs, operands), strict=True):
                same(slope, expected)
    assert bool(table.stats().hits) == (dtype in SERVED)
