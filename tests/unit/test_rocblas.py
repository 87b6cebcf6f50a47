"""rocBLAS as a baseline without torch, over a stand-in for the library: what it is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rocblas_stand_in import BY_INDEX, STANDARD, RocblasStandIn

from hktune.core.errors import DeviceError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.measure import rocblas
from hktune.measure.arena import OperandSet
from hktune.measure.rocblas import Rocblas, RocblasSolution

TORCH = {"bf16": torch.bfloat16, "f16": torch.float16}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RocblasStandIn:
    library = RocblasStandIn()
    names = {name: getattr(rocblas.ctypes, name) for name in dir(rocblas.ctypes)}
    (tmp_path / "librocblas.so.5").touch()
    opened = {str(tmp_path / "librocblas.so.5"): library}
    monkeypatch.setattr(rocblas, "ctypes", SimpleNamespace(**{**names, "CDLL": opened.__getitem__}))
    return library


@pytest.fixture
def library(stand_in: RocblasStandIn, tmp_path: Path) -> Rocblas:
    return Rocblas(tmp_path)


def operands(problem: Problem, seed: int = 0) -> OperandSet:
    generator, (of_a, of_b) = torch.Generator().manual_seed(seed), problem.operation.layout[:2]
    m, n, k, dtype = problem.m, problem.n, problem.k, TORCH[problem.operation.a]
    a, b = ((m, k) if of_a == "n" else (k, m)), ((k, n) if of_b == "n" else (n, k))
    made = {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in (("a", a), ("b", b))}
    return {**made, "c": torch.full((m, n), float("nan"), dtype=dtype)}


def exact(problem: Problem, given: OperandSet) -> torch.Tensor:
    a, b = (given[name].double() for name in "ab")
    return (a if problem.operation.layout[0] == "n" else a.T) @ (b if problem.operation.layout[1] == "n" else b.T)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("index", [None, -7, 3])
def test_every_layout_is_the_product(
    library: Rocblas, stand_in: RocblasStandIn, layout: str, dtype: str, index: int | None
) -> None:
    problem = Problem(24, 40, 72, operation_of(f"{dtype}.{layout}"))
    first, second = operands(problem, 1), operands(problem, 2)
    enqueue = RocblasSolution(library, index).prepare(problem, first, 5)
    enqueue(second)
    for given in (first, second):
        torch.testing.assert_close(given["c"].double(), exact(problem, given), rtol=2.0**-8, atol=1e-4)
    assert stand_in.used == [(STANDARD if index is None else BY_INDEX, index)] * 2
    assert stand_in.stream == 5


def test_its_solutions_are_those_that_it_lists(library: Rocblas) -> None:
    problem = Problem(24, 40, 72, operation_of("bf16.nt"))
    assert library.solutions(problem, operands(problem)) == [-7, 3, 12]
    assert RocblasSolution(library).name == "rocBLAS 5.2.0.abc"
    assert RocblasSolution(library, 3).name == "rocBLAS 5.2.0.abc, solution 3"


def test_a_solution_that_does_not_fit_is_refused_before_it_runs(library: Rocblas, stand_in: RocblasStandIn) -> None:
    problem = Problem(24, 40, 72, operation_of("bf16.nt"))
    with pytest.raises(DeviceError, match=r"^rocblas_gemm_ex answers 11 \(rocblas_status\): take another solution"):
        RocblasSolution(library, 12).prepare(problem, operands(problem), 5)
    assert stand_in.used == []


@pytest.mark.parametrize("operation", ["bf16.nt+bias", "e4m3.nt->bf16"])
def test_what_it_has_no_product_for_is_refused(library: Rocblas, operation: str) -> None:
    problem = Problem(24, 40, 72, operation_of(operation))
    with pytest.raises(DeviceError, match=r"^rocBLAS has no .*: ask for the product alone"):
        RocblasSolution(library).prepare(problem, {}, 5)


def test_no_library_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"^no rocBLAS .*: install ROCm's, or compare without it") as caught:
        Rocblas(tmp_path)
    assert "\n" not in str(caught.value)
