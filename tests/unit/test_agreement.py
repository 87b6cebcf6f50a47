"""What is said of outputs on the operands that are timed. The truth is torch's own product in float64."""

from __future__ import annotations

import pytest
import torch

from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.measure.agreement import disagreement, mistake

M, N, K = 6, 50, 768


def operands(text: str) -> tuple[Problem, dict[str, torch.Tensor], torch.Tensor]:
    """Standard normal inputs, the c that rounds their float64 product once, and what c held before."""
    problem = Problem(M, N, K, operation_of(text))
    dtype, layout = getattr(torch, problem.operation.a_dtype.torch_name), problem.operation.layout
    random = torch.Generator().manual_seed(5)
    a, b = (torch.randn(shape, generator=random).to(dtype) for shape in ((M, K), (K, N)))
    found = {"a": a if layout[0] == "n" else a.T.contiguous(), "b": b if layout[1] == "n" else b.T.contiguous()}
    product = a.double() @ b.double()
    if problem.operation.has_bias:
        found["bias"] = torch.randn(N, generator=random).to(dtype)
        product += found["bias"].double()
    before = torch.randn((M, N), generator=random).to(dtype)
    if problem.operation.accumulates:
        product += before.double()
    return problem, {**found, "c": product.float().to(dtype)}, before


@pytest.mark.parametrize("text", ["bf16.nt", "f16.nt+bias", "bf16.nn", "f16.tn+bias", "bf16.tn+accumulate"])
def test_a_right_product_has_no_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, found, before = operands(text)
    assert mistake(problem, found, before) is None
    monkeypatch.setattr("hktune.measure.agreement.EXACT_ELEMENTS", 2 * N)
    assert mistake(problem, found, before) is None, "two rows at a time"
    found["c"][4, 7] = found["c"][4, 7] * 1.25 + 1
    wrong = mistake(problem, found, before)
    assert wrong is not None
    assert (wrong.wrong, wrong.first) == (1, (4, 7))


def test_a_vendor_that_adds_parts_in_bf16_does_not_make_a_right_kernel_wrong() -> None:
    """As cuBLAS may do with a split K: what it gives is further off than any right kernel may be."""
    problem, found, before = operands("bf16.nt")
    a, b = found["a"].float(), found["b"].float()
    parts = [(a[:, at : at + 96] @ b[:, at : at + 96].T).bfloat16() for at in range(0, K, 96)]
    vendor = torch.stack(parts).sum(0, dtype=torch.bfloat16)
    assert disagreement(found["c"], vendor, K, problem.operation.c_dtype) is not None
    assert mistake(problem, found, before) is None
    assert mistake(problem, {**found, "c": vendor}, before) is not None
