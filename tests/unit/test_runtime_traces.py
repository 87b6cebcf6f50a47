"""Graphs of hktune's calls: what torch's tracers and transforms make of them, and who reads them later."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torch_operands import bf16

import hktune
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import LoadedTable

M, N, K = 4, 64, 32
Product = Callable[[Tensor, Tensor], Tensor]
pytestmark = [
    pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


def products(x: Tensor, weight: Tensor) -> Tensor:
    return hktune.linear(x, weight) + hktune.matmul(x, weight.T)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected.float(), rtol=2**-6, atol=2**-5)


def aot(function: Callable[..., Tensor], *operands: Tensor) -> Callable[..., Tensor]:
    from functorch.compile import aot_function, nop

    return aot_function(function, fw_compiler=nop)  # type: ignore[no-any-return]


class Module(nn.Module):
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return products(x, weight)


def exported(strict: bool) -> Callable[..., Callable[..., Tensor]]:
    def trace(function: Any, *operands: Tensor) -> Callable[..., Tensor]:
        return torch.export.export(Module(), operands, strict=strict).module()

    return trace


TRACERS: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "make_fx": lambda function, *operands: make_fx(function)(*operands),
    "make_fx of fakes": lambda function, *operands: make_fx(function, tracing_mode="fake")(*operands),
    "make_fx with symbols": lambda function, *operands: make_fx(function, tracing_mode="symbolic")(*operands),
    "make_fx before dispatch": lambda function, *operands: make_fx(function, pre_dispatch=True)(*operands),
    "aot_function": aot,
    "export, strict": exported(True),
    "export": exported(False),
    "fx": lambda function, *operands: torch.fx.symbolic_trace(Module()),
    "compile": lambda function, *operands: torch.compile(function, fullgraph=True, backend="aot_eager"),
}


@pytest.mark.parametrize("trace", TRACERS.values(), ids=TRACERS.keys())
def test_a_graph_is_served_by_the_table_that_is_current_when_it_runs(
    trace: Callable[..., Callable[..., Tensor]], tmp_path: Path
) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    graph = trace(products, x, weight)
    graph(x, weight)
    second = hktune.load(tmp_path, allow_modelled=True)
    close(graph(x, 2 * weight), 4 * functional.linear(x, weight))
    assert second.stats().hits == 2
    torch._dynamo.reset()


@pytest.mark.parametrize("trace", TRACERS.values(), ids=TRACERS.keys())
def test_a_graph_of_another_type_is_torchs_with_torchs_gradient(trace: Callable[..., Callable[..., Tensor]]) -> None:
    x, weight = bf16(M, K).cfloat() * (1 + 2j), bf16(N, K).cfloat() * (2 - 1j)
    graph = trace(products, x, weight)
    found, expected = [each.detach().requires_grad_() for each in (x, weight)], (x, weight)
    theirs = [each.detach().requires_grad_() for each in expected]
    graph(*found).abs().sum().backward()
    (functional.linear(*theirs) + torch.matmul(theirs[0], theirs[1].T)).abs().sum().backward()
    for mine, torchs in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine.grad, torchs.grad)
    torch._dynamo.reset()


KEPT = {name: trace for name, trace in TRACERS.items() if name.startswith(("make_fx", "export"))}


def own_exported(table: LoadedTable, strict: bool) -> torch.export.ExportedProgram:
    class Own(nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            return table.linear(x, weight) + table.matmul(x, weight.T)

    return torch.export.export(Own(), (bf16(M, K), bf16(N, K)), strict=strict)


@pytest.mark.parametrize("name", KEPT)
def test_a_graph_of_a_tables_own_methods_outlives_the_table(name: str, tmp_path: Path) -> None:
    x, weight = bf16(M, K), bf16(N, K)

    def traced() -> tuple[weakref.ref[LoadedTable], Callable[..., Tensor]]:
        first = hktune.load(tmp_path, allow_modelled=True)
        if name.startswith("export"):
            return weakref.ref(first), own_exported(first, name.endswith("strict")).module()
        return weakref.ref(first), KEPT[name](
            lambda x, weight: first.linear(x, weight) + first.matmul(x, weight.T), x, weight
        )

    first, graph = traced()
    second = hktune.load(tmp_path, allow_modelled=True)
    gc.collect()
    assert first() is None or name.startswith("export")  # its module may keep it
    close(graph(x, 2 * weight), 4 * functional.linear(x, weight))
    assert second.stats().hits == 2


def test_a_compiled_graph_of_a_tables_own_method_stays_that_tables(table: LoadedTable, tmp_path: Path) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    compiled = torch.compile(lambda x, weight: table.linear(x, weight) + 1, fullgraph=True, backend="aot_eager")
    other = hktune.load(tmp_path, allow_modelled=True)
    for _ in range(2):
        close(compiled(x, weight), functional.linear(x, weight) + 1)
    assert (table.stats().hits, other.stats().hits) == (2, 0)
    with FlopCounterMode(display=False):
        table.linear(x, weight)
    assert (table.stats().hits, other.stats().hits) == (3, 0)
    torch._dynamo.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_a_saved_program_of_a_tables_own_methods_runs_by_the_current_one(
    table: LoadedTable, tmp_path: Path, strict: bool
) -> None:
    torch.export.save(own_exported(table, strict), tmp_path / "program.pt2")
    code = f"""
import torch, hktune
first, second = (hktune.load({str(tmp_path)!r}, allow_modelled=True) for _ in range(2))
x, weight = torch.ones({M}, {K}).bfloat16(), torch.ones({N}, {K}).bfloat16()
out = torch.export.load({str(tmp_path / "program.pt2")!r}).module()(x, weight)
print(out.unique().tolist(), first.stats().hits, second.stats().hits)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"[{2.0 * K}] 0 2"


