"""Proofs on operands with exact sums: what the operands are, and that every wrong rounding of f16 and bf16 is found.
PyTorch's own conversions are the truth."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gemm_bf16_variants import compiled, space
from test_reference import PRODUCTS, TORCH, PythonKernel, launch_of_all, to_nearest, towards_zero

from hktune.core.operand import operands_of
from hktune.core.operation import ACTIVATIONS, operation_of
from hktune.core.outcome import Failure, Status
from hktune.core.problem import Problem, ProofProblem
from hktune.device.emulated import EmulatedDevice
from hktune.verify import Proof, random_operands, verify
from hktune.verify.on_device import verify_on_device

HALF = ("f16.nt+bias", "bf16.nt+bias", "bf16.tn->f16+bias", "bf16.nt+bias+silu", "f16.nt+bias+gelu")
OPERATIONS = (*HALF, "f16.nn", "f16.nn+relu", "bf16.tt", "f16*bf16.nt->bf16+bias", "f16.nn->f32+bias", "f32.nt+bias")
ONTO_C = ("bf16.tn->f32+accumulate", "f16.nt+bias+accumulate")
FINISHED = ("bf16.nt+residual", "f16.nt+bias+residual", "bf16.nt+bias+silu+gated", "f16.nn+gelu+gated+residual")
WITH_FACTORS = ("bf16.nn+alpha+beta_residual", "f16.nt->f32+alpha+bias+beta_residual", "bf16.nt+bias+beta_residual")
FLOAT8 = ("bf16.nt->e4m3+bias", "f16.nn->e4m3", "bf16.nt->e4m3+alpha+bias+beta_residual", "f16.nt->e4m3+bias+silu")
DEPTHS = (8, 96, 1544, 8192)
Floats = npt.NDArray[np.float64]


@lru_cache
def inputs(text: str, k: int) -> dict[str, Floats]:
    """The operands of 24x72xK as PyTorch reads their bits; a [m,k] and b [k,n]."""
    operation = operation_of(text)
    operands = random_operands(Problem(24, 72, k, operation), 2, exact_sums=True)
    values = {
        name: torch.from_numpy(bits.view(f"i{bits.itemsize}").copy())
        .view(TORCH[operands_of(operation)[name].dtype.name])
        .double()
        .numpy()
        for name, bits in operands.stored.items()
    }
    values["a"] = values["a"] if operation.layout[0] == "n" else values["a"].T
    values["b"] = values["b"] if operation.layout[1] == "n" else values["b"].T
    return values


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("text", [*OPERATIONS, *ONTO_C])
def test_no_sum_rounds_in_float32_in_any_order(text: str, k: int) -> None:
    values, random = inputs(text, k), np.random.default_rng(0)
    before = values.get("c", np.zeros((24, 72)))
    exact = values["a"] @ values["b"] + values.get("bias", 0.0) + before
    for _ in range(3):
        order = random.permutation(k)
        a, b = values["a"][:8, order].astype(np.float32), values["b"][order].astype(np.float32)
        terms = a.T[:, :, None] * b[:, None, :]
        bias = np.broadcast_to(np.float32(values.get("bias", 0.0)), (1, 8, 72))
        sums = np.cumsum(np.concatenate([bias, terms, np.float32(before[None, :8])]), axis=0, dtype=np.float32)
        assert (sums[-1] == exact[:8]).all()
        step = random.integers(1, k + 1)
        exact_part = values["a"][:8, order[:step]] @ values["b"][order[:step]] + bias[0].astype(np.float64)
        assert (sums[step] == exact_part).all()


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("text", OPERATIONS)
def test_inputs_are_normal_numbers_and_outputs_need_a_rounding(text: str, k: int) -> None:
    values, operation = inputs(text, k), operation_of(text)
    for name, numbers in values.items():
        least = torch.finfo(TORCH[operands_of(operation)[name].dtype.name]).tiny
        assert np.isfinite(numbers).all()
        assert ((numbers == 0) | (abs(numbers) >= least)).all(), name
        assert (numbers != 0).mean() > 0.35, name
    exact = torch.from_numpy(values["a"] @ values["b"] + values.get("bias", 0.0))
    c = exact.float().to(TORCH[operation.c]).double()
    subnormal = (c.abs() < torch.finfo(TORCH[operation.c]).tiny) & (c != 0)
    rounded = c != exact
    if operation.c == "f32":
        assert not rounded.any()
        return
    assert rounded.double().mean() > 0.6
    assert (c.isinf().double().mean() > 0.02) == (operation.c == "f16")
    assert ((subnormal & rounded).double().mean() > 0.1) == (operation.c == "f16")
    # The last bit of a tie is half of the last one that is kept.
    bits = operation.c_dtype.significand_bits
    last = 2.0 ** np.maximum(np.frexp(exact.numpy())[1] - bits, operation.c_dtype.exponent_min - bits + 1)
    assert (abs(np.fmod(exact.numpy() / last, 1)) == 0.5).mean() > 0.005


def test_equal_seeds_give_equal_operands_and_others_others() -> None:
    problem = Problem(16, 24, 40, operation_of("f16.nt+bias"))
    first, again, other = (random_operands(problem, seed, exact_sums=True).stored for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() and (first[name] != other[name]).any() for name in first)


class WrongKernel(PythonKernel):
    """`sum_rounded`: the product is rounded before the bias is added. `parts`: of K, each rounded by itself."""

    def __init__(self, operation: str, rounded: Any, parts: int = 1, sum_rounded: bool = False) -> None:
        super().__init__(operation, rounded)
        self._parts, self._sum_rounded = parts, sum_rounded

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        made = operation_of(self._operation)
        a_k, b_k = "mk,kn".index("k") if made.layout[0] == "n" else 0, 0 if made.layout[1] == "n" else 1
        products = [
            torch.einsum(PRODUCTS[made.layout], part_a.double(), part_b.double())
            for part_a, part_b in zip(a.chunk(self._parts, a_k), b.chunk(self._parts, b_k), strict=True)
        ]
        if self._parts > 1 or self._sum_rounded:
            products = [each.float().to(TORCH[made.c]).double() for each in products]
        return torch.stack(products).sum(0)


def clamped(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    most = torch.finfo(dtype).max
    return values.clamp(-most, most).to(dtype)


def flushed(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.where(values.abs() < torch.finfo(dtype).tiny, 0.0, values).to(dtype)


def ties_away(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return to_nearest(values.float() * (1 + 2.0**-23), dtype)


def judgements(device: PythonKernel, problem: Problem) -> list[Proof | Failure]:
    """Of both judges."""

    given: Any = device
    kernel, proof = SimpleNamespace(symbol="k"), ProofProblem(problem, 8, exact_sums=True)
    return [
        verify(given, kernel, launch_of_all(), problem, 3, 8, exact_sums=True),
        verify_on_device(given, kernel, launch_of_all(), proof, 3, "cpu"),
    ]


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize("text", [*OPERATIONS, *FINISHED, *WITH_FACTORS])
def test_the_one_rounding_is_right_for_both_judges(text: str, k: int) -> None:
    for judged in judgements(WrongKernel(text, to_nearest), Problem(24, 72, k, operation_of(text))):
        assert isinstance(judged, Proof), judged
        bits = operation_of(text).c_dtype.significand_bits
        assert judged.relative_error < 2.0**-bits  # over what is finite: neither inf nor NaN


WRONG: dict[str, dict[str, Any]] = {
    "truncates": {"rounded": towards_zero},
    "ties away": {"rounded": ties_away},
    "rounds twice": {"rounded": to_nearest, "sum_rounded": True},
    "partial sums of C's format": {"rounded": to_nearest, "parts": 4},
}


@pytest.mark.parametrize("k", DEPTHS[1:])
@pytest.mark.parametrize(
    ("text", "wrong"),
    # An activation is not exact, so that its ties may go either way.
    [
        (text, wrong)
        for text in (*HALF, *FINISHED)
        for wrong in WRONG
        if wrong != "ties away" or not operation_of(text).activations
    ],
)
def test_a_wrong_rounding_is_wrong_at_every_depth(text: str, wrong: str, k: int) -> None:
    for judged in judgements(WrongKernel(text, **WRONG[wrong]), Problem(24, 72, k, operation_of(text))):
        assert isinstance(judged, Failure)
        assert judged.status is Status.WRONG


def not_saturated(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.where(values.abs() > torch.finfo(dtype).max + 16, torch.nan, values.float()).to(dtype)


WRONG_FLOAT8 = {**WRONG, "does not saturate": {"rounded": not_saturated}, "flushes": {"rounded": flushed}}


@pytest.mark.parametrize("wrong", ["", *WRONG_FLOAT8])
@pytest.mark.parametrize("text", FLOAT8)
def test_float8_is_rounded_once_and_saturates(text: str, wrong: str) -> None:
    if wrong == "ties away" and operation_of(text).activations:
        return  # an activation is not exact
    kernel = WrongKernel(text, **WRONG_FLOAT8.get(wrong, {"rounded": to_nearest}))
    for judged in judgements(kernel, Problem(24, 72, 1544, operation_of(text))):
        assert isinstance(judged, Failure if wrong else Proof), judged


@pytest.mark.parametrize("text", [*FLOAT8, "e4m3.nt.tensor", "e4m3.nt.rows+bias", "e5m2*e4m3.nt.rows->e4m3"])
def test_outputs_in_float8_meet_both_ends_of_the_range(text: str) -> None:
    """Some are beyond the largest number, some are subnormal, and most are neither."""
    for k in (96, 1544):
        operands = random_operands(Problem(24, 72, k, operation_of(text)), 2, exact_sums=True)
        exact = torch.from_numpy(operands.answer.exact)
        info = torch.finfo(torch.float8_e4m3fn)
        rounded = exact.float().clamp(info.min, info.max).to(torch.float8_e4m3fn).double()
        beyond = exact.abs() > info.max
        subnormal = (rounded.abs() < info.tiny) & (rounded != 0)
        assert 0.005 < beyond.double().mean() < 0.5
        assert 0.005 < subnormal.double().mean() < 0.5
        assert (rounded == 0).double().mean() < 0.3


@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.parametrize("rounded", [clamped, flushed])
@pytest.mark.parametrize("text", [text for text in OPERATIONS if operation_of(text).c == "f16"])
def test_the_ends_of_the_range_are_met(text: str, rounded: Any, rows: int) -> None:
    for judged in judgements(WrongKernel(text, rounded), Problem(rows, 72, 1544, operation_of(text))):
        assert isinstance(judged, Failure)


@pytest.mark.parametrize("other", ["", *ACTIVATIONS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_another_activation_is_wrong(dtype: str, activation: str, other: str) -> None:
    """Sums are of a size at which both kinds of gelu differ, by 5e-4 at most."""
    texts = [f"{dtype}.nt+bias" + (f"+{step}" if step else "") for step in (activation, other)]
    for judged in judgements(WrongKernel(texts[1], to_nearest), Problem(24, 72, 200, operation_of(texts[0]))):
        assert isinstance(judged, Proof if activation == other else Failure)


@pytest.mark.parametrize("text", FINISHED)
def test_products_with_gates_and_residuals_are_of_a_size_to_be_judged_by(text: str) -> None:
    """Few are infinite or nothing, and what is added counts."""
    operation = operation_of(text)
    operands = random_operands(Problem(24, 72, 1544, operation), 2, exact_sums=True)
    exact = abs(operands.answer.exact)
    assert (exact >= 2.0**operation.c_dtype.exponent_max).mean() < 0.5
    assert (exact < 2.0**operation.c_dtype.exponent_min).mean() < 0.6
    if operation.has_residual:
        residual = operation.c_dtype.values(operands.stored["residual"])
        assert (abs(residual) > 2.0**-10 * exact).mean() > 0.3


# The kernel of gfx950 itself, made wrong where it stores.
SPLIT = {"block_m": 32, "block_n": 128, "k_step": 128, "warps_m": 1, "warps_n": 2, "split": 1, "slices": 4} | {
    "stages": 3, "refill": "late", "lgkmcnt_clusters": 2, "read_across": True, "split_k": 8,
}  # fmt: skip
STORE = "return f32x2{sum.x + bias.x, sum.y + bias.y};"
CUT = "& (DTYPE_A == Dtype::bf16 ? 0xffff0000u : 0xffffe000u))"
CUTS = [f"__builtin_bit_cast(float, __builtin_bit_cast(uint32_t, sum.{i} + bias.{i}) {CUT}" for i in "xy"]
ADDED = "const float4 sum{low.x, low.y, high.x, high.y};"
PARTS = ", ".join(f"float(element_of<DTYPE_A>::scalar({part}))" for part in ("low.x", "low.y", "high.x", "high.y"))
MUTANTS = {
    "right": (ADDED, ADDED),
    "truncates": (STORE, f"return f32x2{{{CUTS[0]}, {CUTS[1]}}};"),
    "rounds twice": (STORE, "return f32x2{float(scalar(sum.x)) + bias.x, float(scalar(sum.y)) + bias.y};"),
    "partial sums of C's format": (ADDED, f"const float4 sum{{{PARTS}}};"),
}


def proofs_of(text: str, values: dict[str, object], replaced: tuple[str, str]) -> list[Proof | Failure]:
    """Of the kernel with one text replaced, on all its proof problems but the first; hazards are looked for."""
    bound = space().for_operation(operation_of(text))
    config = bound.config(values)
    variant = bound.template.render(config)
    assert not replaced[0] or variant.source.count(replaced[0]) == 1
    code = compiled(replace(variant, source=variant.source.replace(*replaced) if replaced[0] else variant.source))
    outcomes: list[Proof | Failure] = []
    for what in bound.template.proof_problems(config)[1:]:
        assert what.exact_sums
        device = EmulatedDevice(find_hazards=True, strict_hazards=True)
        launch = bound.template.launch(config, what.problem)
        kernel = device.load(code.data, code.symbol)
        outcomes.append(verify(device, kernel, launch, what.problem, 0, what.padding, exact_sums=True))
    return outcomes


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("text", ["f16.nt", "bf16.nt"])
def test_a_kernel_that_rounds_otherwise_is_not_proved(text: str, mutant: str) -> None:
    outcomes = proofs_of(text, SPLIT, MUTANTS[mutant])
    if mutant == "right":
        assert all(isinstance(outcome, Proof) for outcome in outcomes), outcomes
    else:
        assert Status.WRONG in [outcome.status for outcome in outcomes if isinstance(outcome, Failure)], outcomes


@pytest.mark.parametrize("text", ["f16.nt", "bf16.nt"])
def test_seeds_are_right(text: str) -> None:
    for seed in space().seeds[::15]:
        outcomes = proofs_of(text, dict(seed.items()), MUTANTS["right"])
        assert all(isinstance(outcome, Proof) for outcome in outcomes), (seed, outcomes)
