"""The sm90a GEMM of numbers of 8 bits without a GPU: machine code, boxes, parameters, and what the space says of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_sm90a_gemm_bf16 import PING_PONG, SWAPPED, built, config, derived, machine_code, space

from hktune.core.arch import SM90A
from hktune.core.config import Config, Value
from hktune.core.dtype import E5M2, I8
from hktune.core.errors import TemplateError
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.sums import sums_of
from hktune.objects.cubin import TENSOR_MAP_BYTES, read_cubin
from hktune.space.search_space import SearchSpace
from hktune.template.alternatives import TEXTS_MAX, spelled_out

pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'hktune[cuda]'")

NARROW: dict[str, Value] = {"block_n": 128}


def needs_of(own: SearchSpace, chosen: Config) -> dict[str, Value]:
    """What is derived of a config, for sizes that break no rule."""
    return own.derived.values({**chosen, **own.template.records, "m": 64, "n": 64, "k": 64})


@pytest.mark.parametrize(
    ("text", "values", "multiply", "taken_over"),
    [
        ("e4m3.nt.tensor.fast->bf16", {}, "QGMMA.64x256x32.F32.E4M3.E4M3", False),
        ("e4m3.nt.tensor->bf16", {**NARROW, "k_step": 256, "stages": 3}, "QGMMA.64x128x32.F32.E4M3.E4M3", True),
        ("e5m2*e4m3.nt.rows->f32", {**SWAPPED}, "QGMMA.64x16x32.F32.E4M3.E5M2", True),
        ("e4m3.nt.rows->bf16", {**NARROW, "block_m": 256, "k_step": 128}, "QGMMA.64x128x32.F32.E4M3.E4M3", True),
        ("e4m3.nt.blocks->f16", {**PING_PONG, "block_n": 96}, "QGMMA.64x96x32.F32.E4M3.E4M3", True),
        ("i8.nt->i32", {**NARROW}, "IGMMA.64x128x32.S8.S8", False),
    ],
)
def test_multiplies_are_of_the_formats_and_waited_for_once_a_run(
    text: str, values: dict[str, Value], multiply: str, taken_over: bool, tmp_path: Path
) -> None:
    chosen, operation = config(**values), operation_of(text)
    of_operation, needs = space().for_operation(operation), derived(chosen)
    assert not list(of_operation.violations(chosen))
    assert not built(chosen, operation).resources.spills
    code = machine_code(chosen, tmp_path, operation)
    assert {name for name in code if "GMMA" in name} == {multiply}
    needs_of_operation = needs_of(of_operation, chosen)
    alone = taken_over and needs_of_operation["run_buffers"] == 1
    fragments, k_step = 1 if alone else int(needs["fragments"]), int(chosen["k_step"])
    in_a_row = fragments * (min(k_step, 128) if taken_over else k_step) // 32
    multiplies = sum("GMMA" in name for name in code)
    assert code.count("WARPGROUP.ARRIVE") == multiplies // in_a_row, "else ptxas waits after every multiply"
    additions = sum(name.split(".")[0] in ("FADD", "FFMA") for name in code)
    if taken_over:
        assert additions >= multiplies // in_a_row * fragments * int(needs["accumulators"])
        assert sums_of(operation, SM90A).run_k >= min(k_step, 128)


@pytest.mark.parametrize(("text", "dtype"), [("e5m2*e4m3.nt.rows->bf16", E5M2), ("i8.nt->i32", I8)])
def test_boxes_are_of_bytes_and_factors_are_parameters_of_their_own(text: str, dtype: object) -> None:
    operation, chosen = operation_of(text), config(**NARROW)
    cubin = read_cubin(built(chosen, operation).data)
    boxes, kernel = cubin.boxes, cubin.kernels["hktune_gemm_bf16"]
    assert dtype in boxes["a"].dtypes
    assert (boxes["a"].columns, boxes["a"].element_bytes) == (64, 1), "a K-step of 64 elements is half a swizzled line"
    sizes = [parameter.size_bytes for parameter in kernel.parameters]
    assert sizes.count(TENSOR_MAP_BYTES) == 3
    assert kernel.mismatch(space().template.arguments_for(operation)) is None
    taken = {argument.name for argument in space().template.arguments_for(operation)}
    assert ({"scale_a", "scale_b"} <= taken) is bool(operation.scales)


@pytest.mark.parametrize("text", [pytest.param("e4m3.nt.blocks->bf16", marks=pytest.mark.slow), "e4m3.nt.rows->f16"])
def test_taking_sums_over_does_not_spill_over_the_space(text: str) -> None:
    """Of 60 random configs the one that has the fewest registers to spare."""
    of_operation, draw = space().for_operation(operation_of(text)), random.Random(text)

    def to_spare(chosen: Config) -> int:
        needs = needs_of(of_operation, chosen)
        return int(needs["consumer_budget"]) - int(needs["needed_registers"])

    chosen = min((of_operation.sample(draw) for _ in range(60)), key=to_spare)
    assert not built(chosen, operation_of(text)).resources.spills, dict(chosen)


@pytest.mark.parametrize(
    ("text", "rule"), [("i8.nt->i32", "integer_columns"), ("e4m3.nt.rows->bf16", None), ("bf16.nt", None)]
)
def test_integers_have_fewer_widths(text: str, rule: str | None) -> None:
    chosen = config(swapped=True, block_m=40, block_n=128, cluster_rows=1)
    broken = space().for_operation(operation_of(text)).violations(chosen)
    assert [violation.name for violation in broken] == ([rule] if rule else [])


def test_sums_that_are_taken_over_need_registers_twice() -> None:
    broken = {
        text: [violation.name for violation in space().for_operation(operation_of(text)).violations(config())]
        for text in ("e4m3.nt.rows->bf16", "e4m3.nt.rows.fast->bf16", "bf16.nt")
    }
    assert broken == {"e4m3.nt.rows->bf16": ["accumulators_fit"], "e4m3.nt.rows.fast->bf16": [], "bf16.nt": []}


def test_rows_of_16_elements_are_what_tensor_copies_need() -> None:
    operation = operation_of("e4m3.nt.rows.fast->bf16")
    of_operation = space().for_operation(operation)
    assert of_operation.is_legal(config(), Problem(3, 8, 48, operation))
    broken = of_operation.violations(config(), Problem(3, 8, 40, operation))
    assert [str(violation) for violation in broken] == [
        f"aligned_{name.lower()}: rows of {name} are 40 bytes: TMA needs multiples of 16, "
        "which this operation loads alone"
        for name in "AB"
    ]


def test_every_scaled_operation_has_seeds_of_each_kind() -> None:
    for operation in {each.code for each in space().template.operations}:  # those of one code have the same seeds
        if operation.a_dtype.bytes == 1:
            seeds = space().for_operation(operation).seeds
            assert {bool(seed["swapped"]) for seed in seeds} == {False, True}
            assert (max(int(seed["split_k"]) for seed in seeds) > 1) is not operation.is_grouped, "groups split no K"


def test_proofs_judge_sums_by_what_the_operation_says_of_them() -> None:
    for text, run_k in (("e4m3.nt.rows->bf16", 128), ("e4m3.nt.rows.fast->bf16", 0)):
        template = space().template.for_operation(operation_of(text))
        chosen = config(**NARROW)
        proofs = [*template.proof_problems(chosen), template.own_proof(Problem(16, 16, 64, template.operation))]
        assert {(proof.sums.run_k, proof.sums.significand_bits) for proof in proofs} == {(run_k, 14)}


def test_alternatives_are_spelled_out_and_are_not_too_many() -> None:
    assert spelled_out(["{a,b}.nt{,+bias}", "c.nn"]) == ["a.nt", "a.nt+bias", "b.nt", "b.nt+bias", "c.nn"]
    with pytest.raises(TemplateError, match=f"makes more than {TEXTS_MAX} of them: name fewer"):
        spelled_out(["{a,b}" * 12])
