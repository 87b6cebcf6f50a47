"""Gates and activations behind grouped products of float8, by a table. The truth is float64 of the very numbers and
scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_gemm import published, trial
from test_runtime_grouped_ends import ACTIVATIONS, close, gates, loaded
from test_runtime_scaled_grouped import ENDS, FLOAT8, GROUPS, SM90A, K, M, N, as_integers, exact
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import hktune
from hktune.core.errors import InputError, TableError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.shapes import load_shapes
from hktune.runtime import FallbackWarning, LoadedTable, operators, recorded_several, recorder
from hktune.tables.findings import examine_table
from hktune.template.template import load_template

ROWS = "grouped4.e4m3.nt.rows"
FINISHED = [f"{ROWS}->bf16+{steps}" for steps in ("silu", "silu+gated", "silu+gated_interleaved")]
PRODUCTS = [Problem(M, columns, K, operation_of(f"{ROWS}->bf16")) for columns in (N, 2 * N)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[LoadedTable]:
    yield from loaded(tmp_path, monkeypatch, FINISHED, PRODUCTS)


def operands(columns: int = 2 * N, m: int = M) -> dict[str, Any]:
    """Of hktune.scaled_grouped_mm and gated_grouped_mm."""
    random = torch.Generator().manual_seed(m + columns)
    return {
        "a": torch.randn((m, K), generator=random).to(FLOAT8),
        "b": (torch.randn((GROUPS, columns, K), generator=random) / 8).to(FLOAT8).mT,
        "scale_a": torch.rand(m, generator=random) + 0.5,
        "scale_b": torch.rand((GROUPS, columns), generator=random) + 0.5,
        "offs": torch.tensor(ENDS, dtype=torch.int32).clamp(max=m),
    }


def rounds_once(found: Tensor, expected: Tensor) -> None:
    assert (found != expected.bfloat16()).float().mean() < 0.02, "one rounding of sums in float32"


@pytest.mark.parametrize("interleaved", [False, True])
def test_swiglu_of_experts_of_float8_is_one_kernel(table: LoadedTable, interleaved: bool) -> None:
    given = operands()
    expected = gates(exact(**given), "silu", interleaved)
    for use_fast_accum in (False, True):  # which an exact kernel serves too
        found = hktune.gated_grouped_mm(**given, interleaved=interleaved, use_fast_accum=use_fast_accum)
        close(found, expected)
        rounds_once(found, expected)
    given["offs"] = torch.tensor([0, 0, M, M], dtype=torch.int32)
    close(hktune.gated_grouped_mm(**given, interleaved=interleaved), gates(exact(**given), "silu", interleaved))
    assert (table.stats().hits, table.stats().fallbacks) == (3, {}), "one row serves all divisions of M"


def test_an_activation_is_the_kernels(table: LoadedTable) -> None:
    given = operands(N)
    expected = functional.silu(exact(**given))
    found = hktune.scaled_grouped_mm(**given, activation="silu")
    close(found, expected)
    rounds_once(found, expected)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})


def test_fast_sums_are_for_calls_that_allow_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    published(tmp_path, trial(Problem(M, N, K, operation_of(f"{ROWS}.fast->bf16+silu+gated"))))
    table, given = hktune.load(tmp_path, allow_modelled=True), operands()
    expected = gates(exact(**given))
    close(hktune.gated_grouped_mm(**given, use_fast_accum=True), expected)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    with pytest.warns(FallbackWarning):
        close(hktune.gated_grouped_mm(**given), expected)
    assert (table.stats().hits, table.stats().fallbacks) == (1, {"no entry for the shape": 1})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_what_has_no_kernel_is_a_product_of_the_table_and_torchs_gates(
    table: LoadedTable, activation: str | None, interleaved: bool
) -> None:
    given, plain = operands(), operands(N)
    found = hktune.gated_grouped_mm(**given, activation=activation, interleaved=interleaved)
    close(found, gates(exact(**given), activation, interleaved))
    close(hktune.scaled_grouped_mm(**plain, activation=activation), ACTIVATIONS[activation](exact(**plain)))
    assert (table.stats().hits, table.stats().fallbacks) == (2, {}), "either of the kernels"


def test_a_bias_is_added_before_the_gates(table: LoadedTable) -> None:
    """No kernel does both: the product is the table's."""
    given, bias = operands(), torch.randn(GROUPS, 2 * N).bfloat16()
    of_rows = torch.cat([bias[at : at + 1].expand(rows, -1) for at, rows in enumerate((5, 0, 15, 4))]).double()
    close(hktune.gated_grouped_mm(**given, bias=bias), gates(exact(**given) + of_rows))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})
    with pytest.raises(InputError, match=r"gated_grouped_mm: bias must be \[4, 64\] float32, got \[4, 64\] bfloat16"):
        hktune.gated_grouped_mm(**given, bias=bias, out_dtype=torch.float32)


