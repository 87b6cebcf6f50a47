"""Operations of several products: their operands, their answers against torch's own, and what proofs are made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

from hktune.core.dtype import DTYPES
from hktune.core.errors import InputError
from hktune.core.group_sizes import routed_ends, row_ranges
from hktune.core.operand import operands_of
from hktune.core.operation import BF16_NT, Operation, operation_of, problem_operation
from hktune.core.problem import Problem
from hktune.core.problem_text import problem_of
from hktune.verify import Operands, compare, random_operands
from hktune.verify.on_device import TorchArrays, bits_of
from hktune.verify.reference import drawn_operands

GROUPED = [
    "grouped8.bf16.nt",
    "grouped3.bf16.nn",
    "grouped1.f16.nt",
    "grouped5.f16.nn->f32",
    "grouped5.bf16.nt+bias",
    "grouped3.f16.nn+bias",
]
RAGGED_K = ["grouped8.bf16.tn", "grouped3.f16.tn->f32", "grouped1.bf16.tn"]
ADDED_TO = ["grouped8.bf16.tn->f32+accumulate", "grouped3.f16.tn+accumulate"]
BATCHED = [
    "batched4.bf16.nn+residual",
    "batched4.bf16.nt",
    "batched3.f16.tn",
    "batched1.bf16.nn",
    "batched2.f16.tt->f32",
]


def tensors(operands: Operands) -> dict[str, torch.Tensor]:
    """The inputs as torch has them, in their own formats."""
    kinds = operands_of(operands.problem.operation)
    return {
        name: torch.from_numpy(bits.view(f"i{bits.itemsize}")).view(getattr(torch, kinds[name].dtype.torch_name))
        for name, bits in operands.stored.items()
    }


def by_torch(problem: Problem, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """All rows in float64, by torch's own products of tensors that are stored as it stores them."""
    left, right = problem.operation.layout
    a, b = given["a"].double(), given["b"].double()
    if problem.operation.divides_k:
        ranges = row_ranges(given["offsets"].tolist())
        held = given["c"].double() if "c" in given else torch.zeros(problem.groups, problem.m, problem.n)
        return torch.cat([held[at] + a[first:end].T @ b[first:end] for at, (first, end) in enumerate(ranges)])
    b = b.mT if right == "t" else b
    if problem.operation.is_grouped:
        ranges = row_ranges(given["offsets"].tolist())
        bias = given["bias"].double() if "bias" in given else torch.zeros(problem.groups, problem.n)
        return torch.cat([a[first:end] @ b[group] + bias[group] for group, (first, end) in enumerate(ranges)])
    product = torch.bmm(a.mT if left == "t" else a, b)
    if problem.operation.has_residual:
        product += given["residual"].double()
    return product.flatten(0, 1)


@pytest.mark.parametrize("exact_sums", [False, True])
@pytest.mark.parametrize("text", [*GROUPED, *RAGGED_K, *ADDED_TO, *BATCHED])
def test_the_answer_is_torchs(text: str, exact_sums: bool) -> None:
    problem = Problem(37, 24, 40, operation_of(text))
    operands = random_operands(problem, 3, exact_sums)
    expected = by_torch(problem, tensors(operands))
    assert np.allclose(operands.answer.exact, expected.numpy(), rtol=1e-14, atol=0) or not exact_sums
    assert np.allclose(operands.answer.exact, expected.numpy(), rtol=1e-9, atol=1e-9)
    assert (operands.answer.error == 0).all() == exact_sums
    output = expected.float().to(getattr(torch, problem.operation.c_dtype.torch_name))
    bits = bits_of(output).numpy().view(problem.operation.c_dtype.bits_type)
    assert compare(bits, operands) is None
    other = bits.copy()
    other[-1, -1] += 1 << 8 * other.itemsize - 5  # another exponent, of the last group or the last matrix
    wrong = compare(other, operands)
    assert wrong is not None
    assert wrong.first == (problem.rows - 1, problem.n - 1)


ACTIVATED = {"silu": functional.silu, "gelu": functional.gelu, "relu": functional.relu}
FINISHED = [
    "grouped5.bf16.nt+silu+gated",
    "grouped4.f16.nt+silu+gated_interleaved",
    "batched3.bf16.nn+gelu+gated",
    "grouped3.f16.nn+gelu",
    "batched3.bf16.tt+relu",
    "grouped5.e4m3.nt.rows->bf16",
    "grouped5.bf16.nt+bias+silu+gated",
    "grouped4.f16.nt+bias+silu+gated_interleaved",
    "grouped3.i8.nt.rows->f32+bias",
    "batched3.i8.nt.rows->f32",
]


