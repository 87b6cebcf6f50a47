"""Sums of float8 products on a matrix unit that keeps 14 bits, which is modelled here term by term."""

from __future__ import annotations

import numpy as np
import pytest

from hktune.core.arch import GFX950, SM90A
from hktune.core.errors import InputError
from hktune.core.operand import operands_of
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.core.sums import FLOAT32_SUMS, sums_of
from hktune.verify import Operands, compare, random_operands
from hktune.verify.arrays import HOST

M, N = 16, 24
FRACTION_BITS, TERMS, RUN_K = 13, 32, 128


def truncated(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """`values` without what is below 13 bits behind the first bit of `largest`, toward zero."""
    place = 2.0 ** (np.frexp(largest)[1] - 1 - FRACTION_BITS)
    return np.where(largest > 0, np.trunc(values / place) * place, 0)


def unit_sum(products: np.ndarray) -> np.ndarray:
    """Sums [m,n] of products [k,m,n], 32 and what is held at a time."""
    held = np.zeros(products.shape[1:])
    for first in range(0, len(products), TERMS):
        terms = np.concatenate([products[first : first + TERMS], held[None]])
        held = truncated(terms, abs(terms).max(axis=0)).sum(axis=0)
        held = truncated(held, abs(held))
    return held


def made(operands: Operands, run_k: int) -> np.ndarray:
    """C's bits by a kernel that adds runs of `run_k` in the unit and these in float32."""
    operation = operands.problem.operation
    value = {name: HOST.decoded(bits, operands_of(operation)[name].dtype) for name, bits in operands.stored.items()}
    a, b = value["a"].T[:, :, None], value["b"].T[:, None, :]
    total = np.zeros((M, N), np.float32)
    for run, first in enumerate(range(0, len(a), run_k)):
        part = unit_sum(a[first : first + run_k] * b[first : first + run_k])
        if operation.scales == "blocks":
            part = part * value["scale_a"][:, run, None] * value["scale_b"][:, run].repeat(128)[:N]
        total += part.astype(np.float32)
    if operation.scales == "rows":
        total = total * (value["scale_a"][:, None] * value["scale_b"]).astype(np.float32)
    return HOST.encoded(total + value.get("bias", 0), operation.c_dtype)


@pytest.mark.parametrize("exact_sums", [False, True])
@pytest.mark.parametrize(
    ("text", "run_k"),
    [
        ("e4m3.nt.rows->f32+bias", RUN_K),
        ("e4m3*e5m2.nt->bf16", RUN_K),
        ("e4m3.nt.blocks->bf16", RUN_K),
        ("e4m3.nt.rows.fast->f32", 1 << 20),
        ("e5m2*e4m3.nt.fast->bf16+bias", 1 << 20),
        ("e4m3.nt.fast->f32", RUN_K),
    ],
)
def test_a_unit_of_14_bits_is_right_where_it_adds_no_more_than_it_may(text: str, run_k: int, exact_sums: bool) -> None:
    operation = operation_of(text)
    operands = random_operands(Problem(M, N, 1000, operation), 1, exact_sums, sums_of(operation, SM90A))
    assert compare(made(operands, run_k), operands) is None
    if exact_sums:
        assert not np.any(operands.answer.error)


@pytest.mark.parametrize("text", ["e4m3.nt.rows->f32", "e4m3.nt->bf16+bias"])
def test_sums_that_are_not_taken_over_in_time_are_seen(text: str) -> None:
    operation = operation_of(text)
    operands = random_operands(Problem(M, N, 2048, operation), 1, True, sums_of(operation, SM90A))
    assert compare(made(operands, RUN_K), operands) is None
    found = compare(made(operands, 2048), operands)
    assert found is not None
    assert found.wrong > 0


def test_the_bound_is_that_of_the_unit_where_it_is_less_exact() -> None:
    operation = operation_of("e4m3.nt.rows->f32")
    assert sums_of(operation, GFX950) == FLOAT32_SUMS
    assert sums_of(operation_of("i8.nt->i32"), SM90A) == sums_of(operation_of("bf16.nt"), SM90A) == FLOAT32_SUMS
    problem = Problem(M, N, 1024, operation)
    errors = [
        random_operands(problem, 1, sums=sums).answer.error
        for sums in (FLOAT32_SUMS, sums_of(operation, SM90A), sums_of(operation_of("e4m3.nt.rows.fast->f32"), SM90A))
    ]
    assert (errors[0] < errors[1]).all()
    np.testing.assert_allclose(errors[2] - errors[0], (errors[1] - errors[0]) * 1024 / RUN_K)


@pytest.mark.parametrize("text", ["bf16.nt.fast", "i8.nt.rows.fast->bf16", "mxfp4.nt.fast->bf16"])
def test_only_float8_is_added_fast(text: str) -> None:
    with pytest.raises(InputError, match="known are sums that are fast of e4m3, e5m2"):
        operands_of(operation_of(text))


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="accumulation 'slow' is not known: known are fast"):
        operation_of("e4m3.nt.rows.slow->bf16")
