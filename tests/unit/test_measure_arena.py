"""Which cache regime operands make, and when two outputs are the same product."""

from __future__ import annotations

import itertools

import pytest
import torch
from simulated_gpu import torch_without_cuda

from hktune.core.dtype import BF16
from hktune.core.group_sizes import group_ends
from hktune.core.operation import operation_of
from hktune.core.problem import Problem
from hktune.measure.agreement import disagreement
from hktune.measure.arena import COLD_FACTOR, SETS_MAX, Arena, set_count

TORCH = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
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


def test_one_arena_serves_every_format_and_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operand in its stored shape, none of two sets in the same bytes, and inputs that are standard normal."""
    texts = ("bf16.nt", "f16.tn+bias", "f16.nn->f32+bias", "bf16*f16.tt")
    problems = [Problem(40, 24, 72, operation_of(text)) for text in texts]
    with torch_without_cuda(monkeypatch):
        arena = Arena(problems, "cold", 64 << 10, seed=0)
    shapes = {
        "n": {"a": (40, 72), "b": (72, 24)},
        "t": {"a": (72, 40), "b": (24, 72)},
        "": {"bias": (24,), "c": (40, 24)},
    }
    for problem in problems:
        operation, sets = problem.operation, arena.sets(problem)
        stored = {"a": operation.layout[0], "b": operation.layout[1]}
        dtypes = {"a": operation.a, "b": operation.b, "c": operation.c, "bias": operation.c}
        assert len(sets) == set_count(problem, "cold", 64 << 10) > 2
        ranges = []
        for each in sets:
            assert set(each) == {"a", "b", "c", *operation.epilogue}
            for name, tensor in each.items():
                assert tensor.shape == shapes[stored.get(name, "")][name]
                assert (
                    tensor.dtype == {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[dtypes[name]]
                )
                assert tensor.is_contiguous()
                ranges.append((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes))
            assert abs(float(each["a"].float().std()) - 1) < 0.1
        ranges.sort()
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))


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


def test_groups_are_as_the_shapes_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows, and of K; and of a problem of which it says nothing by chance."""
    rows, ragged_k, other = (
        Problem(m, 24, k, operation_of(f"grouped16.bf16.{layout}"))
        for m, k, layout in ((80, 72, "nt"), (40, 160, "tn"), (80, 40, "nt"))
    )
    tokens = {rows: ((0, 12), (20, 4)), ragged_k: ((0, 8), (20, 8))}
    with torch_without_cuda(monkeypatch):
        arena = Arena([rows, ragged_k, other], "cold", 64 << 10, seed=0, tokens=tokens)
        ends = {problem: arena.sets(problem)[0]["offsets"].diff(prepend=torch.zeros(1)) for problem in (rows, ragged_k)}
        assert sorted(ends[rows].tolist()) == [0] * 12 + [20] * 4
        assert sorted(ends[ragged_k].tolist()) == [0] * 8 + [20] * 8
        assert arena.sets(other)[0]["offsets"].tolist() == group_ends(80, 16, 0)
