"""What serves a backward pass is found at the first one: later ones, whose gradients may be stored otherwise, go right.

The truth is torch's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from naive_gemm import LAYOUTS_SHA256, published, trial
from torch import Tensor
from torch.nn import functional
from torch_device import TorchDevice
from torch_operands import bf16

import hktune
from hktune.core.operation import Operation
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

SIZE = 16  # all products of a step have the same sizes, and differ in their layouts only
STORED: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda grad: grad,
    "columns": lambda grad: grad.t().contiguous().t(),
    "one value": lambda grad: grad[:1, :1].expand(SIZE, SIZE),
    "apart": lambda grad: torch.cat([grad, grad], 1)[:, :SIZE],
}
# The layouts in which a linear's dX = dY W and dW = dY^T X read a gradient that is stored so.
READ = {"rows": ("nn", "tn"), "columns": ("tn", "nn"), "one value": (), "apart": ("nn", "tn")}
Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: dict[str, tuple[Product, Product]] = {
    "linear": (hktune.linear, functional.linear),
    "matmul": (lambda x, weight: hktune.matmul(x, weight.t()), lambda x, weight: torch.matmul(x, weight.t())),
}


def loaded(directory: Path, layouts: tuple[str, ...], chosen: tuple[str, ...] = ()) -> LoadedTable:
    """A table of these layouts, in those `chosen` of which the vendor library won."""
    rows = [trial(Problem(SIZE, SIZE, SIZE, Operation("bf16", layout)), object_sha256=LAYOUTS_SHA256,
                  baseline_us=0.5 if layout in chosen else None) for layout in layouts]  # fmt: skip
    published(directory, *rows)
    return hktune.load(directory, allow_modelled=True, device=TorchDevice())


def step(product: Product, grad: Tensor) -> tuple[Tensor, ...]:
    x, weight = bf16(SIZE, SIZE).requires_grad_(), (bf16(SIZE, SIZE) + 1).requires_grad_()
    return torch.autograd.grad(product(x, weight), (x, weight), grad)


@pytest.mark.parametrize("layouts", [("nt",), ("nt", "nn"), ("nt", "tn"), ("nt", "nn", "tn")], ids="+".join)
@pytest.mark.parametrize(("ours", "theirs"), PRODUCTS.values(), ids=PRODUCTS.keys())
def test_gradients_in_any_storage_and_order(
    tmp_path: Path, layouts: tuple[str, ...], ours: Product, theirs: Product
) -> None:
    names = list(STORED)
    for first in range(len(names)):
        table = loaded(tmp_path / str(first), layouts)
        for name in names[first:] + names:
            grad = STORED[name](bf16(SIZE, SIZE) + 2)
            before = table.stats().hits
            for found, expected in zip(step(ours, grad), step(theirs, grad), strict=True):
                torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-4)
            assert table.stats().hits - before == 1 + sum(layout in layouts for layout in READ[name])


def test_a_product_that_the_vendor_won_is_counted_each_time(tmp_path: Path) -> None:
    table = loaded(tmp_path, ("nt", "nn", "tn"), chosen=("nn",))
    for _ in range(3):
        step(hktune.linear, bf16(SIZE, SIZE))
    assert table.stats().hits == 6
    assert table.stats().fallbacks == {"vendor chosen by the table": 3}
