"""The sm90a GEMM's epilogues without a GPU: their machine code, and its registers."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_sm90a_gemm_bf16 import PING_PONG, SWAPPED, built, config, derived, machine_code, space

from hktune.core.arch import SM90A
from hktune.core.config import Config, Value
from hktune.core.operation import ACTIVATIONS, operation_of
from hktune.core.problem import Problem
from hktune.objects.cubin import TENSOR_MAP_BYTES, Box, read_cubin

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

SPECIAL_FUNCTIONS = {"relu": [], "gelu": ["EX2"], "gelu_tanh": ["EX2", "RCP"], "silu": ["EX2", "RCP"]}
"""What is asked of the unit of 16 lanes for each number of C."""
SMALL: dict[str, Value] = {"block_n": 64}
IN_TURNS: dict[str, Value] = {**PING_PONG, **SMALL}


@pytest.mark.parametrize(
    ("values", "activation"),
    [*((SMALL, activation) for activation in ACTIVATIONS), (IN_TURNS, "gelu"), (SWAPPED, "silu")],
)
def test_each_number_of_a_tile_is_activated_once(values: dict[str, Value], activation: str, tmp_path: Path) -> None:
    chosen, operation = config(**values), operation_of(f"bf16.nt+{activation}")
    code, needs = machine_code(chosen, tmp_path, operation), derived(chosen)
    numbers = int(needs["fragments"]) * int(needs["accumulators"])
    plain = machine_code(chosen, tmp_path, operation.bare)  # whose schedule divides, too
    for name in ("EX2", "RCP", "TANH"):
        found = code.count(f"MUFU.{name}") - plain.count(f"MUFU.{name}")
        assert found == numbers * SPECIAL_FUNCTIONS[activation].count(name), name
    larger = [name for name in code if re.match(r"FMNMX\S*NAN", name)]
    assert len(larger) == numbers * (activation in ("relu", "gelu")), "max(x, 0) that keeps what is no number"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["f16.nn+gelu", "bf16.nt+residual", "bf16.nn+silu+gated"])
def test_an_epilogue_does_not_spill_over_the_space(text: str) -> None:
    """Random configs, of 60 those six that have the fewest registers to spare."""
    of_operation = space().for_operation(operation_of(text))
    draw = random.Random(text)
    drawn = [of_operation.sample(draw) for _ in range(60)]
    for chosen in sorted(drawn, key=_registers_to_spare)[:6]:
        assert not built(chosen, operation_of(text)).resources.spills, dict(chosen)


def _registers_to_spare(chosen: Config) -> int:
    needs = derived(chosen)
    return int(needs["consumer_budget"]) - int(needs["needed_registers"])


GATED, RESIDUAL = operation_of("bf16.nt+silu+gated"), operation_of("bf16.nt+residual")
NARROW: dict[str, Value] = {**SWAPPED, "block_n": 128, "split_k": 1}


@pytest.mark.parametrize(
    ("values", "text", "box"),
    [
        ({"cluster_rows": 1}, "bf16.nt+silu+gated", (128, 64)),  # gates, and then what they gate
        ({}, "bf16.nt+silu+gated", (128, 64)),  # one block of the cluster sends gates, the other what they gate
        ({"cluster_rows": 1, "block_n": 160}, "bf16.nn+silu+gated", (64, 16)),  # 80 gates are pieces of 16
        (NARROW, "bf16.nt+silu+gated", (64, 64)),
    ],
)
def test_gates_come_in_boxes_of_their_own(values: dict[str, Value], text: str, box: tuple[int, int]) -> None:
    chosen = config(**values)
    assert space().for_operation(operation_of(text)).is_legal(chosen)
    assert read_cubin(built(chosen, operation_of(text)).data).boxes["b"] == Box(*box)


@pytest.mark.parametrize("values", [SMALL, NARROW], ids=["usual", "swapped"])
def test_gates_halve_what_is_activated_and_stored(values: dict[str, Value], tmp_path: Path) -> None:
    chosen = config(**values)
    code, plain = (machine_code(chosen, tmp_path, operation) for operation in (GATED, GATED.bare))
    needs = derived(chosen)
    numbers = int(needs["fragments"]) * int(needs["accumulators"])
    assert code.count("MUFU.EX2") == numbers // 2
    staged = [sum(name.startswith("STSM") for name in names) for names in (code, plain)]
    assert staged[0] * 2 == staged[1]
    multiplies = [[name for name in names if name.startswith("HGMMA")] for names in (code, plain)]
    assert multiplies[0] == multiplies[1]


def test_a_launch_of_gates_covers_every_column_of_c() -> None:
    template = space().template.for_operation(GATED)
    once = config(persistent=False, cluster_rows=1)
    assert template.tile(once).n == 128
    assert template.launch(once, Problem(256, 4096, 64, GATED)).grid == (2 * 32, 1, 1)
    narrow = config(**NARROW)
    assert template.launch(narrow, Problem(16, 4096, 64, GATED)).grid == (4096 // 64, 1, 1)
    assert template.launch(config(), Problem(8192, 8192, 64, GATED)).grid == (SM90A.compute_units, 1, 1)


@pytest.mark.parametrize(
    ("values", "in_stages"),
    [
        *((SMALL, True), ({**SMALL, "persistent": False}, True), (NARROW, True)),
        *((SWAPPED, False), ({**SMALL, "store": "direct"}, False)),
    ],
    ids=["usual", "one tile", "swapped", "split", "direct"],
)
def test_a_residual_comes_as_c_goes(values: dict[str, Value], in_stages: bool, tmp_path: Path) -> None:
    """By TMA in the boxes of C, read from shared memory as C is written there; or each number by its thread."""
    chosen = config(**values)
    cubin = read_cubin(built(chosen, RESIDUAL).data)
    [kernel] = cubin.kernels.values()
    assert len(kernel.parameters) == 10
    assert (kernel.parameters[-1].size_bytes == TENSOR_MAP_BYTES) == in_stages
    assert kernel.mismatch(space().template.arguments_for(RESIDUAL)) is None
    code = machine_code(chosen, tmp_path, RESIDUAL)
    read = sum(name.startswith("LDSM") for name in code)
    assert read == (sum(name.startswith("STSM") for name in code) if in_stages else 0)
    if in_stages:
        assert cubin.boxes["residual"] == cubin.boxes["c"]


def test_other_kernels_take_no_residual() -> None:
    [kernel] = read_cubin(built(config(), GATED).data).kernels.values()
    assert len(kernel.parameters) == 9


@pytest.mark.parametrize("values", [SMALL, NARROW], ids=["usual", "swapped"])
def test_gates_in_turn_are_loaded_from_two_matrices_and_nothing_else_changes(
    values: dict[str, Value], tmp_path: Path
) -> None:
    chosen, in_turn = config(**values), operation_of("bf16.nt+silu+gated_interleaved")
    boxes, halves = (read_cubin(built(chosen, each).data).boxes for each in (in_turn, GATED))
    assert boxes == {**halves, "b": replace(halves["b"], dimensions=3)}
    codes = [machine_code(chosen, tmp_path, each) for each in (in_turn, GATED)]
    loads = [sorted(name for name in code if name.startswith("UTMALDG")) for code in codes]
    assert len(loads[0]) == len(loads[1])
    assert [name.replace("3D", "2D") for name in loads[0]] == loads[1] != loads[0]
    kept = [sorted(name for name in code if name.startswith(("HGMMA", "STSM", "MUFU", "F2FP"))) for code in codes]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("values", "stored"), [(SMALL, "STS.U16"), (NARROW, "STS.U8")], ids=["usual", "swapped"])
def test_float8_is_rounded_once_and_stored_as_bytes(values: dict[str, Value], stored: str, tmp_path: Path) -> None:
    chosen, operation = config(**values), operation_of("bf16.nt->e4m3+gelu")
    code, needs = machine_code(chosen, tmp_path, operation), derived(chosen)
    numbers = int(needs["fragments"]) * int(needs["accumulators"])
    assert sum(name.startswith("F2FP.SATFINITE.E4M3") for name in code) == numbers // 2  # two at a time
    assert code.count(stored) == (numbers // 2 if stored == "STS.U16" else numbers)
    cubin = read_cubin(built(chosen, operation).data)
    [kernel] = cubin.kernels.values()
    assert kernel.mismatch(space().template.arguments_for(operation)) is None
    assert cubin.boxes["c"].data_type == 0


def test_numbers_that_multiply_are_the_last_pointers() -> None:
    operation = operation_of("bf16.nt+alpha+beta_residual")
    [kernel] = read_cubin(built(config(**SMALL), operation).data).kernels.values()
    arguments = space().template.arguments_for(operation)
    assert [argument.name for argument in arguments[-3:]] == ["residual", "alpha", "beta"]
    assert kernel.mismatch(arguments) is None


@pytest.mark.parametrize(
    "text", ["bf16.nt->e4m3+gelu", "f16.nt->e4m3+silu+gated", "e4m3.nt.rows+silu+gated_interleaved"]
)
def test_proofs_of_float8_are_legal_for_every_seed(text: str) -> None:
    """Rows of C of 8 bits are longer than those of 16 before TMA takes them."""
    of_operation = space().for_operation(operation_of(text))
    seeds = [seed for seed in of_operation.seeds if seed["store"] == "tma"]
    assert seeds
    for seed in seeds:
        assert all(of_operation.is_legal(seed, proof.problem) for proof in of_operation.template.proof_problems(seed))
