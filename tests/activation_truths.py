"""What activations make of every number that a sum may be, by torch in float64: the truth of the kernels of any GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
SPECIAL = torch.tensor([float("inf"), -float("inf"), float("nan"), 3e38, -3e38, -0.0, 1e30, -1e30])
"""Numbers of float32 and bf16 at whose activations formulas fail."""


def every_number(dtype: torch.dtype, rows: int) -> torch.Tensor:
    """All finite numbers of `dtype` but subnormal ones, as [rows, a multiple of 8]."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    usual = numbers[numbers.isfinite() & ((numbers == 0) | (numbers.float().abs() >= torch.finfo(dtype).tiny))]
    return torch.cat([usual, usual[: -len(usual) % (8 * rows)]]).reshape(rows, -1)


def special_activated(activation: str) -> torch.Tensor:
    """What a kernel makes of SPECIAL: what torch does, but for gelu at -infinity, whose limit is 0 and torch's no
    number."""
    # One by one: torch's vectors have gelu(inf) = nan, its scalars inf.
    expected = torch.stack([TORCH[activation](x) for x in SPECIAL])
    return expected.where(SPECIAL.isneginf().logical_not(), 0.0) if activation == "gelu" else expected


def check_activated(got: torch.Tensor, sums: torch.Tensor, activation: str) -> None:
    """Asserts that nearly all are the one rounding of torch's float64 function of `sums`. Where it is near to halfway
    between two numbers, the other one may come out; far below 0, where gelu is next to nothing, it is as exact as
    torch's own."""
    dtype, expected = sums.dtype, TORCH[activation](sums.double()).to(sums.dtype)
    assert got.isfinite().all()
    apart = _steps_apart(got, expected)
    tail = (sums < -6) & (activation != "relu")
    assert apart[~tail].max() <= (activation != "relu")
    assert (apart > 0).double().mean() < 0.02
    smallest = 1e-12 if dtype is torch.bfloat16 else 2.0**-24
    torch.testing.assert_close(got[tail], expected[tail], rtol=0.02, atol=smallest)
    torch.testing.assert_close(got[tail], TORCH[activation](sums.float()[tail]).to(dtype), rtol=0.02, atol=4e-6)


def _steps_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many numbers of their format lie between two, and one."""
    ordered = [bits.where(bits >= 0, -(bits & 0x7FFF)) for bits in (x.view(torch.int16).int() for x in (one, other))]
    return (ordered[0] - ordered[1]).abs()
