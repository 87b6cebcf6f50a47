"""Gates and residuals of the gfx950 GEMM: under every schedule, where they are wrong, and what they cost."""

from __future__ import annotations

import pytest
from gemm_bf16_variants import HALF_OF_WARP, IN_PARTS, INTERLEAVED, PINGPONG, SHARED, built_registers, space
from test_exact_sums import proofs_of

from hktune.core.operation import operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem
from hktune.verify import Proof

WIDE = {"block_m": 64, "block_n": 64, "warps_n": 1, "split": 1, "mfma": 32, "slices": 2}
KEPT = ("", "")
C_STRIDE = "residual_stride = row_stride;"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("bf16.nt+silu+gated", HALF_OF_WARP),
        ("f16.nn+gelu_tanh+gated", HALF_OF_WARP),
        ("bf16.nn+gated", WIDE),
        ("f16.nt+silu+gated", SHARED),
        ("bf16.nn+silu+gated", INTERLEAVED),
        ("bf16.nt+relu+gated", PINGPONG),
        ("f16.nt+gelu+residual", PINGPONG),
        ("bf16.nt+residual", SHARED),
        ("bf16.nn+silu+residual", WIDE),
        ("bf16.nt+silu+gated_interleaved", HALF_OF_WARP),
        ("f16.nt+gelu+gated_interleaved", PINGPONG),
        ("bf16.nt+alpha+gelu+beta_residual", SHARED),
        ("f16.nn+alpha+beta_residual", WIDE),
        ("bf16.nt->e4m3+silu", HALF_OF_WARP),
        ("f16.nn->e4m3", WIDE),
        ("bf16.nt->e4m3+silu+gated_interleaved", PINGPONG),
        ("e4m3.nt.rows", SHARED | {"slices": 1}),
    ],
)
def test_every_schedule_proves_them(text: str, values: dict[str, object]) -> None:
    outcomes = proofs_of(text, values, KEPT)
    assert all(isinstance(outcome, Proof) for outcome in outcomes), outcomes


MUTANTS = {
    "gates that gate themselves": ("bf16.nt+silu+gated", IN_PARTS, "Gates::part ? 1 : 0", "Gates::part ? 0 : 0"),
    "gates of the next column": ("f16.nt+gated", HALF_OF_WARP, "(in_warp < REG_COLS ? 0 : up)", "up"),
    "a bias of the gates for both": ("bf16.nt+gated", IN_PARTS, "c.bias + c.up", "c.bias"),
    "gates in turn as if in halves": (
        "bf16.nt+gated_interleaved", HALF_OF_WARP, "const uint32_t from = gate * step", "const uint32_t from = gate",
    ),
    "a bias in halves": ("f16.nt+gated_interleaved", IN_PARTS, "(col + e) * GATE_STRIDE *", "(col + e) *"),
    "no alpha for up": (
        "bf16.nt+alpha+silu+gated", IN_PARTS, "scales.times_alpha(quad_of(ct[up_part], t, q + up_quad)[pair])",
        "quad_of(ct[up_part], t, q + up_quad)[pair]",
    ),
    "no beta": ("f16.nt+beta_residual", HALF_OF_WARP, "residual * scales.beta", "residual"),
    "float8 that does not saturate": (
        "bf16.nt->e4m3", HALF_OF_WARP, "f32x2(FLOAT8_MAX)", "f32x2(2 * FLOAT8_MAX)",
    ),
    "float8 in other lanes": ("bf16.nt->e4m3", IN_PARTS, "trade_rows(words[0], words[1]);", ""),
    "a residual in other lanes": ("bf16.nt+residual", IN_PARTS, "    back_to_lanes(taken);\n", ""),
    "a residual with C's stride": ("bf16.nt+residual", HALF_OF_WARP, "residual_stride = stride;", C_STRIDE),
    "a residual before the activation": (
        "f16.nt+relu+residual", HALF_OF_WARP, "activated(biased(", "activated(f32x2(1.f) + biased(",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_kernel_that_is_wrong_is_not_proved(mutant: str) -> None:
    text, values, right, wrong = MUTANTS[mutant]
    outcomes = proofs_of(text, values, (right, wrong))
    assert Status.WRONG in [outcome.status for outcome in outcomes if isinstance(outcome, Failure)], outcomes


def test_gates_are_in_the_lanes_of_what_they_gate_or_refused() -> None:
    narrow = {"block_m": 64, "block_n": 64, "warps_m": 1, "split": 1}
    gated, plain = (space().for_operation(operation_of(text)) for text in ("bf16.nt+silu+gated", "bf16.nt"))
    broken = gated.violations(gated.config(narrow))
    assert [violation.name for violation in broken] == ["gates_in_their_lanes"]
    assert broken[0].reason.startswith("half of a warp's 16 columns of B are gates")
    assert not plain.violations(plain.config(narrow))


def test_what_is_gated_must_be_within_reach_of_a_load_unless_it_has_a_part_of_its_own() -> None:
    gated = space().for_operation(operation_of("bf16.nt+silu+gated"))
    problem = Problem(64, 2**16, 2**14, gated.template.operation)
    far = gated.violations(gated.config(HALF_OF_WARP), problem)
    assert [violation.name for violation in far] == ["operand_offsets"]
    assert not gated.violations(gated.config(IN_PARTS), problem)


@pytest.mark.parametrize("text", ["bf16.nt+gelu+gated", "bf16.nt+silu+residual"])
@pytest.mark.parametrize("values", [{}, {"block_m": 128, "block_n": 128, "warps_n": 2, "slices": 2}], ids=str)
def test_they_take_no_registers_beyond_the_budget(values: dict[str, object], text: str) -> None:
    used, budget = built_registers(values, text)
    assert (used.spills, used.scratch_bytes, used.agprs) == (0, 0, 0)
    assert used.vgprs <= budget
