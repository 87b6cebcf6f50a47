"""torch's grouped products as candidates are compared with them, and what is behind. The truth is float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from simulated_gpu import torch_without_cuda
from torch import Tensor
from torch.nn import functional

from hktune.core.errors import DeviceError
from hktune.core.operand import operands_of
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.measure.arena import OperandSet
from hktune.measure.baseline import TorchBaseline

ENDS = [5, 5, 20, 24]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with torch_without_cuda(monkeypatch):
        yield


def drawn(problem: Problem, seed: int) -> OperandSet:
    random = torch.Generator().manual_seed(seed)
    found = {
        name: torch.randn(each.shape(problem.sizes), generator=random).to(getattr(torch, each.dtype.torch_name))
        for name, each in operands_of(problem.operation).items()
    }
    return {**found, "offsets": torch.tensor(ENDS, dtype=torch.int32)}


def exact(problem: Problem, given: OperandSet) -> Tensor:
    """Group by group."""
    operation, groups = problem.operation, []
    for group, (first, end) in enumerate(itertools.pairwise([0, *ENDS])):
        if operation.layout == "tn":
            groups.append(given["a"][first:end].double().T @ given["b"][first:end].double())
            continue
        b = given["b"][group].double()
        own = given["a"][first:end].double() @ (b.T if operation.layout == "nt" else b)
        if operation.scales:
            own = own * given["scale_a"][first:end, None].double() * given["scale_b"][group].double()
        groups.append(own + (given["bias"][group].double() if operation.has_bias else 0.0))
    if operation.layout == "tn":
        return torch.stack(groups)
    product = torch.cat(groups)
    gate, up = product, None
    if operation.is_gated:
        gate, up = (product[:, ::2], product[:, 1::2]) if "interleaved" in str(operation) else product.chunk(2, 1)
    for activation in operation.activations:
        gate = getattr(functional, activation)(gate)
    return gate if up is None else gate * up


TEXTS = [
    *("grouped4.bf16.nt", "grouped4.bf16.nn", "grouped4.bf16.tn", "grouped4.bf16.nt+bias", "grouped4.bf16.nn+gelu"),
    *("grouped4.bf16.nt+silu+gated", "grouped4.bf16.nn+gelu+gated", "grouped4.bf16.nt+silu+gated_interleaved"),
    *("grouped4.bf16.nt+gated", "grouped4.bf16.nt+bias+silu+gated"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_each_group_has_its_own_product_and_what_is_behind(text: str) -> None:
    problem = Problem(24, 40, 64, operation_of(text)) if ".tn" not in text else Problem(64, 40, 24, operation_of(text))
    first, second = drawn(problem, 1), drawn(problem, 2)
    enqueue = TorchBaseline("cublas").prepare(problem, first, 1)
    for each in (second, first):
        each["c"].fill_(float("nan"))
        enqueue(each)
        # Each kernel behind another rounds to bfloat16: products of gates have a size of 64 and more.
        torch.testing.assert_close(each["c"].double(), exact(problem, each), rtol=2.0**-6, atol=0.25)


def test_gradients_are_added_to_what_is_there() -> None:
    problem = Problem(64, 40, 24, operation_of("grouped4.bf16.tn->f32+accumulate"))
    given = drawn(problem, 1)
    enqueue = TorchBaseline("cublas").prepare(problem, given, 1)
    before = given["c"].clone()
    enqueue(given)
    expected = before.double() + exact(problem, given)
    torch.testing.assert_close(given["c"].double(), expected, rtol=2.0**-8, atol=2.0**-5)


SCALED = ["->bf16", ".fast->bf16", "->f32", "->bf16+silu+gated", ".fast->bf16+gelu", "->bf16+bias"]


@pytest.mark.parametrize("text", SCALED)
def test_float8_is_asked_of_torchs_function_for_gpus(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A CPU has none: what stands for it takes what torch's takes, and computes in float64."""
    problem = Problem(24, 48, 64, operation_of(f"grouped4.e4m3.nt.rows{text}"))
    asked: list[dict[str, Any]] = []

    def by_torch(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, offs: Tensor, **how: Any) -> Tensor:
        asked.append(how)
        assert a.is_contiguous()
        assert b.mT.is_contiguous()
        ranges = enumerate(itertools.pairwise([0, *offs.tolist()]))
        wide = [a[first:end].double() @ b[group].double() * scale_b[group] for group, (first, end) in ranges]
        return (torch.cat(wide) * scale_a[:, None]).to(how["out_dtype"])

    monkeypatch.setattr(torch, "_scaled_grouped_mm", by_torch)
    given = drawn(problem, 1)
    enqueue = TorchBaseline("cublas").prepare(problem, given, 1)
    given["c"].fill_(float("nan"))
    enqueue(given)
    torch.testing.assert_close(given["c"].double(), exact(problem, given), rtol=2.0**-6, atol=0.25)
    assert all(how == {"out_dtype": torch.bfloat16, "use_fast_accum": ".fast" in text} for how in asked)


@pytest.mark.parametrize("text", ["grouped4.i8.nt.rows->bf16", "grouped4.e4m3.nt.rows->bf16"])
def test_what_torch_has_no_product_for_is_refused_in_a_line(text: str) -> None:
    problem = Problem(24, 48, 64, operation_of(text))
    given = drawn(problem, 1)
    with pytest.raises(DeviceError, match=rf"^torch .*has no {text}: [^\n]+$"):
        TorchBaseline("cublas").prepare(problem, given, 1)
