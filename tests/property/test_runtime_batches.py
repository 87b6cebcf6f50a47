"""torch.bmm and torch.baddbmm beside float64 while enabled, for matrices that are anywhere.

    HKTUNE_EXAMPLES=5000 pytest tests/property/test_runtime_batches.py

Of one table the kernels take the strides of a stack, of the other those of rows alone. Operands are integers, whose
sums have but one rounding.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from naive_gemm import published, reseal, trial

EXAMPLES = int(os.environ.get("HKTUNE_EXAMPLES", "60"))
M, N, K, COUNTS = 3, 16, 8, (1, 2, 3)
OPERATIONS = ("bf16.nt", "bf16.nn", "bf16.nn+residual")


def values(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-8, 9, shape, generator=generator).bfloat16()


STACKS: dict[str, Callable[[int, int, int], Tensor]] = {
    "contiguous": values,
    "transposed": lambda count, rows, columns: values(count, columns, rows).mT,
    "expanded": lambda count, rows, columns: values(1, rows, columns).expand(count, rows, columns),
    "rows left out": lambda count, rows, columns: values(count, rows + 8, columns)[:, :rows],
    "columns left out": lambda count, rows, columns: values(count, rows, columns + 8)[..., :columns],
    "transposed, rows left out": lambda count, rows, columns: values(count, columns, rows + 8)[..., :rows].mT,
    "heads": lambda count, rows, columns: values(rows, count, columns).transpose(0, 1),
    "heads, transposed": lambda count, rows, columns: values(columns, count, rows).permute(1, 2, 0),
    "every other matrix": lambda count, rows, columns: values(2 * count, rows, columns)[::2],
    "every other column": lambda count, rows, columns: values(count, rows, 2 * columns)[..., ::2],
    "one row": lambda count, rows, columns: values(count, 1, columns).expand(count, rows, columns),
    "one column": lambda count, rows, columns: values(count, rows, 1).expand(count, rows, columns),
    "not on 16 bytes": lambda count, rows, columns: values(count, rows, columns + 1)[..., 1:],
    "negated": lambda count, rows, columns: torch._neg_view(values(count, rows, columns)),
}
KINDS = st.sampled_from(sorted(STACKS))


def strides_of_rows_alone(text: str) -> str:
    """Kernels that take matrices which follow one another."""
    for name, elements in (("a", M * K), ("b", K * N)):
        constant = f'"of_{name}", "kind": "u64", "constant": {elements}'
        text = text.replace(f'"stride_{name}", "kind": "u64"', constant)
    return text


@pytest.fixture(scope="module", params=["stacks", "rows"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedTable]:
    folder = tmp_path_factory.mktemp("table")
    texts = [f"batched{count}.{text}" for count in COUNTS for text in OPERATIONS]
    published(folder, *(trial(Problem(M, N, K, operation_of(text))) for text in texts))
    if request.param == "rows":
        reseal(folder, strides_of_rows_alone)
    made = hktune.load(folder, allow_modelled=True)
    yield made
    assert made.stats().hits


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(COUNTS), KINDS, KINDS, KINDS, st.booleans())
def test_a_batch_is_rounded_once(table: LoadedTable, count: int, left: str, right: str, added: str, into: bool) -> None:
    a, b, c = STACKS[left](count, M, K), STACKS[right](count, K, N), STACKS[added](count, M, N)
    exact = a.double() @ b.double()
    out = torch.empty(count, M, N, dtype=torch.bfloat16) if into else None
    with hktune.enable(table):
        product, total = torch.bmm(a, b, out=out), torch.baddbmm(c, a, b)
    assert torch.equal(product, exact.bfloat16())
    assert torch.equal(total, (exact + c.double()).bfloat16())
