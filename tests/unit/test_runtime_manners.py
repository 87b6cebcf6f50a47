"""The runtime's manners: errors of torch's kind, warnings at the caller's line, what a table says of itself, unload."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_gemm import SHA256, published, reseal, trial
from torch import Tensor, nn
from torch.nn import functional
from torch_operands import bf16

import hktune
from hktune.core.errors import TableError
from hktune.core.operation import BF16_NT_BIAS
from hktune.core.problem import Problem
from hktune.runtime import FallbackWarning, LoadedTable
from hktune.session import Result
from hktune.session.given_options import OPTION_NAMES

M, N, K = 4, 64, 32
REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    return hktune.load(tmp_path, allow_modelled=True)


# ---------------------------------------------------------------- errors


WRONG: list[tuple[Any, ...]] = [
    ([1], bf16(N, K)),
    (bf16(M, K), [1]),
    (bf16(M, K), bf16(N, K), 5),
    (None, None),
    (np.zeros((M, K), np.float32), bf16(N, K)),
    ("x", bf16(N, K)),
    (bf16(M, K), 2.0),
]


@pytest.mark.parametrize("operands", WRONG, ids=[" ".join(type(each).__name__ for each in case) for case in WRONG])
@pytest.mark.parametrize("around", ["nothing", "autocast", "a mode"])
def test_what_is_no_tensor_raises_what_torch_raises(operands: tuple[Any, ...], around: str, table: LoadedTable) -> None:
    contexts: dict[str, Callable[[], Any]] = {
        "nothing": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "a mode": lambda: torch.device("cpu"),
    }
    calls: list[tuple[Callable[..., Any], ...]] = [(functional.linear, hktune.linear, table.linear)]
    if len(operands) == 2:
        calls.append((torch.matmul, hktune.matmul, table.matmul))
    for torchs, *ours in calls:
        with pytest.raises(TypeError) as expected, contexts[around]():
            torchs(*operands)
        for function in ours:
            with pytest.raises(TypeError, match=re.escape(str(expected.value).splitlines()[0])), contexts[around]():
                function(*operands)
    assert not table.stats().fallbacks


class Boxed:
    """No tensor, but one of those that torch's functions know."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> str:
        return "boxed"


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_what_stands_in_for_a_tensor_is_asked_as_by_torch(table: LoadedTable) -> None:
    assert functional.linear(Boxed(), bf16(N, K)) == "boxed"  # type: ignore[arg-type]
    assert hktune.linear(Boxed(), bf16(N, K)) == "boxed"  # type: ignore[arg-type]
    assert hktune.matmul(bf16(M, K), Boxed()) == "boxed"  # type: ignore[arg-type]


# ---------------------------------------------------------------- warnings


def line_above() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno - 1


def test_a_fallback_is_warned_of_at_the_line_that_called(table: LoadedTable) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(K, N)))
    hktune.patch(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hktune.linear(bf16(9, K), bf16(N, K))
        lines = [line_above()]
        table.matmul(bf16(M * K + 1)[1:].view(M, K), bf16(N, K).T)
        lines += [line_above()]
        model(torch.randn(M, K))
        lines += [line_above()]
        with torch.autocast("cpu", torch.bfloat16):
            hktune.linear(bf16(2 * M, 2 * K)[::2, ::2], bf16(N, K))
            lines += [line_above()]
    assert [(each.category, each.filename, each.lineno) for each in caught] == [
        (FallbackWarning, __file__, line) for line in lines
    ]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_so_is_a_fallback_of_a_compiled_model(backend: str, table: LoadedTable) -> None:
    model = nn.Sequential(nn.Linear(K, N, dtype=torch.bfloat16))
    hktune.patch(model)
    compiled = torch.compile(model, backend=backend)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled(bf16(9, K))
        line = line_above()
    torch._dynamo.reset()
    assert [(each.filename, each.lineno) for each in caught if each.category is FallbackWarning] == [(__file__, line)]


def test_loads_warning_points_at_the_call_of_load(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    reseal(tmp_path, lambda text: text.replace('"naive_gemm_bias"', '"not_there"'))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hktune.load(tmp_path, allow_modelled=True)
        line = line_above()
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line)]


def test_a_warning_is_an_error_where_the_users_filter_says_so(table: LoadedTable) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=re.escape(__name__))
        warnings.filterwarnings("ignore", module="hktune")
        with pytest.raises(FallbackWarning, match="no entry for the shape"):
            hktune.linear(bf16(9, K), bf16(N, K))


# ---------------------------------------------------------------- what a table says, and no table