OTHERS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "more rows": ("no entry for the shape", lambda x: operands(m=M + 1)),
    "scales apart": ("scales", lambda x: {**x, "scale_a": torch.stack([x["scale_a"]] * 2, 1)[:, 0]}),
    "weights that are not turned": ("strides", lambda x: {**x, "b": x["b"].contiguous()}),
    "integers": ("no entry for the shape", lambda x: {**x, "a": as_integers(x["a"]), "b": as_integers(x["b"].mT).mT}),
    "no rows": (
        "empty operand",
        lambda x: {**x, "a": x["a"][:0], "scale_a": x["scale_a"][:0], "offs": x["offs"] * 0},
    ),
}


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
@pytest.mark.parametrize("other", OTHERS)
def test_what_no_kernel_takes_is_computed_and_counted_once_by_its_reason(table: LoadedTable, other: str) -> None:
    """torch has no such product on a CPU."""
    reason, made = OTHERS[other]
    given = made(operands())
    found = hktune.gated_grouped_mm(**given)
    assert found.shape == (len(given["a"]), N)
    rows = int(given["offs"][-1])
    expected = gates(exact(**given))
    torch.testing.assert_close(found[:rows].double(), expected, rtol=2**-6, atol=2**-6)
    assert (table.stats().hits, table.stats().fallbacks) == (0, {reason: 1})


@pytest.mark.filterwarnings("ignore::hktune.runtime.FallbackWarning")
def test_a_float32_output_is_gated_in_float32(table: LoadedTable) -> None:
    given = operands()
    found = hktune.gated_grouped_mm(**given, out_dtype=torch.float32)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), gates(exact(**given)), rtol=2**-18, atol=1e-5)
    assert table.stats().hits == 0


