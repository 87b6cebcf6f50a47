"""torch's products of integers, as candidates are compared with them: where A has more rows than C."""

from __future__ import annotations

import pytest
import torch

from hktune.core.operation import operation_of
from hktune.core.torch_limits import INT_MM_ROWS_FEW
from hktune.measure.scaled_baseline import multiply_scaled


@pytest.mark.parametrize("text", ["i8.nt->i32", "i8.nt.rows->bf16", "i8.nt.tensor->f32+bias"])
@pytest.mark.parametrize("more", [0, INT_MM_ROWS_FEW])
def test_rows_that_c_has_not_are_left_out(text: str, more: int) -> None:
    operation, (m, n, k) = operation_of(text), (5, 24, 64)
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-128, 128, (rows, k), generator=draw, dtype=torch.int8) for rows in (m + more, n))
    dtype = getattr(torch, operation.c_dtype.torch_name)
    scales = [torch.rand(size if operation.scales == "rows" else 1, generator=draw) for size in (m, n)]
    operands = {"a": a, "b": b, "c": torch.empty(m, n, dtype=dtype), "bias": torch.arange(n).to(dtype)}
    multiply_scaled(operation, {**operands, "scale_a": scales[0], "scale_b": scales[1]})
    exact = a[:m].double() @ b.double().t()
    if operation.scales:
        exact = exact * (scales[0][:, None] if operation.scales == "rows" else scales[0]) * scales[1]
    exact = exact + (operands["bias"].double() if operation.has_bias else 0)
    torch.testing.assert_close(operands["c"].double(), exact, rtol=2.0**-7, atol=1e-3)