def test_a_table_says_what_it_holds(tmp_path: Path) -> None:
    published(tmp_path, trial(Problem(M, N, K)), trial(Problem(M, N, K, BF16_NT_BIAS)))
    table = hktune.load(tmp_path, allow_modelled=True)
    assert repr(table) == f"<hktune table {tmp_path} on emulated MI355X: 2 of 2 entries usable (modelled: 2)>"
    reseal(tmp_path, lambda text: text.replace('"naive_gemm_bias"', '"not_there"'))
    with pytest.warns(UserWarning, match="symbol missing"):
        table = hktune.load(tmp_path, allow_modelled=True)
    assert repr(table) == (
        f"<hktune table {tmp_path} on emulated MI355X: 1 of 2 entries usable (modelled: 1), symbol missing: 1>"
    )
    assert SHA256 not in repr(table)


def test_unload_makes_no_table_current_as_often_as_it_is_called(tmp_path: Path, table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    model = nn.Sequential(nn.Linear(K, N, dtype=torch.bfloat16))
    hktune.patch(model)
    hktune.unload()
    hktune.unload()
    asked: list[Callable[[], object]] = [
        lambda: hktune.linear(x, weight),
        lambda: hktune.matmul(x, weight.T),
        hktune.stats,
        lambda: model(x),
        lambda: hktune.Linear(K, N)(x),
    ]
    for ask in asked:
        with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load\(DIR\) first"):
            ask()
    table.linear(x, weight)  # a table that somebody holds goes on
    hktune.unpatch(model)
    assert torch.equal(model(x), functional.linear(x, model[0].weight, model[0].bias))
    hktune.load(tmp_path, allow_modelled=True)
    hktune.linear(x, weight)
    assert hktune.stats().hits == 1


def test_a_compiled_call_asks_for_the_table_that_is_loaded_when_it_runs(tmp_path: Path, table: LoadedTable) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    compiled = torch.compile(lambda x: hktune.linear(x, weight), fullgraph=True, backend="aot_eager")
    compiled(x)
    hktune.unload()
    with pytest.raises(TableError, match="no dispatch table is loaded"):
        compiled(x)
    hktune.load(tmp_path, allow_modelled=True)
    compiled(x)
    torch._dynamo.reset()
    assert (table.stats().hits, hktune.stats().hits) == (1, 1)


def test_a_model_of_ours_is_made_and_recorded_before_there_is_a_table(tmp_path: Path) -> None:
    x, weight = bf16(M, K), bf16(N, K)
    model = nn.Sequential(hktune.Linear(K, N), nn.Linear(N, K, bias=False, dtype=torch.bfloat16))
    hktune.patch(model)
    with hktune.record(tmp_path / "shapes.yaml") as recorder:
        out = model(x)
        out.backward(bf16(M, K))
        product = hktune.matmul(x, weight.T)
        with torch.autocast("cpu", torch.bfloat16):
            cast = hktune.linear(x.float(), weight.float(), bf16(N).float())
        torch.compile(model, backend="eager", fullgraph=True)(x)
    hktune.unpatch(model)
    expected = functional.linear(functional.linear(x, model[0].weight, model[0].bias), model[1].weight)
    assert torch.equal(out, expected)
    assert model[0].weight.grad is not None
    assert torch.equal(product, x @ weight.T)
    assert torch.equal(cast, functional.linear(x, weight, bf16(N)))
    assert {str(problem): count for problem, count in recorder.calls.items()} == {
        f"{M}x{N}x{K} bf16.nt+bias": 3,
        f"{M}x{K}x{N} bf16.nt": 2,
        f"{M}x{N}x{K} bf16.nt": 1,
        f"{K}x{N}x{M} bf16.tn": 1,
        f"{M}x{N}x{K} bf16.nn": 1,
        f"{N}x{K}x{M} bf16.tn": 1,
    }
    with pytest.raises(TableError, match="no dispatch table is loaded"):
        hktune.Linear(K, N)(x)


# ---------------------------------------------------------------- names


def test_every_public_name_is_documented_and_every_documented_one_is_there() -> None:
    serving, tuning = ((REFERENCE / name).read_text() for name in ("runtime.md", "python.md"))
    for name in hktune.__all__:
        assert re.search(rf"`hktune\.{name}\b", serving + tuning), f"docs/reference does not name hktune.{name}"
    for name in hktune.runtime.__all__:
        assert re.search(rf"\b{name}\b", serving), f"docs/reference/runtime.md does not name {name} of hktune.runtime"
    for name in public_members(Result):
        assert re.search(rf"`(result)?\.{name}\b", tuning), f"docs/reference/python.md does not name Result.{name}"
    for name in OPTION_NAMES:
        assert re.search(rf"`{name}`", tuning), f"docs/reference/python.md does not name the keyword {name}"
    for name in set(re.findall(r"hktune\.([a-zA-Z]\w*)\b(?=[(`])", serving + tuning)):
        assert hasattr(hktune, name), f"docs/reference names hktune.{name}, which is not there"


def public_members(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def test_every_public_name_says_what_it_is_for() -> None:
    for name in hktune.__all__:
        if not name.startswith("__"):
            assert inspect.getdoc(getattr(hktune, name)), name


def test_tensors_are_what_comes_back(table: LoadedTable) -> None:
    assert type(hktune.linear(bf16(M, K), bf16(N, K))) is Tensor
