"""Entries of solutions of hipBLASLt and rocBLAS: stored in a table, launched through the library that named them, and
refused where the library has changed.

The libraries are stand-ins, on the emulated device; the truth is float64, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hipblaslt_stand_in import LONG, SOLUTIONS, HipblasLtStandIn, Solution
from naive_gemm import published, trial
from rocblas_stand_in import RocblasStandIn
from torch import Tensor

import hktune
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import vendor_libraries
from hktune.device.hipblaslt import HipblasLt
from hktune.device.rocblas import Rocblas
from hktune.runtime import FallbackWarning, LoadedTable

M, N, K = 8, 128, 64
PLAIN, BIASED = (Problem(M, N, K, operation_of(text)) for text in ("bf16.nt", "bf16.nt+bias"))
KERNELS = Problem(4, 64, 32)
TEXTS = ("bf16.nt", "bf16.nn", "bf16.tn", "f16.nt")


@pytest.fixture
def hipblaslt() -> HipblasLtStandIn:
    return HipblasLtStandIn()


@pytest.fixture
def rocblas() -> RocblasStandIn:
    return RocblasStandIn()


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch, hipblaslt: HipblasLtStandIn, rocblas: RocblasStandIn) -> None:
    """What the emulated device has for a vendor's libraries here."""
    openers = {"hipBLASLt": lambda _: HipblasLt(hipblaslt.library), "rocBLAS": lambda _: Rocblas(cast("Any", rocblas))}
    monkeypatch.setattr(vendor_libraries, "_OPENERS", {"emulated": openers})


def named(library: str, problem: Problem, place: int) -> VendorAlgorithm:
    return list(vendor_libraries.open_vendor_library("emulated", library).algorithms(problem))[place]


def row(problem: Problem, algorithm: VendorAlgorithm) -> Trial:
    """The row of an algorithm that is faster than anything."""
    made_from = {"template": None, "template_sha256": None, "object_sha256": None, "library": algorithm.library}
    config = {"config": algorithm.config.json, "config_id": algorithm.config.id}
    return replace(trial(problem), **made_from, **config, time_us=1e-3, time_us_low=None, time_us_high=None)


Load = Callable[..., LoadedTable]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a table with these rows, and one of a kernel."""

    def loaded(*rows: Trial) -> LoadedTable:
        published(tmp_path, trial(KERNELS), *rows)
        return hktune.load(tmp_path, allow_modelled=True)

    return loaded


def operands(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A [m,k] and B [k,n], as the layout of `problem` stores them."""
    random, dtype = torch.Generator().manual_seed(seed), getattr(torch, problem.operation.a_dtype.torch_name)
    (of_a, of_b), m, n, k = problem.operation.layout, problem.m, problem.n, problem.k
    a = torch.randn(*((m, k) if of_a == "n" else (k, m)), generator=random).to(dtype)
    b = torch.randn(*((k, n) if of_b == "n" else (n, k)), generator=random).to(dtype)
    return a if of_a == "n" else a.t(), b if of_b == "n" else b.t()


def assert_right(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> None:
    exact = a.double() @ b.double() + (0 if bias is None else bias.double())
    torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=1e-3)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("library", ["hipBLASLt", "rocBLAS"])
def test_an_entry_is_launched_by_its_own_solution(
    load: Load, hipblaslt: HipblasLtStandIn, rocblas: RocblasStandIn, library: str, place: int, text: str
) -> None:
    problem = Problem(M, N, K, operation_of(text))
    table = load(row(problem, named(library, problem, place)))
    for seed in range(2):
        a, b = operands(problem, seed)
        assert_right(table.matmul(a, b), a, b)
    used = {"hipBLASLt": hipblaslt.used, "rocBLAS": rocblas.used}
    assert used.pop(library) == [{"hipBLASLt": (-5, 1063, 41), "rocBLAS": (0, -7, 3)}[library][place]] * 2
    assert list(used.values()) == [[]]
    assert (table.stats().hits, table.stats().fallbacks) == (2, {})


def test_a_bias_is_added_by_hipblaslt(load: Load, hipblaslt: HipblasLtStandIn) -> None:
    table = load(row(BIASED, named("hipBLASLt", BIASED, 3)))
    a, b = operands(BIASED)
    bias = torch.randn(N, generator=torch.Generator().manual_seed(9)).bfloat16()
    assert_right(table.linear(a, b.t(), bias), a, b, bias)
    assert hipblaslt.used == [93702]


