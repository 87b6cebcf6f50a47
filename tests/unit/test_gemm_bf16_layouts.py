"""The gfx950 GEMM of operands that are stored either way round, and of float32 outputs.

Numpy's float64 is the truth. Sums are exact, so that every bit of C is known; what no operand has is NaN.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from gemm_bf16_variants import compiled, pipeline_of, space
from pipeline_order import disorders

from hktune.core.config import Config
from hktune.core.operation import Operation, operation_of
from hktune.core.problem import Problem
from hktune.device.emulated import EmulatedDevice
from hktune.emulator.clock.trace import Trace
from hktune.verify import Proof, verify

LAYOUTS = ("nt", "nn", "tn", "tt")
TRANSPOSED = ("nn", "tn", "tt")
Bits = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]

# One of each schedule and both MFMA shapes; parts of 16, 32, 48, 64, 96 and 192 lines, of which warps have 16 to 96.
SMALL = {"block_m": 64, "block_n": 64, "warps_n": 2, "split": 1}
KNOBS: dict[str, dict[str, object]] = {
    "pingpong": {"schedule": "pingpong", "block_m": 128, "block_n": 128, "warps_m": 4, "warps_n": 2}
    | {"stages": 3, "refill": "late", "vmcnt_tiles": 1, "lgkmcnt_clusters": 1, "read_across": True, "spread": 4}
    | {"vmcnt_waits": "cluster"},
    "pingpong of 32": {"schedule": "pingpong", "block_m": 128, "block_n": 256, "mfma": 32, "refill": "late"}
    | {"lgkmcnt_clusters": 1, "spread": 4},
    "interleave": {"schedule": "interleave", "block_m": 64, "block_n": 192, "warps_n": 2, "split": 1, "slices": 2}
    | {"refill": "late", "lgkmcnt_clusters": 1, "read_across": True},
    "pipeline of 32": {**SMALL, "mfma": 32, "stages": 3, "vmcnt_tiles": 1},
    "parts of 16 lines": {**SMALL, "block_m": 32, "block_n": 32, "warps_m": 1, "warps_n": 1, "split": 2, "k_step": 32},
    "warps of 48 lines": {"block_m": 192, "block_n": 192, "warps_m": 4, "warps_n": 2, "split": 1},
    "split K": {**SMALL, "k_step": 128, "slices": 2, "split_k": 4},
}


def output_of(config: Config, problem: Problem, a: Floats, b: Floats, bias: Floats | None, held: Floats) -> Bits:
    """C's bits as the kernel leaves it where it `held` something, judged for hazards too. All rows are 8 elements
    apart: NaN in A and B."""
    operation = problem.operation
    template = space().for_operation(operation).template
    stored = {"a": a if operation.layout[0] == "n" else a.T, "b": b if operation.layout[1] == "n" else b.T}
    arrays = {
        name: operation.a_dtype.bits(np.pad(matrix, ((0, 0), (0, 8)), constant_values=np.nan).astype(np.float32))
        for name, matrix in stored.items()
    }
    untouched = operation.c_dtype.bits(np.pad(held, ((0, 0), (0, 8)), constant_values=-777.0).astype(np.float32))
    arrays["c"] = untouched.copy()
    if bias is not None:
        arrays["bias"] = operation.c_dtype.bits(bias.astype(np.float32))
    launch = template.launch(config, problem)
    arrays["workspace"] = np.zeros(max(1, launch.workspace_bytes), np.uint8)
    device, code = EmulatedDevice(find_hazards=True), compiled(template.render(config))
    buffers = {name: device.allocate(array.nbytes) for name, array in arrays.items()}
    for name, array in arrays.items():
        device.write(buffers[name], array)
    numbers = {"m": problem.m, "n": problem.n, "k": problem.k, "ldc": problem.n + 8}
    numbers |= {"lda": stored["a"].shape[1] + 8, "ldb": stored["b"].shape[1] + 8}
    device.launch(device.load(code.data, code.symbol), launch, {"bias": None, **buffers, **numbers})
    device.read(buffers["c"], arrays["c"])
    assert (arrays["c"][:, problem.n :] == untouched[:, problem.n :]).all()
    return arrays["c"][:, : problem.n]


def ragged(config: Config, operation: Operation) -> Problem:
    """More than one block each way, and sizes that no tile divides: as odd as the operation allows."""
    template = space().for_operation(operation).template
    tile, units = template.tile(config), template.derived_values(config)
    unit_m, unit_n, unit_k = (int(units[name]) for name in ("unit_m", "unit_n", "unit_k"))
    depth = tile.k * int(config["split_k"]) * 2
    problem = Problem(tile.m + 3 * unit_m, tile.n // 2 + 5 * unit_n, depth + 3 * unit_k, operation)
    assert space().for_operation(operation).is_legal(config, problem)
    return problem


def check(config: Config, problem: Problem) -> None:
    chance, operation = np.random.default_rng(3), problem.operation
    a = chance.integers(-9, 10, (problem.m, problem.k)).astype(np.float64)
    b = chance.integers(-9, 10, (problem.k, problem.n)).astype(np.float64)
    bias = as_c(chance.integers(-2000, 2001, problem.n), operation) if operation.has_bias else None
    held = as_c(chance.integers(-2000, 2001, (problem.m, problem.n)), operation)
    exact = a @ b + (0.0 if bias is None else bias) + (held if operation.accumulates else 0.0)
    expected = operation.c_dtype.bits(exact.astype(np.float32))
    np.testing.assert_array_equal(output_of(config, problem, a, b, bias, held), expected)


def as_c(values: npt.NDArray[np.int64], operation: Operation) -> Floats:
    """Numbers as the format of C has them."""
    return operation.c_dtype.values(operation.c_dtype.bits(values.astype(np.float32))).astype(np.float64)


@pytest.mark.parametrize("layout", TRANSPOSED)
@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_every_bit_of_c_is_right_however_the_operands_are_stored(knobs: dict[str, object], layout: str) -> None:
    config = space().config(knobs)
    dtype = random.Random(layout + str(knobs)).choice(["bf16", "f16"])
    check(config, ragged(config, operation_of(f"{dtype}.{layout}+bias")))


@pytest.mark.parametrize("name", ["interleave", "pipeline of 32", "split K"])
@pytest.mark.parametrize("text", ["bf16.nt->f32+bias", "f16.tn->f32"])
def test_a_float32_output_is_not_rounded(name: str, text: str) -> None:
    config, operation = space().config(KNOBS[name]), operation_of(text)
    problem = ragged(config, operation)
    check(config, problem)
    check(config, replace(problem, n=problem.n + -problem.n % 8))  # rows of whole vectors


@pytest.mark.parametrize("name", ["pingpong", "pipeline of 32", "split K"])
@pytest.mark.parametrize("text", ["bf16.tn->f32+accumulate", "f16.tn+accumulate"])
def test_what_c_held_is_added_before_the_one_rounding(name: str, text: str) -> None:
    config, operation = space().config(KNOBS[name]), operation_of(text)
    problem = ragged(config, operation)
    check(config, replace(problem, n=problem.n - problem.n % 8))


def test_elements_of_c_are_added_to_where_rows_begin_anywhere() -> None:
    config, operation = space().config(KNOBS["pipeline of 32"]), operation_of("bf16.nt->f32+accumulate")
    check(config, replace(ragged(config, operation), k=8))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_k_and_one_line_are_a_problem_too(layout: str) -> None:
    config, operation = space().config(SMALL), operation_of(f"bf16.{layout}")
    units = space().for_operation(operation).template.derived_values(config)
    check(config, Problem(int(units["unit_m"]), int(units["unit_n"]), int(units["unit_k"]), operation))


def traced(config: Config, operation: Operation) -> Trace:
    template = space().for_operation(operation).template
    problem = template.proof_problems(config)[0].problem
    device, code = EmulatedDevice(record_trace=True), compiled(template.render(config))
    outcome = verify(device, device.load(code.data, code.symbol), template.launch(config, problem), problem, seed=1)
    assert isinstance(outcome, Proof), outcome
    assert device.trace is not None
    return device.trace


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_reads_of_lds_meet_no_bank_conflicts(knobs: dict[str, object]) -> None:
    """64 banks of 4 bytes: 8 bytes a lane take 2 clk at best. nn reads A in whole vectors, which take 4."""
    trace = traced(space().config(knobs), operation_of("bf16.nn"))
    found = {"ds_read_b64_tr_b16": set[int](), "ds_read_b128": set[int]()}
    for wave in trace.waves:
        for step, clocks in zip(wave.steps, wave.lds_bank_clocks, strict=True):
            if trace.program[step].mnemonic in found:
                found[trace.program[step].mnemonic].add(int(clocks))
    assert found == {"ds_read_b64_tr_b16": {2}, "ds_read_b128": {4}}


@pytest.mark.parametrize("layout", TRANSPOSED)
@pytest.mark.parametrize("name", ["pingpong", "interleave", "pipeline of 32"])
def test_every_tile_has_landed_when_it_is_read(name: str, layout: str) -> None:
    config, operation = space().config(KNOBS[name]), operation_of(f"f16.{layout}")
    assert disorders(traced(config, operation), pipeline_of(config, operation)) == []


REFUSED = {
    "nt": ("whole_vectors_of_k", Problem(64, 64, 68)),
    "nn": ("whole_vectors_of_n", Problem(64, 68, 64)),
    "tn": ("whole_vectors_of_m", Problem(68, 64, 64)),
    "tt": ("whole_vectors_of_k", Problem(64, 64, 68)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_contiguous_comes_in_eights(layout: str) -> None:
    rule, problem = REFUSED[layout]
    operation = operation_of(f"bf16.{layout}")
    own = space().for_operation(operation)
    violations = own.violations(own.config(SMALL), replace(problem, operation=operation))
    assert [each.name for each in violations] == [rule]
    assert "16 bytes" in violations[0].reason
    free = {"nt": (65, 67, 64), "nn": (65, 64, 64), "tn": (64, 64, 67), "tt": (64, 67, 64)}[layout]
    assert own.is_legal(own.config(SMALL), Problem(*free, operation))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_seed_is_legal_for_every_layout(layout: str) -> None:
    assert space().for_operation(operation_of(f"f16.{layout}->f32")).seeds == space().seeds


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("c", ["", "->f32"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_a_config_drawn_at_random_is_right(dtype: str, layout: str, c: str, number: int) -> None:
    own = space().for_operation(operation_of(f"{dtype}.{layout}{c}"))
    config = own.sample(random.Random(f"{dtype}.{layout}{c} {number}"))
    for proof in own.template.proof_problems(config):
        device, code = EmulatedDevice(find_hazards=True), compiled(own.template.render(config))
        launch = own.template.launch(config, proof.problem)
        kernel = device.load(code.data, code.symbol)
        outcome = verify(device, kernel, launch, proof.problem, 1, proof.padding, proof.exact_sums)
        assert isinstance(outcome, Proof), (config, outcome)
