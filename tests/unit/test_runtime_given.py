"""What is no tensor, number or word in the place of one is refused at once, as torch refuses it, whatever watches."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_kernels import K, M, N, finished_table, operands, residual
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import hktune
from hktune.core.errors import InputError
from hktune.runtime import LoadedTable, operators
from hktune.runtime.recorder import Recorder

GROUPS = 2


class Functions(TorchFunctionMode):
    """Watches, and changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


AROUND: dict[str, Callable[[], Any]] = {
    "nothing": nullcontext,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a mode of functions": Functions,
    "a mode of operators": Operators,
}


@contextmanager
def recording() -> Iterator[None]:
    """Of calls that no table serves."""
    table = operators.table_numbered(operators.CURRENT)
    hktune.unload()
    try:
        with Recorder():
            yield
    finally:
        operators.make_current(table)


AROUND["a recording"] = recording


@pytest.fixture
def table(tmp_path: Path) -> LoadedTable:
    return finished_table(tmp_path, ("bf16.nt+residual", "bf16.nt+silu+gated"), wide=True)


def float8(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).to(torch.float8_e4m3fn)


def calls() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]]:
    """Of each function torch's own, and arguments that it takes."""
    x, weight, bias = operands()
    rows, matrices = torch.randn(M, K).bfloat16(), torch.randn(GROUPS, K, 2 * N).bfloat16()
    offs = torch.tensor([5, M], dtype=torch.int32)
    one, linear, grouped = torch.ones(1), {"x": x, "weight": weight, "bias": bias}, {"a": rows, "b": matrices}
    scaled = {"a": float8(M, K), "b": float8(N, K).t(), "scale_a": one, "scale_b": one, "bias": bias}
    scaled_grouped = {"a": float8(M, K), "b": float8(GROUPS, N, K).mT, "scale_a": torch.ones(M)}
    scaled_grouped |= {"scale_b": torch.ones(GROUPS, N), "offs": offs}
    wide = {"x": x, "weight": torch.cat([weight, weight]), "bias": torch.cat([bias, bias])}
    return {
        "linear": (hktune.linear, functional.linear, linear),
        "linear with an activation": (_activated, functional.linear, linear),
        "linear with a residual": (_finished, functional.linear, linear),
        "gated_linear": (hktune.gated_linear, functional.linear, wide),
        "grouped_mm": (hktune.grouped_mm, _grouped, {**grouped, "offs": offs}),
        "grouped_mm with an activation": (_grouped_activated, _grouped, {**grouped, "offs": offs}),
        "gated_grouped_mm": (hktune.gated_grouped_mm, _grouped, {**grouped, "offs": offs}),
        "gated_grouped_mm with scales": (_scaled_gated, _scaled_grouped, scaled_grouped),
        "scaled_mm": (hktune.scaled_mm, _scaled, scaled),
        "scaled_grouped_mm": (hktune.scaled_grouped_mm, _scaled_grouped, scaled_grouped),
    }


def _activated(*given: Any) -> Tensor:
    return hktune.linear(*given, activation="gelu")


def _finished(*given: Any) -> Tensor:
    return hktune.linear(*given, residual=residual(), alpha=0.5)


def _grouped(a: Any, b: Any, offs: Any) -> Tensor:
    return torch._grouped_mm(a, b, offs=offs)


def _grouped_activated(*given: Any) -> Tensor:
    return hktune.grouped_mm(*given, activation="silu")


def _scaled(a: Any, b: Any, scale_a: Any, scale_b: Any, bias: Any) -> Tensor:
    return torch._scaled_mm(a, b, scale_a, scale_b, bias=bias)


def _scaled_grouped(a: Any, b: Any, scale_a: Any, scale_b: Any, offs: Any) -> Tensor:
    return torch._scaled_grouped_mm(a, b, scale_a, scale_b, offs=offs)


def _scaled_gated(a: Any, b: Any, scale_a: Any, scale_b: Any, offs: Any) -> Tensor:
    return hktune.gated_grouped_mm(a, b, offs, scale_a=scale_a, scale_b=scale_b)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("name", calls())