@pytest.mark.parametrize("text", ["e4m3.nt.rows->bf16", "e4m3.nt.tensor->f16+bias", "e5m2*e4m3.nt.rows->f32"])
def test_scaled_products_are_hipblaslts(load: Load, hipblaslt: HipblasLtStandIn, text: str) -> None:
    problem = Problem(M, N, K, operation_of(text))
    operation, random = problem.operation, torch.Generator().manual_seed(5)
    table = load(row(problem, named("hipBLASLt", problem, 0)))
    table.warm()
    dtype = getattr(torch, operation.c_dtype.torch_name)
    a = torch.randn(M, K, generator=random).to(getattr(torch, operation.a_dtype.torch_name))
    b = torch.randn(N, K, generator=random).to(getattr(torch, operation.b_dtype.torch_name)).t()
    shapes = ((M, 1), (1, N)) if operation.scales == "rows" else ((1,), (1,))
    scale_a, scale_b = (torch.rand(shape, generator=random) + 0.5 for shape in shapes)
    bias = torch.randn(N, generator=random).to(dtype) if operation.has_bias else None
    out = hktune.scaled_mm(a, b, scale_a, scale_b, bias, dtype)
    exact = (a.double() * scale_a) @ (b.double() * scale_b) + (0 if bias is None else bias.double())
    torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=1e-3)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    assert len(hipblaslt.used) == 2


@pytest.mark.parametrize("library", ["hipBLASLt", "rocBLAS"])
def test_another_version_is_named_at_once_and_torch_serves(
    load: Load, hipblaslt: HipblasLtStandIn, rocblas: RocblasStandIn, library: str
) -> None:
    algorithm = named(library, PLAIN, 1)
    hipblaslt.set_up(version=100300)
    rocblas.version = b"5.3.0.abc"
    with pytest.warns(UserWarning, match=rf"\(other library: 1; first: 8x128x64 bf16.nt, {library}: saved=.* current="):
        table = load(row(PLAIN, algorithm))
    a, b = operands(PLAIN)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        assert_right(table.matmul(a, b), a, b)
    assert (hipblaslt.used, rocblas.used) == ([], [])


CHANGES = {
    "another name": ("hipBLASLt", {"name": "Cijk_other"}, "calls solution 1063 by another name"),
    "another workspace": ("hipBLASLt", {"workspace_bytes": 64}, "solution 1063 needs another workspace"),
    "no such index": ("hipBLASLt", {"handle": "7fffffff"}, "is none of the 5 solutions"),
    "no index": ("hipBLASLt", {"handle": "ff" * 64}, "is none of the 5 solutions"),
    "no such number": ("rocBLAS", {"handle": "7fffffff"}, "is none of the 3 solutions"),
    "another size": ("rocBLAS", {"workspace_bytes": 0}, "solution -7 has another workspace or name"),
}


@pytest.mark.parametrize(("library", "change", "says"), CHANGES.values(), ids=CHANGES)
def test_a_hostile_entry_reaches_no_library_and_torch_serves(
    load: Load, hipblaslt: HipblasLtStandIn, rocblas: RocblasStandIn, library: str, change: dict[str, Any], says: str
) -> None:
    """The stand-in for hipBLASLt ends the process where it is given an index that it did not name."""
    table = load(row(PLAIN, replace(named(library, PLAIN, 1), **change)))
    a, b = operands(PLAIN)
    with pytest.warns(FallbackWarning, match=rf"^torch's default serves {PLAIN}, because its .*{says}"):
        assert_right(table.matmul(a, b), a, b)
    assert_right(table.matmul(a, b), a, b)
    assert (hipblaslt.used, rocblas.used) == ([], [])


def test_an_index_that_means_another_solution_now_is_refused(load: Load, hipblaslt: HipblasLtStandIn) -> None:
    """As where a library was built anew without another version."""
    algorithm = named("hipBLASLt", PLAIN, 3)
    hipblaslt.set_up([Solution(93702, LONG.replace("MT256", "MT64")), *SOLUTIONS[1:]])
    table = load(row(PLAIN, algorithm))
    a, b = operands(PLAIN)
    with pytest.warns(FallbackWarning, match=r"saved=256x128x64_.* current=64x128x64_"):
        assert_right(table.matmul(a, b), a, b)
    assert hipblaslt.used == []