def rows_of_weight(linear: Any, matmul: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return linear(x, weight[mask])  # type: ignore[no-any-return]


def rows_of_both(linear: Any, matmul: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    kept = mask.nonzero().squeeze(1)
    return linear(x, weight[kept], bias[kept])  # type: ignore[no-any-return]


def columns(linear: Any, matmul: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return matmul(x, weight.T.contiguous()[:, mask])  # type: ignore[no-any-return]


def transposed_rows(linear: Any, matmul: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return matmul(x, weight[mask].T)  # type: ignore[no-any-return]


def rows_of_x(linear: Any, matmul: Any, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return linear(x.expand(N, M, K)[mask].flatten(0, 1), weight, bias)  # type: ignore[no-any-return]


CHOSEN = (rows_of_weight, rows_of_both, columns, transposed_rows, rows_of_x)


@pytest.mark.parametrize("way", ["compile", "export", "export, strict"])
@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: chosen.__name__)
def test_sizes_that_only_the_run_tells_need_no_guard(chosen: Callable[..., Tensor], way: str) -> None:
    class Chosen(nn.Module):
        def forward(self, *operands: Tensor) -> Tensor:
            return chosen(hktune.linear, hktune.matmul, *operands)

    operands = (bf16(M, K), bf16(N, K), bf16(N), torch.arange(N) % 3 == 0)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):  # type: ignore[attr-defined]
        if way == "compile":
            run = torch.compile(Chosen(), backend="aot_eager", fullgraph=True)
        else:
            run = torch.export.export(Chosen(), operands, strict=way.endswith("strict")).module()
        for step in (3, 2):
            again = (*operands[:3], torch.arange(N) % step == 0)
            close(run(*again), chosen(functional.linear, torch.matmul, *again))
    torch._dynamo.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_a_saved_program_runs_in_a_process_that_loads_a_table(tmp_path: Path, strict: bool) -> None:
    program = torch.export.export(Module(), (bf16(M, K), bf16(N, K)), strict=strict)
    torch.export.save(program, tmp_path / "program.pt2")
    code = f"""
import torch, hktune
hktune.load({str(tmp_path)!r}, allow_modelled=True)
x, weight = torch.ones({M}, {K}).bfloat16(), torch.ones({N}, {K}).bfloat16()
out = torch.export.load({str(tmp_path / "program.pt2")!r}).module()(x, weight)
print(out.unique().tolist(), hktune.stats().hits)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"[{2.0 * K}] 2"


def tangent(product: Product, x: Tensor, weight: Tensor) -> Tensor:
    return jvp(lambda each: product(each, weight), (x,), (torch.ones_like(x),))[1]


def dual(product: Product, x: Tensor, weight: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = product(forward_ad.make_dual(x, torch.ones_like(x)), weight)
        return forward_ad.unpack_dual(out).tangent


def slope(product: Product, x: Tensor, weight: Tensor) -> Tensor:
    return grad(lambda each: product(each, weight).float().square().sum())(x)


def mapped(product: Product, x: Tensor, weight: Tensor) -> Tensor:
    return vmap(lambda each: product(each, weight))(x.expand(3, M, K))


@pytest.mark.parametrize("compiled", ["no", "inside", "outside"])
@pytest.mark.parametrize("transform", [tangent, dual, slope, mapped])
@pytest.mark.parametrize("is_matmul", [False, True], ids=["linear", "matmul"])
def test_transforms_are_torchs(
    transform: Callable[[Product, Tensor, Tensor], Tensor], compiled: str, is_matmul: bool
) -> None:
    x = bf16(M, K)
    weight = bf16(N, K).T if is_matmul else bf16(N, K)
    ours, theirs = (hktune.matmul, torch.matmul) if is_matmul else (hktune.linear, functional.linear)
    expected = transform(theirs, x, weight)
    if compiled == "inside":
        ours = torch.compile(ours, backend="aot_eager")
        ours(x, weight)  # as it is outside of the transform
    run = torch.compile(transform, backend="aot_eager") if compiled == "outside" else transform
    close(run(ours, x, weight), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("trace", ["jit", "fx"])
def test_the_first_trace_of_a_patched_model(trace: str) -> None:
    model, x = nn.Sequential(nn.Linear(K, N, dtype=torch.bfloat16), nn.ReLU()), bf16(M, K)
    expected = model(x)
    hktune.patch(model)
    traced = torch.jit.trace(model, (x,)) if trace == "jit" else torch.fx.symbolic_trace(model)
    with torch.no_grad():
        close(traced(x), expected)


def test_a_flop_counter_counts_what_torchs_products_would() -> None:
    counts = []
    for linear, matmul in ((hktune.linear, hktune.matmul), (functional.linear, torch.matmul)):
        x, weight = bf16(2, 2, K).requires_grad_(), bf16(N, K).requires_grad_()
        with FlopCounterMode(display=False) as counter:
            linear(x, weight, bf16(N)).sum().backward()
            matmul(x, weight.T)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * M * N * K * 4


def test_a_profiler_shows_each_served_product_once(table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        hktune.linear(x, weight)
        hktune.matmul(x, weight.detach().T)
    seen = {event.name: event.input_shapes for event in profile.events() if event.name.startswith("hktune")}
    assert seen == {"hktune::linear": [[M, K], [N, K]], "hktune::matmul": [[M, K], [K, N]]}
    assert table.stats().hits == 2