def test_what_is_no_tensor_raises_what_torch_raises(table: LoadedTable, name: str) -> None:
    ours, torchs, given = calls()[name]
    ours(*given.values())  # which shows that only what follows is wrong
    before = table.stats().fallbacks
    for argument, wrong in itertools.product(given, (3, 2.5, "text", [1.0], object())):
        wrongly = {**given, argument: wrong}.values()
        with pytest.raises(TypeError, match="must be Tensor, not") as expected:
            torchs(*wrongly)
        for around in AROUND.values():
            with around(), pytest.raises(TypeError, match=f"^{re.escape(str(expected.value))}$"):
                ours(*wrongly)
    assert table.stats().fallbacks == before, "nothing was served"


BESIDE: list[tuple[str, dict[str, Any], str]] = [
    ("linear", {"residual": 3}, "linear(): argument 'residual' must be Tensor, not int"),
    ("linear", {"residual": "text", "beta": 0}, "linear(): argument 'residual' must be Tensor, not str"),
    ("linear", {"alpha": "2"}, "linear(): argument 'alpha' must be a number, not str"),
    ("linear", {"alpha": None}, "linear(): argument 'alpha' must be a number, not NoneType"),
    ("linear", {"beta": [2.0]}, "linear(): argument 'beta' must be a number, not list"),
    ("gated_linear", {"interleaved": "no"}, "gated_linear(): argument 'interleaved' must be bool, not str"),
    ("gated_grouped_mm", {"interleaved": 1}, "gated_grouped_mm(): argument 'interleaved' must be bool, not int"),
    ("gated_grouped_mm", {"out_dtype": 1}, "gated_grouped_mm(): argument 'out_dtype' must be torch.dtype, not int"),
    ("gated_grouped_mm", {"use_fast_accum": 1}, "gated_grouped_mm(): argument 'use_fast_accum' must be bool, not int"),
    ("scaled_mm", {"out_dtype": "bf16"}, "scaled_mm(): argument 'out_dtype' must be torch.dtype, not str"),
    ("scaled_mm", {"use_fast_accum": None}, "scaled_mm(): argument 'use_fast_accum' must be bool, not NoneType"),
    ("scaled_grouped_mm", {"out_dtype": 15}, "scaled_grouped_mm(): argument 'out_dtype' must be torch.dtype, not int"),
    ("scaled_grouped_mm", {"use_fast_accum": "a"}, "scaled_grouped_mm(): argument 'use_fast_accum' must be bool, not"),
]


def test_so_does_what_torch_has_no_argument_for(table: LoadedTable) -> None:
    for (name, named, says), around in itertools.product(BESIDE, AROUND.values()):
        ours, _, given = calls()[name]
        with around(), pytest.raises(TypeError, match=f"^{re.escape(says)}"):
            ours(*given.values(), **named)


@pytest.mark.parametrize("activation", [3, ["gelu"], b"gelu", "Gelu"])
def test_an_activation_is_one_of_the_known(table: LoadedTable, activation: Any) -> None:
    for name in ("linear", "gated_linear", "grouped_mm", "gated_grouped_mm", "scaled_grouped_mm"):
        ours, _, given = calls()[name]
        with pytest.raises(InputError, match=r"is not known: known are relu, gelu, gelu_tanh, silu$"):
            ours(*given.values(), activation=activation)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_a_grouped_product_without_offsets_is_torchs(table: LoadedTable) -> None:
    _, _, given = calls()["grouped_mm"]
    a, b = given["a"], given["b"]
    with pytest.raises(RuntimeError) as expected:
        torch._grouped_mm(a, b)
    with pytest.raises(RuntimeError, match=f"^{re.escape(str(expected.value).splitlines()[0])}"):
        hktune.grouped_mm(a, b, None)  # type: ignore[arg-type]
    stacked = a.expand(GROUPS, M, K).contiguous()
    assert torch.equal(hktune.grouped_mm(stacked, b, None), torch.bmm(stacked, b))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_no_out_dtype_is_torchs_own(table: LoadedTable) -> None:
    """That of `a` for scales of a tensor, and bfloat16 of groups."""
    _, _, given = calls()["scaled_mm"]
    given.pop("bias")
    for around in AROUND.values():
        with around():
            assert hktune.scaled_mm(**given, out_dtype=None).dtype is torch.float8_e4m3fn  # type: ignore[arg-type]
            _, _, grouped = calls()["scaled_grouped_mm"]
            assert hktune.scaled_grouped_mm(**grouped, out_dtype=None).dtype is torch.bfloat16  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32])