def finished_by_torch(problem: Problem, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """All rows in float64, product by product, with scales of rows, an activation and gates."""
    operation, products = problem.operation, []
    ranges = row_ranges(given["offsets"].tolist()) if operation.is_grouped else [(0, problem.m)] * problem.groups
    for group, (first, end) in enumerate(ranges):
        a, b = (given[name].double() for name in ("a", "b"))
        a = a[first:end] if operation.is_grouped else a[group]
        product = (a.T if operation.layout[0] == "t" else a) @ (b[group].T if operation.layout[1] == "t" else b[group])
        if operation.scales:
            scale_a = given["scale_a"].double()
            scale_a = scale_a[first:end] if operation.is_grouped else scale_a[group]
            product = product * scale_a[:, None] * given["scale_b"][group].double()
        product = product + given["bias"][group].double() if operation.has_bias else product
        halves = {"gated": product.chunk(2, -1), "gated_interleaved": (product[:, ::2], product[:, 1::2])}
        gate, up = halves.get(operation.gates_step, (product, torch.ones(())))
        products.append((ACTIVATED[operation.activations[0]](gate) if operation.activations else gate) * up)
    return torch.cat(products)


@pytest.mark.parametrize("exact_sums", [False, True])
@pytest.mark.parametrize("text", FINISHED)
def test_the_answer_with_scales_activations_and_gates_is_torchs(text: str, exact_sums: bool) -> None:
    problem = Problem(37, 24, 32, operation_of(text))
    operands = random_operands(problem, 3, exact_sums)
    expected = finished_by_torch(problem, tensors(operands))
    assert np.allclose(operands.answer.exact, expected.numpy(), rtol=1e-9, atol=1e-9)
    assert operands.answer.error.shape == expected.shape
    output = expected.float().to(getattr(torch, problem.operation.c_dtype.torch_name))
    assert compare(bits_of(output).numpy().view(problem.operation.c_dtype.bits_type), operands) is None


@pytest.mark.parametrize("text", ["grouped8.bf16.nt", "grouped8.bf16.nn"])
def test_torchs_own_grouped_product_is_right(text: str) -> None:
    """And with the groups' ends a place too early it is not: the judge sees rows that go to another group."""
    problem = Problem(64, 24, 64, operation_of(text))
    operands = random_operands(problem, 5)
    given = tensors(operands)
    b = given["b"].mT if problem.operation.layout[1] == "t" else given["b"]
    right = torch._grouped_mm(given["a"], b, offs=given["offsets"])
    assert compare(bits_of(right).numpy().view("u2"), operands) is None
    early = (given["offsets"] - 1).clamp(min=0)
    early[-1] = 64
    assert compare(bits_of(torch._grouped_mm(given["a"], b, offs=early)).numpy().view("u2"), operands) is not None


@pytest.mark.parametrize("text", [GROUPED[0], *GROUPED[3:5], RAGGED_K[0], ADDED_TO[0], BATCHED[1]])
def test_a_gpu_makes_the_same_kind_of_operands(text: str) -> None:
    problem = Problem(37, 24, 40, operation_of(text))
    random = torch.Generator().manual_seed(1)
    for exact_sums in (False, True):
        made = drawn_operands(
            problem, lambda shape: torch.randn(shape, generator=random), TorchArrays("cpu"), exact_sums
        )
        dtypes = {name: each.dtype for name, each in operands_of(problem.operation).items()}
        stored = {name: bits.numpy().view(dtypes[name].bits_type) for name, bits in made.stored.items()}
        expected = by_torch(problem, tensors(Operands(problem, stored, made.answer)))
        assert torch.allclose(made.answer.exact, expected, rtol=1e-9, atol=1e-9)
        assert (made.answer.error == 0).all().item() == exact_sums


def test_proofs_have_empty_groups_and_uneven_ones() -> None:
    sizes: Counter[int] = Counter()
    for seed in range(20):
        problem = Problem(256, 8, 16, operation_of("grouped16.bf16.nt"))
        ends = random_operands(problem, seed, exact_sums=seed % 2 == 0).stored["offsets"].tolist()
        assert len(ends) == 16
        assert ends[-1] == 256
        assert ends == sorted(ends)
        sizes.update(end - first for first, end in row_ranges(ends))
    assert 40 < sizes[0] < 140, "a quarter of 320 groups, and small ones that round to nothing"
    assert max(sizes) > 4 * 256 / 16


def test_rows_are_routed_to_all_groups_alike() -> None:
    counts = np.diff([0, *routed_ends(64_000, 64, 7)])
    assert counts.sum() == 64_000
    assert 900 < counts.min() < 1000 < counts.max() < 1100
    assert routed_ends(100, 8, 1) == routed_ends(100, 8, 1) != routed_ends(100, 8, 2)
    assert routed_ends(3, 1, 0) == [3]


def test_a_problem_counts_the_work_and_the_bytes_of_all_its_products() -> None:
    grouped = Problem(64, 24, 40, operation_of("grouped8.bf16.nt"))
    assert grouped.flops == 2 * 64 * 24 * 40
    assert grouped.bytes == 2 * (64 * 40 + 8 * 24 * 40 + 64 * 24) + 4 * 8
    sizes = {"m": 64, "n": 24, "k": 40, "groups": 8}
    assert grouped.numbers() == {**sizes, "lda": 40, "ldb": 40, "ldc": 24, "stride_b": 960}
    ragged = Problem(64, 24, 40, operation_of("grouped8.bf16.tn"))
    assert ragged.flops == grouped.flops
    assert ragged.bytes == 2 * (64 * 40 + 24 * 40 + 8 * 64 * 24) + 4 * 8
    assert (ragged.rows, ragged.divided, grouped.divided) == (512, 40, 64)
    biased = Problem(64, 24, 40, operation_of("grouped8.bf16.nt+silu+bias"))
    assert biased.bytes == grouped.bytes + 2 * 8 * 24
    assert biased.numbers(4) == grouped.numbers(4), "biases follow one another"
    gated = operands_of(operation_of("grouped8.bf16.nt+bias+silu+gated"))
    assert (gated["bias"].axes, gated["bias"].dtype.name) == (("8", "2n"), "bf16")
    assert operands_of(operation_of("grouped8.bf16.tn->f32+accumulate"))["c"].axes == ("8", "m", "n")
    batched = Problem(64, 24, 40, operation_of("batched8.bf16.nn"))
    assert batched.flops == 8 * 2 * 64 * 24 * 40
    assert batched.bytes == 8 * 2 * (64 * 40 + 24 * 40 + 64 * 24)
    strides = {"lda": 44, "ldb": 28, "ldc": 28}
    assert batched.numbers(4) == {**sizes, **strides, "stride_a": 64 * 44, "stride_b": 40 * 28, "stride_c": 64 * 28}
    assert (grouped.rows, batched.rows) == (64, 512)
    assert grouped.key == (64, 24, 40, "grouped8.bf16.nt"), "how many rows each group has is not in it"


def test_the_text_of_an_operation_says_how_many() -> None:
    assert operation_of("grouped64.bf16.nt") == Operation(kind="grouped", count=64)
    assert str(Operation("f16", "nn", kind="batched", count=16)) == "batched16.f16.nn"
    assert operation_of("grouped64.bf16.nt").code == operation_of("grouped.bf16.nt")
    assert BF16_NT.of_any_count is BF16_NT
    assert problem_of("512x14336x4096:grouped8.bf16.nt") == Problem(512, 14336, 4096, operation_of("grouped8.bf16.nt"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grouped0.bf16.nt", "is of no product: say how many, such as grouped8.bf16.nt"),
        ("grouped08.bf16.nt", "must be written grouped8.bf16.nt"),
        ("grouped65537.bf16.nt", "batched and grouped products are counted, from 1 to 65536, got 65537"),
        ("gemm8.bf16.nt", "batched and grouped products are counted, from 1 to 65536, got 8"),
        ("grouped9999999999.bf16.nt", "must read like"),
        ("grouped-8.bf16.nt", "must read like"),
        ("grouped.bf16.nt", "of any number of products: say how many, such as grouped8.bf16.nt"),
        ("batched.f16.nn", "of any number of products: say how many, such as batched8.f16.nn"),
    ],
)
def test_any_other_count_is_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        problem_operation(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_not_known_of_several_products_is_said() -> None:
    for text in (
        "grouped8.bf16.tt",
        "batched8.bf16.nt+bias",
        "grouped8.bf16.tn+bias",
        "grouped8.bf16.nt->f32+accumulate",
        "batched8.bf16.tn->f32+accumulate",
        "batched8.bf16.nt+gelu+residual",
        "grouped8.bf16.nt+residual",
        "grouped8.bf16.tn+gelu",
        "grouped8.e4m3.nt.tensor->bf16",
        "grouped8.mxfp8.nt->bf16",
    ):
        with pytest.raises(InputError, match=r"its operands are not known: .*known are"):
            operands_of(operation_of(text))
    with pytest.raises(InputError, match="any number of products: say how many"):
        Problem(8, 8, 8, operation_of("grouped.bf16.nt")).bytes  # noqa: B018 - it raises
    assert DTYPES["i32"] is operands_of(operation_of("grouped8.bf16.nt"))["offsets"].dtype
