"""Which cache regime operands make, and when two outputs are the same product."""

from __future__ import annotations

import pytest
import torch

from hktune.core.dtype import BF16
from hktune.core.problem import Problem
from hktune.measure.agreement import disagreement
from hktune.measure.arena import COLD_FACTOR, SETS_MAX, set_count

H100_L2_BYTES = 50 << 20
MI350X_INFINITY_CACHE_BYTES = 256 << 20


@pytest.mark.parametrize("cache_bytes", [H100_L2_BYTES, MI350X_INFINITY_CACHE_BYTES])
@pytest.mark.parametrize("problem", [Problem(1, 4096, 4096), Problem(4096, 4096, 4096), Problem(512, 57344, 8192)])
def test_cold_means_that_others_fill_the_cache_before_a_set_comes_back(problem: Problem, cache_bytes: int) -> None:
    count = set_count(problem, "cold", cache_bytes)
    assert (count - 1) * problem.bytes >= COLD_FACTOR * cache_bytes
    assert count == 2 or (count - 2) * problem.bytes < COLD_FACTOR * cache_bytes, "no more than needed"
    assert set_count(problem, "warm", cache_bytes) == 1


def test_a_tiny_problem_is_not_rotated_for_ever() -> None:
    assert set_count(Problem(8, 8, 8), "cold", H100_L2_BYTES) == SETS_MAX


def product(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A product in bf16 by two orders of summation."""
    generator = torch.Generator().manual_seed(k)
    a, bt = torch.randn(64, k, generator=generator).bfloat16(), torch.randn(96, k, generator=generator).bfloat16()
    exact = (a.double() @ bt.double().T).bfloat16()
    in_parts = sum((a[:, i : i + 64].float() @ bt[:, i : i + 64].float().T for i in range(0, k, 64)), torch.zeros(1))
    return exact, in_parts.bfloat16()


@pytest.mark.parametrize("k", [64, 1024, 16384])
def test_two_right_kernels_agree_and_a_step_left_out_does_not(k: int) -> None:
    exact, other = product(k)
    assert disagreement(other, exact, k, BF16) is None
    shorter, _ = product(max(k - 16, 16))
    assert disagreement(shorter, exact, k, BF16) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1000.0])
def test_one_wrong_element_is_found_and_named(value: float) -> None:
    exact, other = product(1024)
    other[7, 11] = value
    found = disagreement(other, exact, 1024, BF16)
    assert found is not None
    assert found.startswith("1 of 6144 elements differ from the vendor's, first at [7,11]: got")
