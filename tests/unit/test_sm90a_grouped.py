"""Grouped products of the sm90a GEMM with gates, activations and scales, without a GPU: machine code, parameters, and
what the space says of them. On one, tests/gpu/test_sm90a_several_products.py has their proofs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from test_sm90a_gemm_bf16 import TURNED, built, config, machine_code, space

from hktune.core.config import Value
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.dispatch.calls import SEVERAL_OPERATIONS
from hktune.objects.cubin import read_cubin
from hktune.runtime.serving.route import Route

NARROW: dict[str, Value] = {**TURNED, "block_m": 16, "block_n": 128}
OPERATIONS = [
    *("grouped.bf16.nt+silu+gated", "grouped.f16.nn+gelu+gated", "grouped.bf16.nt+gelu", "grouped.f16.nn+relu"),
    *("grouped.bf16.nt+silu+gated_interleaved", "grouped.e4m3.nt.rows->bf16", "grouped.e4m3.nt.rows.fast->f32"),
    *("grouped.e4m3.nt.rows.fast->bf16+silu+gated", "grouped.e4m3.nt.rows->bf16+gelu+gated_interleaved"),
    *("grouped.e4m3.nt.rows->bf16+relu", "grouped.i8.nt.rows->bf16", "grouped.i8.nt.rows->f32"),
]


def test_the_template_has_what_calls_of_experts_ask_for() -> None:
    """All but gradients that are added to 16 bits."""
    asked = [each for each in SEVERAL_OPERATIONS if each.is_grouped and (each.c == "f32" or not each.accumulates)]
    assert len(asked) > 100
    assert [str(each) for each in asked if not space().template.does(each)] == []


@pytest.mark.parametrize("text", [*OPERATIONS, "grouped.bf16.tn->f32"])
def test_what_a_search_may_try_builds_without_spills(text: str) -> None:
    operation = operation_of(text)
    own, chance = space().for_operation(operation), random.Random(text)
    for chosen in (own.seeds[0], own.sample(chance)):
        code = built(chosen, operation)
        assert not code.resources.spills, dict(chosen)
        kernel = read_cubin(code.data).kernels[code.symbol]
        assert kernel.mismatch(own.template.arguments_for(operation)) is None


@pytest.mark.parametrize(
    ("text", "multiply"),
    [
        ("grouped.e4m3.nt.rows.fast->bf16+silu+gated", "QGMMA"),
        ("grouped.bf16.nt+silu+gated_interleaved", "HGMMA"),
        ("grouped.i8.nt.rows->bf16", "IGMMA"),
    ],
)
def test_rows_are_stored_as_far_as_a_group_goes(tmp_path: Path, text: str, multiply: str) -> None:
    operation = operation_of(text)
    chosen = config(**NARROW, k_step=128) if operation.a_dtype.bytes == 1 else config(**NARROW)
    boxes = read_cubin(built(chosen, operation).data).boxes
    assert sorted(boxes) == ["a", "b"], "TMA would write into the next product's rows"
    assert boxes["b"].dimensions == (3 if "interleaved" in text else 2), "gates that take turns are one axis more"
    names = machine_code(chosen, tmp_path, operation)
    families = {name.partition(".")[0] for name in names}
    assert multiply in families
    assert any(name.startswith("STG.E.128") for name in names)
    assert not families & {"UTMASTG", "STL", "LDL"}


def test_gradients_are_added_by_tma_to_the_matrix_of_their_group(tmp_path: Path) -> None:
    operation = operation_of("grouped.bf16.tn->f32")
    chosen = config(**TURNED)
    assert read_cubin(built(chosen, operation).data).boxes["c"].dimensions == 3
    assert any(name.startswith("UTMAREDG.3D.ADD") for name in machine_code(chosen, tmp_path, operation))


def test_a_call_of_the_runtime_has_all_that_a_kernel_takes() -> None:
    for each in SEVERAL_OPERATIONS:
        operation = operation_of(str(replace(each, count=4)))
        if not space().template.does(operation):
            continue
        problem = Problem(64, 64, 64, operation)
        own = space().for_operation(operation.code)
        given = Route(problem.key, 0, near=False).operands
        launch = own.template.launch(own.seeds[0], problem)
        taken = {argument.name for argument in launch.bound_arguments if argument.kind == "pointer"}
        assert {"a", "b", "c"} < taken <= {*given}, str(operation)


@pytest.mark.parametrize("text", OPERATIONS)
def test_any_config_of_a_search_is_legal_for_experts(text: str) -> None:
    """Of a router's sizes: rows of C that no block divides, and none that a group has to have."""
    own, chance = space().for_operation(operation_of(text)), random.Random(text)
    for rows in (1, 77, 4096):
        problem = Problem(rows, 768, 2048, operation_of(text.replace("grouped", "grouped128")))
        assert any(own.is_legal(own.sample(chance), problem) for _ in range(40)), rows


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("8x16400x16:grouped65535.bf16.nt+silu", ""),
        ("8x16400x16:grouped65535.bf16.nt+silu+gated", "sizes_fit"),  # gates are columns of B, too
        ("8x64x72:grouped4.bf16.nt+silu+gated", ""),
        ("8x64x72:grouped4.bf16.nn+silu+gated", "whole_k_steps"),
        ("8x60x72:grouped4.bf16.nt+silu+gated", "aligned_n"),
    ],
)
def test_rules_of_several_products_know_gates(text: str, broken: str) -> None:
    problem = problem_of(text)
    own = space().for_operation(problem.operation)
    found = [violation.name for violation in own.violations(config(**NARROW), problem)]
    assert found == ([broken] if broken else [])


def test_groups_of_rows_split_no_k_and_keep_their_blocks() -> None:
    own = space().for_operation(operation_of("grouped.e4m3.nt.rows->bf16+silu+gated"))
    chance = random.Random(0)
    sampled = [own.sample(chance) for _ in range(20)]
    assert {(each["persistent"], each["split_k"]) for each in sampled} == {(True, 1)}