def test_a_nan_is_of_its_row_and_of_what_its_column_gates(table: LoadedTable) -> None:
    given = operands()
    given["scale_a"][7] = given["scale_b"][3, N + 2] = torch.nan
    found = hktune.gated_grouped_mm(**given)
    assert table.stats().hits == 1
    wanted = torch.zeros(M, N, dtype=torch.bool)
    wanted[7] = wanted[20:, 2] = True
    assert torch.equal(found.isnan(), wanted)
    given["b"] = given["b"].contiguous()  # which no kernel takes
    with pytest.warns(FallbackWarning):
        assert torch.equal(hktune.gated_grouped_mm(**given).isnan(), wanted)


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "scales of gates alone": (
        r"scales must be float32, \[24\] and \[4, 64\], got \[24\] float32 and \[4, 32\] float32",
        {"scale_b": torch.ones(GROUPS, N)},
    ),
    "scales of 16 bits": (r"got \[24\] bfloat16 and \[4, 64\] float32", {"scale_a": torch.ones(M).bfloat16()}),
    "bf16": (
        "must both be float8_e4m3fn, or int8, got bfloat16 and bfloat16",
        {"a": torch.ones(M, K).bfloat16(), "b": torch.ones(GROUPS, K, 2 * N).bfloat16()},
    ),
    "odd columns": (
        "a gated weight has 63 rows",
        {"b": torch.ones(GROUPS, 63, K).to(FLOAT8).mT, "scale_b": torch.ones(GROUPS, 63)},
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(table: LoadedTable, wrong: str) -> None:
    line, named = WRONG[wrong]
    with pytest.warns(FallbackWarning), pytest.raises(InputError, match=line) as refused:
        hktune.gated_grouped_mm(**{**operands(), **named})
    assert "\n" not in str(refused.value)


def test_scales_and_what_goes_with_them_are_asked_for_together(table: LoadedTable) -> None:
    given = operands()
    alone = {name: given[name] for name in ("a", "b", "offs")}
    line = "gated_grouped_mm: scale_a, scale_b, out_dtype and use_fast_accum go together: pass both scales"
    scales = [{name: given[name]} for name in ("scale_a", "scale_b")]
    for named in (*scales, {"out_dtype": torch.bfloat16}, {"use_fast_accum": True}):
        with pytest.raises(InputError, match=f"^{line}$"):
            hktune.gated_grouped_mm(**alone, **named)
    with pytest.raises(InputError, match="activation 'tanh' is not known: known are relu, gelu, gelu_tanh, silu"):
        hktune.scaled_grouped_mm(**given, activation="tanh")


def test_a_compiled_model_has_the_kernel(table: LoadedTable) -> None:
    given = operands()
    compiled = torch.compile(lambda **given: hktune.gated_grouped_mm(**given) * 2, backend="aot_eager", fullgraph=True)
    close(compiled(**given), 2 * gates(exact(**given)))
    assert (table.stats().hits, table.stats().fallbacks) == (1, {})


def test_a_graph_without_an_entry_has_torchs_gates(table: LoadedTable) -> None:
    """Which a compiler may fuse, behind the operator of a product that the table serves."""
    given, seen = operands(), list[Any]()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        del inputs
        seen.extend(node for node in graph.graph.nodes if "hktune" in str(node.target))
        return graph.forward

    for activation, steps in (("gelu", []), ("silu", [["silu", "gated"]])):
        own = partial(hktune.gated_grouped_mm, activation=activation)
        compiled = torch.compile(own, backend=backend, fullgraph=True)
        close(compiled(**given), gates(exact(**given), activation))
        (node,) = seen
        assert list(node.args[8:]) == steps
        seen.clear()
        torch._dynamo.reset()
    assert (table.stats().hits, table.stats().fallbacks) == (2, {})


def test_modes_see_one_operator(table: LoadedTable) -> None:
    given = operands()
    with FlopCounterMode(display=False) as flops:
        found = hktune.gated_grouped_mm(**given)
    close(found, gates(exact(**given)))
    assert flops.get_total_flops() == 2 * M * 2 * N * K
    with torch.autocast("cpu", torch.bfloat16), torch.device("cpu"):
        close(hktune.gated_grouped_mm(**given), gates(exact(**given)))
    assert table.stats().hits == 2
    operator, checks = torch.ops.hktune.scaled_grouped_mm.default, ("test_faketensor", "test_aot_dispatch_dynamic")
    named = (given["a"], given["b"], given["scale_a"], given["scale_b"], given["offs"], torch.bfloat16, False)
    torch.library.opcheck(operator, (*named, None, ["silu", "gated"]), test_utils=checks)


def test_tensors_without_memory_need_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_current", None)
    given = operands()
    with FakeTensorMode() as mode:
        fakes: dict[str, Any] = {name: mode.from_tensor(each) for name, each in given.items()}
        fake = hktune.gated_grouped_mm(**fakes)
    assert (fake.shape, fake.dtype) == ((M, N), torch.bfloat16)
    with pytest.raises(TableError, match=r"no dispatch table is loaded: call hktune\.load"):
        hktune.gated_grouped_mm(**given)


def calls() -> None:
    plain = operands(N)
    hktune.gated_grouped_mm(**operands())
    hktune.gated_grouped_mm(**operands(), activation="gelu", interleaved=True, use_fast_accum=True)
    hktune.gated_grouped_mm(**operands(), activation="relu")
    hktune.scaled_grouped_mm(**plain, activation="gelu_tanh")


def test_on_nvidia_what_one_kernel_does_is_recorded_with_tokens(
    table: LoadedTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorded_several, "_is_nvidia", lambda tensor: True)
    for has_table in (True, False):
        with hktune.record(tmp_path / "shapes.yaml"):
            calls()
        shapes = load_shapes(tmp_path / "shapes.yaml")
        assert {str(shape.problem): shape.weight for shape in shapes} == {
            f"24x32x64 {ROWS}->bf16+silu+gated": 1,
            f"24x32x64 {ROWS}.fast->bf16+gelu+gated_interleaved": 1,
            f"24x64x64 {ROWS}->bf16": 1,  # no kernel gates by relu
            f"24x32x64 {ROWS}->bf16+gelu_tanh": 1,
        }
        assert {shape.tokens for shape in shapes} == {((0, 1), (4, 1), (5, 1), (15, 1))}
        template = load_template(SM90A)
        assert all(template.does(shape.problem.operation) for shape in shapes)
        if has_table:
            hktune.unload()


def test_elsewhere_products_are_recorded(table: LoadedTable) -> None:
    """The template of gfx950 has nothing but a bias behind them, and a file with such is refused."""
    with recorder.Recorder() as seen:
        calls()
    counts = {str(problem): count for problem, count in seen.calls.items()}
    assert counts == {f"24x64x64 {ROWS}->bf16": 3, f"24x32x64 {ROWS}->bf16": 1}


def test_the_doctor_finds_no_row_that_no_call_reaches(table: LoadedTable, tmp_path: Path) -> None:
    found = examine_table(tmp_path, [], None, {}, allow_modelled=True)
    assert [str(each) for each in found if each.wrong] == []
    table.warm()