def test_a_residual_times_0_has_the_shape_and_dtype_of_any_other(table: LoadedTable, dtype: torch.dtype) -> None:
    for shape, around in itertools.product([(N,), (), (M, 1), (M, N), (3, M, N)], AROUND):
        added = torch.full(shape, 7).to(dtype)
        if dtype.is_floating_point:
            added = added * torch.nan
        with AROUND[around]():
            out = hktune.linear(*operands(), residual=added, beta=0.0)
        truth = functional.linear(*operands()) + torch.zeros_like(added)
        assert (out.shape, out.dtype) == (truth.shape, truth.dtype)
        torch.testing.assert_close(out.double(), truth.double(), rtol=2**-7, atol=2**-8)


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_a_residual_of_a_shape_that_does_not_fit_is_refused_whatever_its_factor(table: LoadedTable) -> None:
    for shape, around, beta in itertools.product([(M, N + 1), (M + 1, N), (0, N)], AROUND.values(), [0, 1, 0.5]):
        added = torch.zeros(shape).bfloat16()
        with around(), pytest.raises(RuntimeError, match=r"^The size of tensor a \(\d+\) must match"):
            hktune.linear(*operands(), residual=added, beta=beta)


def test_a_compiled_call_is_checked_too(table: LoadedTable) -> None:
    x, weight, bias = operands()
    added = residual()

    def call(x: Tensor, alpha: float) -> Tensor:
        return hktune.linear(x, weight, bias, residual=added, alpha=alpha, beta=0.0)

    compiled = torch.compile(call, backend="eager", fullgraph=True)
    for alpha in (0.5, 2.0, 3):
        torch.testing.assert_close(compiled(x, alpha), call(x, alpha))
    with pytest.raises(RuntimeError, match="broadcast a dimension of length 7"):
        torch.compile(lambda x: hktune.linear(x, weight, residual=x[1:], beta=0.0), backend="eager", fullgraph=True)(x)


WRONG: list[tuple[str, str, Any, str]] = [
    ("load", "directory", 3, "must be a path, not int"),
    ("load", "directory", b"tables", "must be a path, not bytes"),
    ("load", "directory", None, "must be a path, not NoneType"),
    (
        "load",
        "device",
        3,
        "must be a device of hktune, not int: leave it out for torch's current GPU, which torch.cuda",
    ),
    ("load", "device", "cuda", "must be a device of hktune, not str: leave it out"),
    ("load", "device", torch.device("cpu"), "must be a device of hktune, not device: leave it out"),
    ("load", "allow_modelled", "no", "must be bool, not str"),
    ("load", "reproducible", 1, "must be bool, not int"),
    ("load", "allow_sibling_board", None, "must be bool, not NoneType"),
    ("load", "summary_at_exit", [], "must be bool, not list"),
    ("load", "public_key", 3, "must be a path, not int"),
    ("load", "sha256", b"00", "must be str, not bytes"),
    ("record", "path", 3, "must be a path, not int"),
    ("record", "compiled", "yes", "must be bool, not str"),
    ("patch", "model", 3, "(position 1) must be Module, not int"),
    ("patch", "fuse", "no", "must be bool, not str"),
    ("patch", "quiet", None, "must be bool, not NoneType"),
    ("unpatch", "quiet", 0, "must be bool, not int"),
    ("enable", "table", 3, "(position 1) must be LoadedTable, not int"),
    ("enable", "table", "out/cuda", "(position 1) must be LoadedTable, not str"),
]


@pytest.mark.parametrize(("function", "argument", "wrong", "says"), WRONG)
def test_so_is_what_is_said_to_a_function_that_sets_up(
    table: LoadedTable, tmp_path: Path, function: str, argument: str, wrong: Any, says: str
) -> None:
    usual: dict[str, Any] = {
        "load": {"directory": tmp_path, "allow_modelled": True},
        "record": {"path": tmp_path / "s"},
    }
    usual |= {"patch": {"model": torch.nn.Linear(4, 4)}, "unpatch": {"model": torch.nn.Linear(4, 4)}}
    line = re.escape(f"{function}(): argument '{argument}' {says}")
    with pytest.raises(TypeError, match=f"^{line}"):
        getattr(hktune, function)(**{**usual.get(function, {}), argument: wrong})
    assert hktune.stats() == table.stats(), "the table of before is current"


@pytest.mark.parametrize(("function", "argument"), [("load", "directory"), ("record", "path")])
def test_an_empty_path_is_not_the_working_directory(function: str, argument: str) -> None:
    with pytest.raises(InputError, match=f"^{function}: {argument} is empty: pass a path$"):
        getattr(hktune, function)(**{argument: ""})
