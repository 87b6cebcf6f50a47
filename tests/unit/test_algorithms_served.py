"""Entries of algorithms: launched through the library that named them, refused by name, and torch in their place.

The library is a stand-in for cuBLASLt, on the emulated device; the truth is torch in float32, rounded once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from cublaslt_stand_in import Algorithm, CublasLtStandIn, opened
from naive_gemm import algorithm_trial, published, trial
from torch import Tensor

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.trial import Trial
from hktune.core.vendor_algorithm import VendorAlgorithm
from hktune.device import vendor_libraries
from hktune.device.cublaslt import CublasLt
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.runtime.counts import Fallback

M, N, K = 8, 128, 64
PLAIN, BIASED = (Problem(M, N, K, operation_of(text)) for text in ("bf16.nt", "bf16.nt+bias"))
OTHERS = tuple(Problem(M, N, K, operation_of(text)) for text in ("bf16.nn", "f16.nt", "f16.nn+bias", "bf16.tn"))
KERNELS, VENDOR = Problem(4, 64, 32), Problem(4, 128, 32)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[CublasLtStandIn]:
    """What the emulated device has for a vendor's library here."""
    openers = {"emulated": {"cublasLt": lambda settings: CublasLt()}}
    monkeypatch.setattr(vendor_libraries, "_OPENERS", openers)
    with opened(CublasLtStandIn(), monkeypatch) as library:
        yield library


def named(problem: Problem, place: int = 1) -> VendorAlgorithm:
    """What the library names for `problem` at a place of its list."""
    return list(CublasLt().algorithms(problem))[place]


Load = Callable[..., LoadedTable]


@pytest.fixture
def load(tmp_path: Path, library: CublasLtStandIn) -> Load:
    """Loads a table with these rows, and one of a kernel."""

    def loaded(*rows: Trial, **options: bool) -> LoadedTable:
        published(tmp_path, trial(KERNELS), *rows)
        return hktune.load(tmp_path, allow_modelled=True, **options)

    return loaded


def operands(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """A [m,k], B [k,n] as its layout stores them, and a bias."""
    random, dtype = torch.Generator().manual_seed(seed), getattr(torch, problem.operation.a_dtype.torch_name)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    of_a, of_b = problem.operation.layout
    a = normal(problem.m, problem.k) if of_a == "n" else normal(problem.k, problem.m).t()
    b = normal(problem.k, problem.n) if of_b == "n" else normal(problem.n, problem.k).t()
    return a, b, normal(problem.n) if problem.operation.has_bias else None


BY_TORCH: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "relu": torch.relu,
    "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
}


