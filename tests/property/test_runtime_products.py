"""linear and matmul beside torch's, for operands of any type, shape, layout and wish for a gradient.

    HKTUNE_EXAMPLES=5000 pytest tests/property/test_runtime_products.py    # as in docs/reference/runtime.md

The table has bf16 and f16 kernels for every M, N and K drawn from `SERVED`, so that a good part of the calls run one.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable, operators

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from naive_gemm import published, trial
from torch_alike import Product, assert_alike

EXAMPLES = int(os.environ.get("HKTUNE_EXAMPLES", "200"))
SERVED = (1, 2, 8)
SIZES = st.one_of(st.sampled_from(SERVED), st.sampled_from(SERVED), st.integers(0, 9))
OPERATIONS = ("bf16.nt", "bf16.nt+bias", "f16.nt", "f16.nt+bias")
DTYPES = st.one_of(
    st.just(torch.bfloat16),
    st.just(torch.float16),
    st.sampled_from((torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int64)),
)

pytestmark = pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning", "ignore:ComplexHalf")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedTable]:
    folder = tmp_path_factory.mktemp("table")
    sizes = itertools.product((1, 2, 4, 8, 16), SERVED, SERVED, OPERATIONS)
    published(folder, *(trial(Problem(m, n, k, operation_of(text))) for m, n, k, text in sizes))
    made = hktune.load(folder, allow_modelled=True)
    yield made
    stats = made.stats()
    served = stats.hits + stats.near_hits
    assert served > (served + sum(stats.fallbacks.values())) / 20


@pytest.fixture(autouse=True)
def current(table: LoadedTable) -> None:
    operators.make_current(table)


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(-8, 9, shape, generator=generator)
    if dtype.is_complex:
        return torch.complex(whole.double(), whole.double().flip(0) if shape else whole.double()).to(dtype)
    return whole.to(dtype)


LAYOUTS: dict[str, Callable[[tuple[int, ...], torch.dtype, int], Tensor]] = {
    "contiguous": values,
    "transposed": lambda shape, dtype, seed: values(shape[::-1], dtype, seed).permute(*range(len(shape))[::-1]),
    "columns of a wider one": lambda shape, dtype, seed: values((*shape[:-1], shape[-1] + 8), dtype, seed)[
        ..., : shape[-1]
    ],
    "every other": lambda shape, dtype, seed: values((*shape[:-1], 2 * shape[-1]), dtype, seed)[..., ::2],
    "not on 16 bytes": lambda shape, dtype, seed: values((*shape[:-1], shape[-1] + 1), dtype, seed)[..., 1:],
    "expanded": lambda shape, dtype, seed: values((1, *shape[1:]), dtype, seed).expand(shape),
    "negated": lambda shape, dtype, seed: torch._neg_view(values(shape, dtype, seed)),
    "conjugated": lambda shape, dtype, seed: values(shape, dtype, seed).conj(),
}


@dataclass(frozen=True)
class Operand:
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    wants_gradient: bool
    seed: int

    def tensor(self) -> Tensor:
        made = LAYOUTS[self.layout if self.shape else "contiguous"](self.shape, self.dtype, self.seed)
        return made.requires_grad_(self.wants_gradient and (self.dtype.is_floating_point or self.dtype.is_complex))


@dataclass(frozen=True)
class Call:
    product: str
    operands: tuple[Operand, ...]
    context: str


@st.composite
def operand(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype, usual: str) -> Operand:
    own = draw(st.sampled_from((dtype,) * 15 + (torch.float32, torch.float16)))
    layout = draw(st.one_of(st.just(usual), st.just(usual), st.sampled_from(sorted(LAYOUTS))))
    return Operand(shape, own, layout, draw(st.booleans()), draw(st.integers(0, 99)))


@st.composite
def calls(draw: st.DrawFn) -> Call:
    dtype, n, k = draw(DTYPES), draw(SIZES), draw(SIZES)
    leading = tuple(draw(st.lists(SIZES, max_size=3)))
    left = draw(operand((*leading, k), dtype, "contiguous"))
    context = draw(st.sampled_from(sorted(CONTEXTS)))
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(k, n)] * 6 + [(k,), (2, k, n), (*leading[:1], k, n)]))
        return Call("matmul", (left, draw(operand(shape, dtype, "transposed"))), context)
    weight = draw(operand(draw(st.sampled_from([(n, k)] * 6 + [(k,)])), dtype, "contiguous"))
    biases = [None] * 4 + [(n,)] * 4 + [(1,), (1, n), (), (*leading, n)]
    bias = draw(st.sampled_from(biases))
    return Call(
        "linear", (left, weight, *([] if bias is None else [draw(operand(bias, dtype, "contiguous"))])), context
    )


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "alone": nullcontext,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "no gradients": torch.no_grad,
    "a function mode": lambda: torch.device("cpu"),
}
PRODUCTS: dict[str, tuple[Product, Product]] = {
    "linear": (hktune.linear, functional.linear),
    "matmul": (hktune.matmul, torch.matmul),
}


def within(context: str, product: Product) -> Product:
    def call(*operands: Tensor) -> Tensor:
        with CONTEXTS[context]():
            return product(*operands)

    return call


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls())
def test_a_product_is_torchs(call: Call) -> None:
    ours, theirs = PRODUCTS[call.product]
    operands = [each.tensor() for each in call.operands]
    for _ in range(3):  # the first call loads the kernel, the second is remembered, the third is known again
        assert_alike(within(call.context, ours), within(call.context, theirs), operands)


@settings(max_examples=max(EXAMPLES // 20, 1), deadline=None, suppress_health_check=list(HealthCheck))
@given(calls())
def test_a_compiled_product_is_torchs(call: Call) -> None:
    ours, theirs = PRODUCTS[call.product]
    operands = [each.tensor() for each in call.operands]
    if any(each.is_neg() or each.is_conj() for each in operands):
        return  # which torch's own compiler does not take
    torch._dynamo.reset()
    try:
        torch.compile(lambda *each: theirs(*each), fullgraph=True, backend="eager")(*operands)
    except Exception:  # what torch cannot compile is no question to ours
        return
    compiled = torch.compile(lambda *each: ours(*each), fullgraph=True, backend="aot_eager")
    assert_alike(within(call.context, compiled), within(call.context, theirs), operands)