def served(table: LoadedTable, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return table.matmul(a, b) if bias is None and b.is_contiguous() else table.linear(a, b.t(), bias)


def assert_right(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    exact = a.double() @ b.double() + (0 if bias is None else bias.double())
    torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=1e-3)


@pytest.mark.parametrize("problem", [PLAIN, BIASED, *OTHERS], ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_entry_is_launched_by_its_own_algorithm(
    load: Load, library: CublasLtStandIn, problem: Problem, place: int
) -> None:
    table = load(algorithm_trial(problem, named(problem, place)))
    for seed in range(3):
        given = operands(problem, seed)
        out = table.matmul(*given[:2]) if given[2] is None else served(table, *given)
        assert_right(out, *given)
    assert library.used == [place] * 3
    assert place in library.checked
    assert (table.stats().hits, table.stats().fallbacks) == (3, {})


def test_other_rows_and_operands_apart_go_to_torch(load: Load, library: CublasLtStandIn) -> None:
    table = load(algorithm_trial(PLAIN, named(PLAIN)))
    a, b, _ = operands(PLAIN)
    wide = torch.zeros(M, K + 8, dtype=torch.bfloat16)
    wide[:, :K] = a
    with pytest.warns(FallbackWarning, match="rows whose elements are adjacent"):
        assert_right(table.linear(wide[:, :K], b.t()), a, b, None)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        assert_right(table.linear(a[:7], b.t()), a[:7], b, None)
    assert library.used == []


def test_threads_with_biases_of_their_own(load: Load, library: CublasLtStandIn) -> None:
    table = load(algorithm_trial(BIASED, named(BIASED)))
    sets = [operands(BIASED, seed) for seed in range(6)]
    outs: list[Tensor | None] = [None] * len(sets)

    def often(index: int) -> None:
        for _ in range(10):
            outs[index] = served(table, *sets[index])

    threads = [threading.Thread(target=often, args=(index,)) for index in range(len(sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out, given in zip(outs, sets, strict=True):
        assert out is not None
        assert_right(out, *given)
    assert library.used == [1] * 60


def test_gradients_and_compiled_programs(load: Load, library: CublasLtStandIn) -> None:
    load(algorithm_trial(BIASED, named(BIASED)))
    a, b, bias = operands(BIASED)
    weight = b.t().contiguous().requires_grad_()
    hktune.linear(a, weight, bias).sum().backward()
    assert weight.grad is not None
    exact = torch.ones(M, N, dtype=torch.float64).t() @ a.double()
    torch.testing.assert_close(weight.grad.double(), exact, rtol=2.0**-6, atol=1e-2)
    compiled = torch.compile(lambda x: hktune.linear(x, weight, bias) * 2, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_right(compiled(a) / 2, a, b, bias)
    assert library.used == [1, 1]


def test_what_an_algorithm_leaves_in_its_workspace_no_kernel_finds(load: Load, library: CublasLtStandIn) -> None:
    table = load(algorithm_trial(PLAIN, named(PLAIN, 2)))
    served(table, *operands(PLAIN))
    [place] = [each.place for each in table._places.values() if each]
    assert int(place.algorithm_workspaces.of(None, 4096)[0]) == 0xA5, "the stand-in writes all over it"
    assert not place.workspaces.of(None, 1 << 17)[: 1 << 16].any()


def test_another_version_is_named_once_and_torch_serves(load: Load, library: CublasLtStandIn) -> None:
    algorithm = named(PLAIN)
    library.version = 130200
    with pytest.warns(UserWarning, match=r"1 of 2 entries are not used \(other library: 1; first: 8x128x64 bf16.nt, "):
        table = load(algorithm_trial(PLAIN, algorithm))
    assert table.stats().skipped == {"other library": 1}
    given = operands(PLAIN)
    with pytest.warns(FallbackWarning, match="no entry for the shape"):
        assert_right(served(table, *given), *given)
    assert library.used == []


def test_a_library_that_is_not_here_is_named(
    tmp_path: Path, library: CublasLtStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm = named(PLAIN)
    monkeypatch.setattr(vendor_libraries, "_OPENERS", {})
    published(tmp_path, algorithm_trial(PLAIN, algorithm))
    with pytest.raises(TableError, match=r"\(other library: 1; first: .*, cublasLt: saved=130100 current=not here\)"):
        hktune.load(tmp_path, allow_modelled=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"handle": "0" * 128}, "is none of the 3 that cublasLt 130100 names"),
        ({"handle": "ff" * 64}, "is none of the 3"),
        ({"handle": "7"}, "is none of the 3"),
        ({"workspace_bytes": 1 << 30}, "is none of the 3"),
        ({"name": "id=101 tile=9"}, "is none of the 3"),
        ({}, "is none of the 2"),  # which the library's own check takes
    ],
)
def test_what_the_library_does_not_take_is_said_once_and_torch_serves(
    load: Load, library: CublasLtStandIn, change: dict[str, object], says: str
) -> None:
    """The stand-in ends the process where it is given bytes that it did not make."""
    algorithm = replace(named(PLAIN), **change)
    if not change:
        library.algorithms = (library.algorithms[0], Algorithm(checks=15), library.algorithms[2])
    table = load(algorithm_trial(PLAIN, algorithm))
    given = operands(PLAIN)
    with pytest.warns(FallbackWarning, match=rf"^torch's default serves {PLAIN}, because its .*{says}.*--vendor-only"):
        assert_right(served(table, *given), *given)
    for _ in range(2):
        assert_right(served(table, *given), *given)
    assert table.stats().fallbacks == {str(Fallback.ALGORITHM): 3}
    assert library.used == []


def test_warm_asks_the_library_and_launches_once(load: Load, library: CublasLtStandIn) -> None:
    table = load(algorithm_trial(PLAIN, named(PLAIN)))
    table.warm()
    assert library.used == [1], "which loads its kernels: a capture need not"
    assert table.stats().hits == 0


FINISHED = tuple(
    Problem(M, N, K, operation_of(text))
    for text in ("bf16.nt+residual", "bf16.nt+bias+residual", "bf16.nt+bias+gelu_tanh", "f16.nt+relu")
)


@pytest.mark.parametrize("problem", FINISHED, ids=str)
def test_what_is_done_behind_the_product_is_the_algorithms_too(
    load: Load, library: CublasLtStandIn, problem: Problem
) -> None:
    operation = problem.operation
    table = load(algorithm_trial(problem, named(problem)))
    table.warm()
    a, b, bias = operands(problem)
    residual = operands(problem, 1)[0].new_ones(M, N) * 3 if operation.has_residual else None
    (activation,) = operation.activations or (None,)
    out = table.linear(a, b.t(), bias, activation=activation, residual=residual)
    exact = a.double() @ b.double() + (0 if bias is None else bias.double())
    exact = BY_TORCH[activation](exact) + (0 if residual is None else residual.double())
    torch.testing.assert_close(out.double(), exact, rtol=2.0**-7, atol=1e-3)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    assert library.used == [1, 1]


def test_a_reproducible_table_leaves_algorithms_out(load: Load, library: CublasLtStandIn) -> None:
    left_to_torch = trial(VENDOR, baseline="cuBLAS", baseline_us=0.5)
    with pytest.warns(UserWarning, match="not reproducible"):
        table = load(algorithm_trial(PLAIN, named(PLAIN)), left_to_torch, reproducible=True)
    assert table.stats().skipped == {"not reproducible": 2}
